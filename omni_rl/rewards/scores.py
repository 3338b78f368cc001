"""Scores of completions on held-out records, one row for each.

Accuracy is counted as IntentBench counts it: exact match for multiple choice, set F1 for emotion
labels, yes or no, mean relative accuracy for regressions, and one (micro) average over all
questions.  A completion without an answer is wrong.  Instructions are not questions and have a
metric of their own.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence

import pandas as pd
import torch

from core_rl.types import Actions
from omni_rl.data.record import Record
from omni_rl.rewards.answers import (
    BENCHMARK_SCORERS,
    given_answer,
    score_answer,
    truth_of,
)
from omni_rl.rewards.grounding import Grounder, Statement
from omni_rl.rewards.judge import Judge
from omni_rl.rewards.judged import JudgedAccuracy, PeopleFocusJudge
from omni_rl.rewards.people import HALF
from omni_rl.rewards.rules import Format, PeopleFocus

_JUDGE_BATCH = 64


def score_records(
    records: Sequence[Record],
    texts: Sequence[str],
    seed: int = 0,
    judge: Judge | None = None,
    half: float = HALF,
) -> pd.DataFrame:
    """Score one completion of each record.

    Args:
        records: N held-out records.
        texts: their N completions, in order.
        seed: of the run; tables of several runs may be joined by `pd.concat`.
        judge: of free-form answers and people focus; None: free-form by token F1.
        half: points for a people_focus of .5.

    Returns:
        N rows: `seed id clip source category problem_type text answer`; `accuracy format
        people_focus` and, with a judge, `people_focus_judge`, in [0, 1] and NaN where they cannot
        be judged; `statements true_statements` about people, and `stated_<slot> true_<slot>`.

    Raises:
        ValueError: not one text a record, or a problem type without a score.
    """
    if len(records) != len(texts):
        raise ValueError(f"{len(texts)} completions for {len(records)} records: expected one each")
    form, people, grounder = Format(), PeopleFocus(half), Grounder()
    rows = []
    for record, text in zip(records, texts, strict=True):
        rows.append(
            {
                "seed": seed,
                "id": record.id,
                "clip": _clip_of(record),
                "source": record.source,
                "category": record.category,
                "problem_type": record.problem_type,
                "text": text,
                "answer": given_answer(record, text),
                "accuracy": score_answer(record, text, BENCHMARK_SCORERS),
                "format": form.score(record, text),
                "people_focus": people.score(record, text),
                **_statement_counts(grounder(text, record.facts), grounder.names),
            }
        )
    table = pd.DataFrame(rows)
    if judge is not None and rows:
        table["people_focus_judge"] = _ask(PeopleFocusJudge(judge), records, texts)
        free = table["problem_type"] == "free-form"
        if free.any():
            judged = pd.Series(_ask(JudgedAccuracy(judge), records, texts), dtype=float)
            table["accuracy"] = table["accuracy"].where(~free, judged)
    scores = [name for name in ("accuracy", "format", "people_focus") if name in table]
    return table.astype(dict.fromkeys(scores, float))


def majority_texts(known: Sequence[Record], asked: Sequence[Record]) -> list[str]:
    """Answer each question by the most frequent right answer of known records like it.

    These have the same wording and source, else the same source, else the same problem type, else
    any: held-out records of real data come from another source than those of training.

    Args:
        known: records whose answers may be used (training data), at least one.
        asked: records to answer.

    Returns:
        One completion a record, an `<answer>` alone.
    """
    counts: dict[tuple[str, ...], Counter[str]] = {}
    for record in known:
        for key in _ever_wider(record):
            counts.setdefault(key, Counter())[truth_of(record)] += 1
    found = (next(counts[key] for key in _ever_wider(one) if key in counts) for one in asked)
    return [f"<answer>{answers.most_common(1)[0][0]}</answer>" for answers in found]


def _ever_wider(record: Record) -> list[tuple[str, ...]]:
    """Grouping keys, from exact wording to "any", for the most frequent answer."""
    return [
        ("wording", record.source, record.problem),
        ("source", record.source),
        ("type", record.problem_type),
        ("any",),
    ]


def _statement_counts(statements: list[Statement], slots: Iterable[str]) -> dict[str, int]:
    people = [statement for statement in statements if statement.about_people]
    counts = {
        "statements": len(people),
        "true_statements": sum(statement.true for statement in people),
    }
    for slot in slots:
        verdicts = [statement.true for statement in statements if statement.slot == slot]
        counts |= {f"stated_{slot}": len(verdicts), f"true_{slot}": sum(verdicts)}
    return counts


def _ask(
    reward: PeopleFocusJudge | JudgedAccuracy, records: Sequence[Record], texts: Sequence[str]
) -> list[float | None]:
    values: list[float | None] = []
    # In batches, because the judge's deadline is for one batch.
    for start in range(0, len(records), _JUDGE_BATCH):
        piece = slice(start, start + _JUDGE_BATCH)
        ids_BGT = torch.zeros(len(records[piece]), 1, 1, dtype=torch.long)
        actions = Actions(ids_BGT, ids_BGT == 0, texts=tuple((text,) for text in texts[piece]))
        values += [row[0] for row in asyncio.run(reward(records[piece], actions))]
    return values


def _clip_of(record: Record) -> str:
    """Return the media of a record as one name: questions about them are not independent."""
    media = [*record.videos, *record.images, *record.audios]
    return " ".join(map(str, media)) or record.id
