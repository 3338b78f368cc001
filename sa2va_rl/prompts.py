"""Eleven prompts, and a lexicon by which a prompt steers the segmenter without a language model.

The published run's prompt list is not public.  This list is our own and covers the same topics:
plain wording, small branches, low contrast, bifurcations, boundaries, the complete tree.

`controls_of` reads any text, not only these eleven.  Each line of the lexicon changes a few numbers
when one of its words occurs; a text without such words gets the base setting.  The lexicon knows no
grammar ("no noise" acts like "noise"): it replaces language understanding and does not claim it.
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
    """Settings of the vesselness segmenter under a prompt; lengths are for a picture of 160 px.

    Attributes:
        scales: half widths of the vessels to detect, in pixels, ascending.
        threshold: high threshold of the hysteresis, a robust z-score.
        low_ratio: low threshold as a share of `threshold`, in (0, 1].
        denoise: standard deviation of the smoothing beforehand, in pixels; 0 = none.
        min_size: smallest connected component that is kept, in pixels.
    """

    scales: tuple[float, ...]
    threshold: float
    low_ratio: float
    denoise: float
    min_size: float


@dataclass(frozen=True)
class Meaning:
    """Effect of one line of the lexicon when one of its words occurs.

    Attributes:
        words: regular expression of word beginnings.
        widths: vessels that are named: `thin`, `wide`, `all`, or empty for none.
        threshold: factor on `Controls.threshold`.
        low_ratio: factor on `Controls.low_ratio`.
        denoise: added to `Controls.denoise`, in pixels.
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
    """Return the settings that a prompt asks for.

    Args:
        text: any text; a repeated word counts once, and case does not matter.
    """
    found = [line for line in LEXICON if re.search(rf"\b(?:{line.words})", text, re.IGNORECASE)]
    threshold, low_ratio = BASE.threshold, BASE.low_ratio
    denoise, min_size = BASE.denoise, BASE.min_size
    for line in found:
        threshold *= line.threshold
        low_ratio *= line.low_ratio
        denoise += line.denoise
        min_size *= line.min_size
    return Controls(_scales(found), threshold, min(low_ratio, 1.0), denoise, min_size)


def _scales(found: Sequence[Meaning]) -> tuple[float, ...]:
    """Return the scales of the named widths; thin and wide together are all."""
    widths = {line.widths for line in found} - {""}
    if len(widths) > 1:
        # "All thin vessels" names the thin ones: `all` counts only where it stands alone.
        widths -= {"all"}
    return SCALES[widths.pop()] if len(widths) == 1 else SCALES["all" if widths else ""]


def check_prompts(prompts: Sequence[str], expected: int | None = None) -> tuple[str, ...]:
    """Check that prompts can be actions, and return them as a tuple.

    Args:
        prompts: texts, in the order of the actions.
        expected: number of actions of a stored policy that chooses among them.

    Raises:
        ValueError: fewer than two, an empty or repeated one, or not as many as `expected`.
    """
    listed = tuple(prompts)
    if len(listed) < 2:
        raise ValueError(f"prompts={list(listed)!r}: expected at least two to choose from")
    empty = [place for place, prompt in enumerate(listed) if not prompt.strip()]
    if empty:
        raise ValueError(f"prompts: number {empty[0]} is empty")
    repeated = sorted({prompt for prompt in listed if listed.count(prompt) > 1})
    if repeated:
        raise ValueError(f"prompts: {repeated!r} occur more than once; each action needs its own")
    if expected is not None and len(listed) != expected:
        raise ValueError(
            f"prompts: {len(listed)} given, the policy chooses among {expected}; use the list it "
            "was trained with or train a new policy"
        )
    return listed
