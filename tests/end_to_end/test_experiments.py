"""Every experiment at its smallest, as a user would type it: real processes, real files."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.end_to_end.running import metrics, run, typed
from tests.omni_rl.sizes import SMALL_MODEL

SMALL = ("data_mix.size=24", "model.warm.gate_clips=12", "logger=csv")


@pytest.fixture(scope="module")
def trained(output: Path) -> Path:
    """The main job, two steps from the untrained thinker (a gate needs more clips than these)."""
    return typed(
        "+exp=stage4_people_focus",
        "trainer=smoke",
        "model.warm_start=none",
        "trainer.controls=[shuffled_rewards]",
        "debug=true",
        *SMALL,
        output=output,
    )


def test_the_main_job_leaves_what_the_run_contract_promises(trained: Path) -> None:
    names = ("config.yaml", "run.json", "train.log", "report.txt", "report.html", "samples.log")
    assert [name for name in names if not (trained / name).is_file()] == []
    found = metrics(trained)
    for side in ("before", "after"):
        for name in ("people_focus", "format", "accuracy"):
            assert f"{side}/{name}" in found
    assert {"diff/accuracy", "diff/accuracy_low", "diff/accuracy_high"} <= found.keys()
    assert {"shuffled_rewards/accuracy", "after_vs_shuffled_rewards/accuracy_low"} <= found.keys()
    assert found["seconds"] > 0 and 0 < found["peak_rss_gib"] < 6


def test_every_candidate_is_kept_with_its_rewards(trained: Path) -> None:
    samples = pd.read_parquet(trained / "samples.parquet")
    assert len(samples) == 2 * 6 * 8  # steps, questions, candidates
    assert {"prompt", "text", "reward/people_focus", "reward/total"} <= set(samples.columns)


def test_a_checkpoint_opens_with_the_library_it_came_from(trained: Path) -> None:
    from transformers import Qwen2_5OmniThinkerForConditionalGeneration as Thinker

    for name in ("final", "best"):
        model = Thinker.from_pretrained(trained / "checkpoints" / name)
        assert sum(p.numel() for p in model.parameters()) > 1_000_000


def test_a_run_goes_on_from_where_it_was(trained: Path, output: Path) -> None:
    folder = run(
        "+exp=stage4_people_focus",
        "trainer=smoke",
        "model.warm_start=none",
        "trainer.max_steps=3",
        f"trainer.resume={trained}",
        *SMALL,
        output=output,
    )
    steps = pd.read_parquet(folder / "samples.parquet")["step"].unique().tolist()
    assert sorted(steps) == [1, 2, 3]  # those of the run that it goes on from come along


def test_a_checkpoint_is_scored_against_its_start(trained: Path, output: Path) -> None:
    folder = run(
        "+exp=omni_eval",
        "trainer=smoke",
        "model.warm_start=none",
        f"checkpoint={trained}/checkpoints/final",
        *SMALL,
        output=output,
    )
    assert {"before/accuracy", "after/accuracy", "diff/accuracy"} <= metrics(folder).keys()


def test_a_question_about_a_clip_of_ones_own_is_answered(trained: Path, output: Path) -> None:
    clip = next((output / "cache" / "scenes").rglob("*.mp4"))
    folder = run(
        "+exp=omni_demo", f"video={clip}", "question=What does the person do?", output=output
    )
    assert (folder / "answer.txt").read_text().startswith("<context>")


def test_the_warm_start_is_made_by_one_command(output: Path) -> None:
    folder = run(
        "+exp=omni_sft",
        "trainer=smoke",
        "model.warm.clips=30",
        "model.warm.perception_steps=2",
        "model.warm.habit_steps=1",
        *SMALL,
        *SMALL_MODEL,
        output=output,
    )
    assert (folder / "checkpoints" / "final" / "model.safetensors").is_file()
    assert "perceived/colour" in metrics(folder)


def test_seeds_and_controls_run_side_by_side(output: Path) -> None:
    folder = run(
        "+exp=stage4_people_focus",
        "trainer=smoke",
        "model.warm_start=none",
        "trainer.seeds=[0,1]",
        "trainer.controls=[blank_media]",
        "trainer.workers=2",
        *SMALL,
        *SMALL_MODEL,
        output=output,
    )
    found = metrics(folder)
    assert {"blank_media/accuracy", "after_vs_blank_media/accuracy_low"} <= found.keys()
    assert (folder / "seed1" / "checkpoints" / "final").is_dir()


def test_a_start_that_cannot_see_is_refused(trained: Path, output: Path) -> None:
    """The gate: a run from an untrained thinker is stopped before it spends anything."""
    run(
        "+exp=stage4_people_focus",
        "trainer=smoke",
        "model.warm_start=train",
        "model.warm.clips=30",
        "model.warm.perception_steps=1",
        "model.warm.habit_steps=1",
        *SMALL,
        *SMALL_MODEL,
        output=output,
        code=1,
    )
    assert "warm start too weak" in (output / "latest" / "train.log").read_text()
