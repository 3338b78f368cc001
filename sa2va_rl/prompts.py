"""Eleven prompts, and the words by which a prompt steers a segmenter that has no language model.

The published run's prompt list is not public; this one is ours and covers the same ground: plain
wording, small branches, low contrast, bifurcations, boundaries, the complete tree.

`controls_of` reads ANY text, not these eleven alone: each line of the lexicon fires on its words
and moves a few numbers, and a text without such words gets the base setting.  It knows no grammar
("no noise" fires like "noise"): it is a stand-in for language understanding, not a claim to it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

PROMPTS: tuple[str, ...] = (
    "Please segment the blood vessel.",
    "Segment every blood vessel, the small side branches included.",
    "Segment the thin branches of the blood vessels, even where they are faint.",
    "Segment only the wide main vessels.",
    "Segment the blood vessel even where the contrast is low.",
    "Segment the blood vessel in this noisy picture.",
    "Segment the blood vessel and its bifurcations as one connected tree.",
    "Detect and segment the complete vascular structure in this noisy picture.",
    "Segment the blood vessel with precise boundaries.",
    "Segment the wide vessels, faint and noisy as the picture may be.",
    "Segment the thin vessels and leave out clutter.",
)
BASE_PROMPT = 0


@dataclass(frozen=True)
class Controls:
    """What a prompt asks of the vesselness segmenter; lengths are for a picture of 160 px.

    Attributes:
        scales: half widths looked for, in pixels, ascending.
        threshold: robust z-score above which a pixel starts a vessel.
        low_ratio: share of `threshold` down to which a vessel is followed, in (0, 1].
        denoise: standard deviation of the smoothing before anything else, in pixels; 0 = none.
        min_size: smallest connected piece kept, in pixels.
    """

    scales: tuple[float, ...]
    threshold: float
    low_ratio: float
    denoise: float
    min_size: float


@dataclass(frozen=True)
class Meaning:
    """What one line of the lexicon does when one of its words occurs.

    Attributes:
        words: regular expression of word beginnings.
        widths: vessels spoken of: `thin`, `wide`, `all`, or empty when none are.
        threshold: factor on `Controls.threshold`.
        low_ratio: factor on `Controls.low_ratio`.
        denoise: pixels added to `Controls.denoise`.
        min_size: factor on `Controls.min_size`.
    """

    words: str
    widths: str = ""
    threshold: float = 1.0
    low_ratio: float = 1.0
    denoise: float = 0.0
    min_size: float = 1.0


SCALES: dict[str, tuple[float, ...]] = {
    "thin": (1.0, 1.6),
    "": (1.6, 2.4, 3.4),
    "all": (1.0, 1.6, 2.4, 3.4),
    "wide": (2.8, 4.0, 5.5),
}
BASE = Controls(SCALES[""], threshold=5.0, low_ratio=0.5, denoise=0.0, min_size=40.0)

LEXICON: tuple[Meaning, ...] = (
    Meaning("thin|fine|narrow|tiny|distal|capillar", widths="thin"),
    Meaning("wide|thick|large|trunk|proximal|main", widths="wide"),
    Meaning("every|entire|whole|complete|all", widths="all"),
    Meaning("small|side|minor", threshold=0.9, min_size=0.5),
    Meaning("faint|weak|dim|pale|low[- ]contrast|contrast is low", threshold=0.65),
    Meaning("only|clear|certain|distinct|high[- ]contrast", threshold=1.4),
    Meaning("nois|grain|blurr", denoise=1.2, min_size=1.5),
    Meaning("bifurcat|connect|continu|unbroken|junction", low_ratio=0.6, min_size=2.0),
    Meaning("precis|exact|sharp|accurat|boundar|contour", low_ratio=1.6),
    Meaning("clutter|background|isolated|speck|artefact|artifact", threshold=1.2, min_size=3.0),
)


def controls_of(text: str) -> Controls:
    """Read the numbers that a prompt sets.

    Args:
        text: any text; words count once however often they occur, and case does not matter.
    """
    fired = [
        meaning
        for meaning in LEXICON
        if re.search(rf"\b(?:{meaning.words})", text, flags=re.IGNORECASE)
    ]
    threshold, low_ratio, denoise, min_size = (
        BASE.threshold,
        BASE.low_ratio,
        BASE.denoise,
        BASE.min_size,
    )
    for meaning in fired:
        threshold *= meaning.threshold
        low_ratio *= meaning.low_ratio
        denoise += meaning.denoise
        min_size *= meaning.min_size
    return Controls(_scales(fired), threshold, min(low_ratio, 1.0), denoise, min_size)


def _scales(fired: Sequence[Meaning]) -> tuple[float, ...]:
    """Scales of the widths spoken of; thin and wide together are all."""
    widths = {meaning.widths for meaning in fired} - {""}
    if len(widths) > 1:
        # "All thin vessels" speaks of thin ones: `all` only counts where nothing narrower is said.
        widths -= {"all"}
    return SCALES[widths.pop()] if len(widths) == 1 else SCALES["all" if widths else ""]


def check_prompts(prompts: Sequence[str], expected: int | None = None) -> tuple[str, ...]:
    """Return the prompts as a tuple once they can be actions.

    Args:
        prompts: texts, in the order of the actions.
        expected: number of actions of a stored policy that is to choose among them.

    Raises:
        ValueError: fewer than two, an empty or repeated one, or not as many as `expected`.
    """
    listed = tuple(prompts)
    if len(listed) < 2:
        raise ValueError(f"prompts={list(listed)!r}: expected at least two to choose from")
    if any(not prompt.strip() for prompt in listed):
        raise ValueError(
            f"prompts: number {[bool(p.strip()) for p in listed].index(False)} is empty"
        )
    repeated = sorted({prompt for prompt in listed if listed.count(prompt) > 1})
    if repeated:
        raise ValueError(f"prompts: {repeated!r} occur more than once; each action needs its own")
    if expected is not None and len(listed) != expected:
        raise ValueError(
            f"prompts: {len(listed)} given, the policy chooses among {expected}; use the list it "
            "was trained with or train it anew"
        )
    return listed
