from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from lever.data.datasets import LeverData, load_data
from lever.generation_config import BeamsFrom, Matching
from lever.learning import stages as steps
from lever.settings import Settings
from lever.tasks.run import run
from lever.tasks.train import rce_grpo
from tests.lever.workshop import OFFLINE, REFRESH, small_settings


def groups(settings: Settings) -> dict[str, Any]:
    return {one.name: getattr(settings, one.name) for one in fields(settings)}


def test_the_pipeline_refuses_to_resume_and_says_what_finds_its_stages(tmp_path: Path) -> None:
    small = small_settings(tmp_path)
    settings = replace(small, trainer=replace(small.trainer, resume="nowhere"))
    with pytest.raises(ValueError, match=r"trainer\.resume=nowhere: \+exp=lever .*lever_rce_grpo"):
        run(tmp_path / "run", 0, **groups(settings))


def test_learning_from_fresh_slates_makes_no_beams(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("beams were made")

    monkeypatch.setattr(steps, "generate_beams", refuse)
    small = small_settings(tmp_path)
    settings = replace(small, curriculum=REFRESH, learn=replace(small.learn, dry_run=True))
    metrics = rce_grpo(tmp_path / "run", 0, **groups(settings))
    assert metrics["queries"] == 6


def one_annotator(*args: Any) -> LeverData:
    data = load_data(*args)
    items = [
        replace(one, question=replace(one.question, answers=one.question.answers[:1]))
        for one in data.items
    ]
    return replace(data, items=tuple(items))


@pytest.mark.parametrize("plan", [OFFLINE, REFRESH], ids=["stored", "fresh"])
def test_one_rule_judges_stored_fresh_and_held_out_slates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plan: Any
) -> None:
    """Of a single annotator, to whom the official rule gives no meaning."""
    monkeypatch.setattr(steps, "load_data", one_annotator)
    small = small_settings(tmp_path)
    rl_data = replace(small.rl_data, matching=Matching.simple, beams_from=BeamsFrom.selector)
    settings = replace(small, curriculum=plan, rl_data=rl_data)
    metrics = rce_grpo(tmp_path / "run", 0, **groups(settings))
    assert 0 <= metrics["after/accuracy"] <= 1
    official = replace(settings, rl_data=replace(rl_data, matching=Matching.official))
    with pytest.raises(ValueError, match=r"annotators or more.*rl_data\.matching=simple"):
        rce_grpo(tmp_path / "other", 0, **groups(official))
