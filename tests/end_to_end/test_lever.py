"""Lever's experiments at their smallest, on a tiny generated world, as a user would type them."""

from __future__ import annotations

from pathlib import Path

import pytest

from lever.data.vqa_files import read_results
from tests.end_to_end import running
from tests.end_to_end.running import metrics
from tests.lever.worlds import SMALL, SMALL_WORLD

TINY = (
    "trainer=smoke",
    "logger=none",
    *SMALL_WORLD,
    "model.features.dims=6",
    "model.features.directions=4",
    "model.features.epochs=1",
    "model.batch_size=4",
)


def run(*overrides: str, output: Path, code: int = 0) -> Path:
    return running.run(*overrides, *TINY, output=output, code=code)


@pytest.fixture(scope="module")
def supervised(output: Path) -> Path:
    return running.typed("+exp=lever_sft", *TINY, output=output)


def test_supervision_leaves_a_selector(supervised: Path) -> None:
    assert (supervised / "checkpoints" / "final" / "policy.safetensors").is_file()
    assert {"before/accuracy", "after/accuracy", "answerer_calls"} <= metrics(supervised).keys()


def test_rce_and_grpo_go_on_from_it(supervised: Path, output: Path) -> None:
    start = f"learn.checkpoint={supervised}/checkpoints/final"
    folder = run("+exp=lever_rce_grpo", start, "learn.max_samples=5", output=output)
    assert metrics(folder)["queries"] == 5
    again = run("+exp=lever_rce_grpo", start, "curriculum=lever_grpo", output=output)
    assert (again / "checkpoints" / "best").is_dir()


def test_a_dry_run_scores_nothing_and_leaves_no_checkpoint(output: Path) -> None:
    folder = run("+exp=lever_rce_grpo", "learn.dry_run=true", output=output)
    assert "after/accuracy" not in metrics(folder)
    assert not list(folder.rglob("*.safetensors")) and not list(folder.rglob("*.ckpt"))


def test_a_checkpoint_chooses_and_is_scored(supervised: Path, output: Path) -> None:
    folder = run(
        "+exp=lever_eval", f"choose.checkpoint={supervised}/checkpoints/final", output=output
    )
    found = metrics(folder)
    assert {f"selector/{shots}/overall" for shots in (1, 2, 3, 4)} <= found.keys()
    assert found["selector/2/latency_ms"] > 0
    results = folder / "results_2shots.json"
    assert len(read_results(results)) == SMALL.test
    scored = run("+exp=lever_eval", f"choose.results={results}", output=output)
    assert metrics(scored)["file/overall"] == found["selector/2/overall"]


def test_one_question_is_shown_with_its_demonstrations(supervised: Path, output: Path) -> None:
    folder = run(
        "+exp=lever_pick", f"choose.checkpoint={supervised}/checkpoints/final", output=output
    )
    text = (folder / "prompt.txt").read_text()
    assert text.count("demonstration ") == 2 and "answer: " in text


def test_the_whole_pipeline_ends_in_the_table_and_is_not_done_twice(output: Path) -> None:
    folder = run("+exp=lever", output=output)
    found = metrics(folder)
    rows = {"zero_shot", "random", "text_sim", "image_sim", "mix", "img1_txt1", "constant"}
    rows |= {"greedy_infoscore", "oracle", "sft", "rce", "offline", "grpo", "offline_equal"}
    assert {f"score/{row}" for row in rows | {"shuffled", "untrained"}} <= found.keys()
    assert {"gap_closed/grpo", "diff/grpo_vs_sft_low", "diff/grpo_vs_rce_low"} <= found.keys()
    assert found["answerer_calls"] > 0
    assert "greedy_infoscore" in (folder / "report.txt").read_text()
    again = metrics(run("+exp=lever", output=output))
    assert again["answerer_calls"] == 0
    assert {key: again[key] for key in again if key.startswith("score/")} == {
        key: found[key] for key in found if key.startswith("score/")
    }


def test_a_checkpoint_of_another_selector_is_refused(supervised: Path, output: Path) -> None:
    run(
        "+exp=lever_eval",
        "model.shots=1",
        f"choose.checkpoint={supervised}/checkpoints/final",
        output=output,
        code=1,
    )
