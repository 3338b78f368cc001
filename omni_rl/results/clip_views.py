"""Held-out records as shown in a report: frames, question, completions, right answer."""

from __future__ import annotations

import base64
import io
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from PIL import Image

from omni_rl.config import MediaConfig
from omni_rl.data.media import load_clip
from omni_rl.data.record import Record
from omni_rl.rewards.answers import INSTRUCTION, judged_text, truth_of

log = logging.getLogger(__name__)

SHOWN = 6  # records in a report
FRAMES = MediaConfig(fps=8.0, max_frames=4, max_pixels=112 * 112)


@dataclass(frozen=True)
class Told:
    """The completion of one policy for a clip.

    Attributes:
        when: before or after.
        text: the completion.
        context: its description.
        answer: its answer; `no answer` without one.
        verdict: right, wrong, or the share of the score.
        people_focus: in [0, 1], as text.
    """

    when: str
    text: str
    context: str
    answer: str
    verdict: str
    people_focus: str


@dataclass(frozen=True)
class ClipView:
    """One held-out record in a report.

    Attributes:
        source: of the record.
        question: of the record.
        options: `A. text` each.
        answer: the right one.
        facts: what is true of a generated clip, as text; empty for real data.
        strip_HWC: uint8, a few frames side by side; None if no frame can be read.
        told: before, then after.
    """

    source: str
    question: str
    options: tuple[str, ...]
    answer: str
    facts: str
    strip_HWC: np.ndarray | None
    told: tuple[Told, ...]


def clip_views(
    records: Sequence[Record], before: pd.DataFrame, after: pd.DataFrame, count: int = SHOWN
) -> list[ClipView]:
    """Choose held-out records at even distances, independently of their results.

    Args:
        records: of one seed; instructions are left out.
        before: their table of the start model.
        after: their table of the trained policy.
        count: number of records, shared evenly among the sources.
    """
    asked = [record for record in records if record.problem_type != INSTRUCTION]
    sources = list(dict.fromkeys(record.source for record in asked))
    views = []
    for source in sources:
        of_source = [record for record in asked if record.source == source]
        wanted = min(len(of_source), max(1, count // len(sources)))
        for index in np.linspace(0, len(of_source), wanted, endpoint=False).astype(int):
            record = of_source[index]
            told = tuple(
                _told(when, table.loc[table["id"] == record.id].iloc[0])
                for when, table in (("before", before), ("after", after))
            )
            views.append(
                ClipView(
                    source=source,
                    question=record.problem,
                    options=record.options,
                    answer=truth_of(record) or ", ".join(record.labels),
                    facts=", ".join(f"{name} {value}" for name, value in record.facts.items()),
                    strip_HWC=frame_strip(record),
                    told=told,
                )
            )
    return views


def frame_strip(record: Record) -> np.ndarray | None:
    """Put frames of a record's first clip side by side; None if they cannot be read."""
    if not record.videos:
        return None
    try:
        frames = load_clip(record.videos[0], FRAMES).frames_THWC
    except (FileNotFoundError, ValueError) as error:
        log.warning("the report shows no frames of record %r: %s", record.id, error)
        return None
    height = frames.shape[1]
    gap = np.full((height, 4, 3), 255, np.uint8)
    parts = [part for frame in frames for part in (frame, gap)]
    return np.concatenate(parts[:-1], axis=1)


def _told(when: str, row: pd.Series) -> Told:
    score = float(row["accuracy"])
    verdict = {1.0: "right", 0.0: "wrong"}.get(score, f"{score:.2f} right")
    people = float(row["people_focus"])
    return Told(
        when=when,
        text=str(row["text"]),
        context=judged_text(str(row["text"])),
        answer=str(row["answer"]) if isinstance(row["answer"], str) else "no answer",
        verdict="not judged" if math.isnan(score) else verdict,
        people_focus="not judged" if math.isnan(people) else f"{people:.2f}",
    )


def one_a_source(clips: Sequence[ClipView], most: int = 3) -> list[ClipView]:
    """Return the first clip with frames of each source."""
    shown = [clip for clip in clips if clip.strip_HWC is not None]
    return list({clip.source: clip for clip in reversed(shown)}.values())[::-1][:most]


def jpeg_uri(strip_HWC: np.ndarray | None) -> str:
    """Encode frames as a data URI that an `<img>` shows; empty without frames."""
    if strip_HWC is None:
        return ""
    stream = io.BytesIO()
    Image.fromarray(strip_HWC).save(stream, format="JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
