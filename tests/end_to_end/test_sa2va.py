"""Every experiment of the prompt choice at its smallest, as a user would type it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from stable_baselines3 import PPO

from sa2va_rl.data.angiograms import DEFAULT, draw_samples
from sa2va_rl.policy.saved import load_policy
from sa2va_rl.prompts import PROMPTS
from tests.end_to_end.running import metrics, run, start, typed

SMALL = (
    "trainer=smoke",
    "data_mix.side=96",
    "reward_net.side=48",
    "reward_net.width=8",
    "ppo.n_steps=32",
    "ppo.batch_size=32",
    "ppo.checkpoint_every=64",
)

SMALL_COMPARISON = (
    *("compare.sizes=[]", "compare.pulls=40", "compare.shown=2"),
    *("compare.postprocess.recipes=4", "compare.finetune.start_steps=3"),
    *("compare.finetune.steps=2", "compare.finetune.look_every=1", "compare.finetune.width=4"),
)


@pytest.fixture(scope="module")
def judge(output: Path) -> Path:
    return typed("+exp=sa2va_reward_net", *SMALL, output=output)


@pytest.fixture(scope="module")
def trained(judge: Path, output: Path) -> Path:
    return run("+exp=sa2va_ppo", *SMALL, output=output)


def test_the_reward_network_is_measured_on_held_out_pictures(judge: Path) -> None:
    found = metrics(judge)
    for name in ("mae", "r2", "pearson", "spearman", "within_image_spearman", "argmax_regret"):
        assert {f"val/{name}", f"test/{name}"} <= found.keys()
    assert found["test/probe_label/truth"] == 1
    assert found["segmenter_calls"] == (8 + 6 + 6) * 11
    assert (judge / "checkpoints" / "final" / "reward_net.safetensors").is_file()
    assert list((judge / "tensorboard").glob("events.*"))
    assert "shifted" in (judge / "report.txt").read_text()


def test_ppo_takes_the_network_that_is_there(trained: Path) -> None:
    log = (trained / "train.log").read_text()
    assert "stage reward_net: done before" in log
    found = metrics(trained)
    assert 0 < found["segmenter_calls"] <= 8 * 11
    assert {"dice", "recall", "fixed/dice", "oracle/dice", "gap_closed", "regret"} <= found.keys()
    results = json.loads((trained / "evaluation_results.json").read_text())
    assert results.keys() == {"average_metrics", "action_distribution", "per_sample_results"}
    rows = pd.DataFrame(results["per_sample_results"])
    assert len(rows) == 6
    assert rows["dice"].mean() == pytest.approx(found["dice"], abs=1e-6)


def test_ppo_leaves_an_archive_and_a_policy_that_agree(trained: Path) -> None:
    policy = load_policy(trained / "final_model", PROMPTS)
    archive = PPO.load(trained / "final_model" / "ppo.zip")  # made by this test
    weights = archive.policy.state_dict()["action_net.weight"]
    assert policy.selector.layers[-1].weight.tolist() == weights.tolist()
    assert list((trained / "tensorboard").glob("events.*"))


def test_ppo_goes_on_from_its_checkpoint(trained: Path, output: Path) -> None:
    assert (trained / "checkpoints" / "step-00000064" / "state.json").is_file()
    longer = run(
        "+exp=sa2va_ppo", *SMALL, "ppo.total_steps=192", f"trainer.resume={trained}", output=output
    )
    assert "continuing after 64 of 192 steps" in (longer / "train.log").read_text()


def test_the_shared_loop_trains_the_same_choice(judge: Path, output: Path) -> None:
    folder = run("+exp=sa2va_grpo", *SMALL, output=output)
    assert {"dice", "gap_closed", "reward_net/within_image_spearman"} <= metrics(folder).keys()
    samples = pd.read_parquet(folder / "samples.parquet")
    assert {"picture", "reward/reward_net", "reward/gt_dice"} <= set(samples.columns)
    load_policy(folder / "final_model", PROMPTS)


def test_one_picture_is_segmented(trained: Path, output: Path, tmp_path: Path) -> None:
    sample = draw_samples(DEFAULT, range(1))[0]
    Image.fromarray(sample.image_HWC).save(tmp_path / "one.png")
    folder = run(
        "+exp=sa2va_segment", f"image={tmp_path}/one.png", f"policy={trained}/final_model",
        output=output,
    )  # fmt: skip
    mask_HW = np.asarray(Image.open(folder / "mask.png"))
    assert mask_HW.shape == (160, 160)
    assert set(np.unique(mask_HW)) <= {0, 255}
    choice = json.loads((folder / "choice.json").read_text())
    assert choice["prompt"] in PROMPTS
    overlay_HWC = np.asarray(Image.open(folder / "overlay.png"))
    changed_HW = (overlay_HWC != sample.image_HWC).any(axis=2)
    assert not changed_HW[mask_HW == 0].any()
    assert changed_HW[mask_HW > 0].all()


def test_the_pipeline_runs_in_order_and_does_nothing_twice(trained: Path, output: Path) -> None:
    first = run("+exp=sa2va", *SMALL, *SMALL_COMPARISON, output=output)
    found = metrics(first)
    assert {
        "steps/ppo_tuned/dice", "steps/grpo/dice", "steps/reward_net/within_image_spearman",
        "dice/fixed", "gap_closed/ppo_tuned", "diff/ppo_tuned_vs_fixed_low",
        "reward_net/within_image_spearman", "segmenter_calls",
    } <= found.keys()  # fmt: skip
    assert (first / "seed1" / "evaluation" / "ppo_tuned.json").is_file()
    # The first experiment trained this network; the comparison takes the steps' policies.
    assert stages(first)[:3] == ["reward_net: done", "ppo_tuned: into", "grpo: into"]
    again = run("+exp=sa2va", *SMALL, *SMALL_COMPARISON, output=output)
    assert {line.split()[1] for line in stages(again)} == {"done"}
    same = ("steps/ppo_tuned/dice", "steps/grpo/dice", "dice/ppo_tuned")
    assert {name: metrics(again)[name] for name in same} == {name: found[name] for name in same}


def stages(folder: Path) -> list[str]:
    """Stages in the order in which they were asked for, with `into` or `done` (before)."""
    lines = (folder / "train.log").read_text().splitlines()
    said = [line.partition("core_rl.run.stages: stage ")[2] for line in lines]
    asked = [line for line in said if ": into" in line or ": done before" in line]
    return [" ".join(line.split()[:2]) for line in asked]


def test_pictures_of_ones_own_with_and_without_masks(output: Path, tmp_path: Path) -> None:
    """Folders: a grey picture, 16 bits, and more pictures that nobody has drawn on."""
    for name in ("images", "masks", "bare"):
        (tmp_path / name).mkdir()
    for index, sample in enumerate(draw_samples(DEFAULT, range(9))):
        assert sample.truth_HW is not None
        grey_HW = sample.image_HWC[:, :, 0]
        picture = Image.fromarray(grey_HW.astype(np.uint16) * 16 if index == 0 else grey_HW)
        if index == 8:
            picture.save(tmp_path / "bare" / "film8-1.png")
            continue
        picture.save(tmp_path / "images" / f"film{index}-1.png")
        Image.fromarray(sample.truth_HW).save(tmp_path / "masks" / f"film{index}-1.png")
    folder = run(
        "+exp=sa2va_ppo", *SMALL, "data_mix=sa2va_folders", f"paths.data={tmp_path}",
        f"data_mix.bare={tmp_path}/bare", "data_mix.group='(film\\d+)'", output=output,
    )  # fmt: skip
    found = metrics(folder)
    assert 0 < found["segmenter_calls"] <= (4 + 1) * 11


@pytest.mark.parametrize(
    ("overrides", "message", "code"),
    [
        (["data_mix=sa2va_annotations", "paths.data=nowhere"], "no annotations at nowhere/", 1),
        (["ppo.lrr=1"], "did you mean ppo.lr?", 2),
    ],
)
def test_what_cannot_be_run_says_why(
    overrides: list[str], message: str, code: int, output: Path
) -> None:
    done = start("+exp=sa2va_ppo", *SMALL, *overrides, output=output, code=code)
    assert message in done.err.strip().splitlines()[-1]
