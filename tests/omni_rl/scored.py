"""Scored records whose figures can be counted by hand."""

from __future__ import annotations

import pandas as pd

from omni_rl.data.record import Record
from omni_rl.rewards.scores import score_records

SOCIAL = {"colour": "red", "voice": "calm", "gesture": "waves"}
GENERAL = {"colour": "blue", "voice": "angry", "count": "3"}


def record(
    name: str,
    source: str,
    problem_type: str,
    answer: str,
    facts: dict[str, str] | None = None,
    category: str = "",
    problem: str = "?",
) -> Record:
    return Record(
        id=name,
        source=source,
        problem=problem,
        problem_type=problem_type,
        options=("A. x", "B. y", "C. z"),
        answer=answer,
        solution="",
        data_type="video",
        videos=(),
        images=(),
        audios=(),
        category=category,
        facts=facts or {},
        origin=f"test:{name}",
    )


RECORDS = [
    record("s1", "social_iq", "multiple choice", "A", SOCIAL, "Why"),
    record("s2", "social_iq", "multiple choice", "B", SOCIAL, "Who/Which"),
    record("e1", "emer", "emer_ov_mc", "A,B", None, "Emotion"),
    record("g1", "video_r1", "numerical", "3", GENERAL),
    record("g2", "video_r1", "regression", "10", None),
    record("d1", "intentbench", "judge", "Yes", None, "Deception"),
    record("i1", "instruction", "instruction", "ready"),
    record("i2", "instruction", "instruction", "done"),
]


def told(context: str, answer: str) -> str:
    return f"<context>{context}</context><think>t</think><answer>{answer}</answer>"


TEXTS = [
    told("a person in red waves, the voice sounds calm, two people talk", "A"),  # 3 of 3 true
    told("a person in blue bows, the light is soft", "A"),  # 0 of 2 true
    told("x", "A"),  # F1 2/3
    told("a man in blue counts 2 balls", "3"),  # about people 1 of 1; the count is wrong
    told("x", "8"),  # mean relative accuracy .6
    "yes, of course",  # no answer: wrong, whatever the items around it said
    "ready",
    "well, done",
]


def table(seed: int = 0, texts: list[str] | None = None) -> pd.DataFrame:
    return score_records(RECORDS, texts or TEXTS, seed=seed)
