"""The comparison at its smallest, as a user would type it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from sa2va_rl.results.table import METHODS
from tests.end_to_end.running import metrics, run

SMALL = (
    *("+exp=sa2va_compare", "trainer=smoke", "logger=none", "data_mix.side=96"),
    *("reward_net.side=48", "reward_net.width=8", "compare.sizes=[4]", "compare.pulls=40"),
    *("compare.shown=2", "compare.postprocess.recipes=4"),
    *("compare.finetune.start_steps=3", "compare.finetune.steps=2"),
    *("compare.finetune.look_every=1", "compare.finetune.width=4"),
)


@pytest.fixture(scope="module")
def compared(output: Path) -> Path:
    return run(*SMALL, output=output)


def test_metrics_hold_what_the_run_promises(compared: Path) -> None:
    found = metrics(compared)
    for method in METHODS:
        assert {f"dice/{method}", f"gap_closed/{method}", f"recall/{method}"} <= found.keys()
        assert method == "fixed" or f"diff/{method}_vs_fixed_low" in found
    assert "reward_net/within_image_spearman" in found
    # 8 + 6 + 6 + 4 pictures under 11 prompts, once each; and the maps of post-processing, which no
    # cache holds: 8 training pictures and 6 + 4 held-out ones.
    assert found["segmenter_calls"] == 24 * 11 + (8 + 10)
    assert found["segmenter_calls_train"] == 8 * 11
    for prefix in ("shifted/", "size4/", "size4/shifted/", "seed1/"):
        assert f"{prefix}gap_closed/ppo_tuned" in found


def test_every_picture_of_every_method_is_kept(compared: Path) -> None:
    rows = pd.read_parquet(compared / "samples.parquet")
    main = rows[rows["size"] == 8]
    assert set(main["method"]) == set(METHODS)
    assert (main.groupby(["method", "set"]).size().unstack() == [4, 6]).all().all()
    small = rows[rows["size"] == 4]
    choices = {"fixed", "oracle", "rerank", "linucb", "ppo_seed", "ppo_tuned", "grpo"}
    assert choices <= set(small["method"])
    others = ("threshold", "postprocess", "small", "finetune")  # experiments 2 and 3b
    assert not [name for name in set(small["method"]) if name.startswith(others)]


def test_people_get_a_page_and_a_sheet(compared: Path) -> None:
    page = (compared / "report.html").read_text()
    assert "8 training pictures, test pictures" in page and "PPO, tuned" in page
    text = (compared / "report.txt").read_text()
    assert "share of the gap closed, by seed" in text
    for name in ("report.png", "sheet.png"):
        assert (compared / name).read_bytes()[:4] == b"\x89PNG"


def test_a_second_run_takes_what_was_done(compared: Path, output: Path) -> None:
    again = run(*SMALL, output=output)
    log = (again / "train.log").read_text()
    assert ": into" not in log and log.count("done before") >= 2 * (1 + 3 + 1) + 2
    assert metrics(again)["dice/ppo_tuned"] == metrics(compared)["dice/ppo_tuned"]
