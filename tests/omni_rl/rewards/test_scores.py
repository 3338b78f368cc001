"""Scores of completions, one row for each, and baselines, against hand-computed numbers."""

from __future__ import annotations

import pytest

from omni_rl.data.record import Record
from omni_rl.results.metrics import summarise
from omni_rl.rewards.judge import Judge
from omni_rl.rewards.scores import majority_texts, score_records
from tests.omni_rl.judge_server import reply, serving
from tests.omni_rl.scored import RECORDS, TEXTS, record, table, told


def test_the_table_has_a_row_an_item() -> None:
    rows = table().set_index("id")
    assert rows["accuracy"].tolist() == pytest.approx([1, 0, 2 / 3, 1, 0.6, 0, 1, 0])
    assert rows["statements"].tolist() == [3, 2, 0, 1, 0, 0, 0, 0]
    assert rows["true_statements"].tolist() == [3, 0, 0, 1, 0, 0, 0, 0]
    assert rows.loc["g1", ["stated_count", "true_count"]].tolist() == [1, 0]
    assert rows["format"].tolist()[:6] == [1, 1, 1, 1, 1, 0]
    assert rows["format"].isna().tolist()[6:] == [True, True]
    assert rows.loc["s1", "people_focus"] == pytest.approx(25 / (25 + 4.7**2))  # 5 points
    assert rows["answer"].isna().tolist() == [False] * 5 + [True, False, False]


def test_majority_answers_look_at_the_wording_then_ever_wider() -> None:
    def asked(name: str, problem: str, answer: str, source: str = "social_iq") -> Record:
        return record(name, source, "multiple choice", answer, problem=problem)

    known = [asked("1", "who", "A"), asked("2", "who", "A"), asked("3", "why", "B")]
    known += [asked("4", "how", "A")]
    known += [record(f"n{index}", "video_r1", "numerical", "7") for index in range(5)]
    new = [asked("5", "why", "C"), asked("6", "when", "C"), asked("7", "who", "C", "qa")]
    new += [record("8", "qa", "numerical", "3"), record("9", "qa", "free-form", "so it is")]
    said = [text.removeprefix("<answer>")[0] for text in majority_texts(known, new)]
    assert said == ["B", "A", "A", "7", "7"]  # of the wording, source, type, type, and of all


def test_a_judge_adds_its_people_score_and_reads_free_form_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    items = [*RECORDS[:1], record("f1", "emer", "free-form", "he greets"), RECORDS[-1]]
    texts = [TEXTS[0], told("a man waves", "a greeting"), "done"]
    with serving(lambda attempt, prompt: (200, reply("Score: 4"))) as server:
        rows = score_records(items, texts, judge=Judge("m", url=server.url))
    metrics = summarise(rows)
    assert metrics["people_focus_judge"] == pytest.approx(0.4)
    assert metrics["accuracy/problem_type/free-form"] == pytest.approx(0.8)
    assert metrics["accuracy/problem_type/multiple choice"] == 1.0
