"""PPO, on a choice that can be solved by hand."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stable_baselines3 import PPO
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from core_rl.config import LoggerConfig
from sa2va_rl.config import EnvConfig, PPOConfig, RewardMode
from sa2va_rl.data.features import Standardiser, observation
from sa2va_rl.learning.policy_run import PolicyRun
from sa2va_rl.learning.ppo import fit_ppo
from sa2va_rl.policy.saved import load_policy
from sa2va_rl.rewards.verdicts import Verdicts
from tests.sa2va_rl.toy import PROMPTS, judge, masks, pictures, right_share
from tests.sa2va_rl.workshop import small_settings

SMALL = PPOConfig(
    total_steps=768, envs=2, n_steps=64, lr=5e-3, gamma=1.0, gae_lambda=1.0, hidden=[16],
    checkpoint_every=256, env=EnvConfig(centre=True, scale=10.0),
)  # fmt: skip


def run(folder: Path, **changes: Any) -> PolicyRun:
    train, val = pictures(24), pictures(6, first=50)
    verdicts = [Verdicts(part, PROMPTS, masks, judge) for part in (train, val)]
    settings = small_settings(
        folder, ppo=replace(SMALL, **changes), logger=LoggerConfig(kind="tensorboard")
    )
    seen = Standardiser.fit(verdicts[0].features_BD)
    return PolicyRun(settings, *verdicts, seen, seed=3, folder=folder)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> PolicyRun:
    whole = run(tmp_path_factory.mktemp("ppo"))
    fit_ppo(whole)
    return whole


def test_it_learns_which_picture_wants_which_prompt(trained: PolicyRun) -> None:
    assert right_share(load_policy(trained.folder / "final_model")) == 1


def test_the_stored_policy_is_the_archive_without_pickle(trained: PolicyRun) -> None:
    final = trained.folder / "final_model"
    assert {path.name for path in final.iterdir()} == {
        "ppo.zip", "policy.safetensors", "policy.json", "standardiser.json", "whole.json",
    }  # fmt: skip
    archive = PPO.load(final / "ppo.zip")  # of our own making
    policy = load_policy(final)
    for sample in pictures(6, first=300):
        features_D = Verdicts([sample], PROMPTS, masks).features_BD[0]
        seen_D = observation(policy.standardiser(features_D), 0.0)
        tensor, _ = archive.policy.obs_to_tensor(seen_D)
        expected = archive.policy.get_distribution(tensor).distribution.probs[0]
        found = policy.probabilities(features_D[None])[0]
        np.testing.assert_allclose(found, expected.detach().numpy(), atol=1e-6)
        assert int(archive.predict(seen_D, deterministic=True)[0]) == found.argmax()


def test_the_curves_are_those_that_are_promised(trained: PolicyRun) -> None:
    events = EventAccumulator(str(trained.folder / "tensorboard"))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert {
        "rollout/ep_rew_mean", "rollout/ep_len_mean", "custom/reward_net_score", "custom/gt_dice",
        "custom/best_reward", "custom/regret", "custom/action_entropy", "custom/distinct_prompts",
        "val/reward",
    } <= tags  # fmt: skip
    last = {tag: events.Scalars(tag)[-1].value for tag in tags}
    assert last["rollout/ep_len_mean"] == 1
    assert last["custom/best_reward"] == 1
    first_regret = events.Scalars("custom/regret")[0].value
    assert last["custom/regret"] < first_regret
    assert 0 <= last["custom/action_entropy"] <= np.log(3) + 1e-6
    # Means over a rollout, not its last value: a third of the prompts is right at first.
    first = events.Scalars("custom/reward_net_score")[0].value
    assert 0.3 < first < 0.7


def test_checkpoints_hold_the_statistics_and_a_run_goes_on(
    trained: PolicyRun, tmp_path: Path
) -> None:
    kept = sorted(path.name for path in (trained.folder / "checkpoints").iterdir())
    assert kept == ["step-00000256", "step-00000512"]
    newest = trained.folder / "checkpoints" / kept[-1]
    assert json.loads((newest / "state.json").read_text()) == {"steps": 512}
    stored = Standardiser.load(newest / "standardiser.json")
    np.testing.assert_allclose(stored.mean_D, trained.standardiser.mean_D)
    # No step is left, so what comes out is what went in: the checkpoint's weights.
    ended = run(tmp_path, total_steps=512)
    fit_ppo(ended, resume=trained.folder)
    before, after = (load_policy(f) for f in (newest, tmp_path / "final_model"))
    features_BD = ended.val.features_BD
    np.testing.assert_array_equal(
        before.probabilities(features_BD), after.probabilities(features_BD)
    )
    longer = run(tmp_path / "longer", total_steps=640)
    fit_ppo(longer, resume=trained.folder)
    moved = load_policy(tmp_path / "longer" / "final_model")
    assert not np.array_equal(before.probabilities(features_BD), moved.probabilities(features_BD))


def test_going_on_never_unpickles(
    trained: PolicyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import cloudpickle

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("unpickled")

    monkeypatch.setattr(cloudpickle, "loads", refuse)
    fit_ppo(run(tmp_path, total_steps=512), resume=trained.folder)


def test_a_half_written_checkpoint_is_passed_over(trained: PolicyRun, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(trained.folder / "checkpoints", tmp_path / "checkpoints")
    (tmp_path / "checkpoints" / "step-00000512" / "state.json").unlink()
    with zipfile.ZipFile(tmp_path / "checkpoints" / "step-00000512" / "ppo.zip") as archive:
        assert archive.namelist()
    again = run(tmp_path, total_steps=256)
    policy = fit_ppo(again)
    features_BD = again.val.features_BD
    np.testing.assert_array_equal(
        policy.probabilities(features_BD),
        load_policy(tmp_path / "checkpoints" / "step-00000256").probabilities(features_BD),
    )


def test_what_cannot_be_gone_on_from_is_named(trained: PolicyRun, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"trainer\.resume=.*no checkpoints"):
        fit_ppo(run(tmp_path), resume=tmp_path)
    with pytest.raises(ValueError, match=r"does not fit ppo\.hidden"):
        fit_ppo(run(tmp_path, hidden=[8]), resume=trained.folder)


def test_the_best_on_validation_is_handed_out_if_asked(tmp_path: Path) -> None:
    best = run(tmp_path, keep_best=True, total_steps=384)
    policy = fit_ppo(best)
    chosen_B = policy.choose(best.val.features_BD)
    worth = np.mean([best.val(b, int(k)).reward_net for b, k in enumerate(chosen_B)])
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert worth == pytest.approx(max(e.value for e in events.Scalars("val/reward")), abs=1e-6)


def test_without_truth_the_judge_alone_pays(tmp_path: Path) -> None:
    whole = run(tmp_path, total_steps=128)
    bare = [replace(sample, truth_HW=None) for sample in whole.train.samples]
    blind = replace(whole, train=Verdicts(bare, PROMPTS, masks, judge))
    fit_ppo(blind)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert "custom/gt_dice" not in events.Tags()["scalars"]
    by_dice = replace(SMALL, env=EnvConfig(reward=RewardMode.gt_dice))
    settings = replace(blind.settings, ppo=by_dice)
    with pytest.raises(ValueError, match="have no mask, the first p0"):
        fit_ppo(replace(blind, settings=settings))
