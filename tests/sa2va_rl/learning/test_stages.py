"""Steps that are done once, and what they say when they cannot be done."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from core_rl.config import TrainerConfig
from sa2va_rl.config import (
    EnvConfig,
    PPOConfig,
    RewardFitConfig,
    RewardMode,
    RewardNetConfig,
    Sa2VADataConfig,
    Sa2VAModelConfig,
    SegmenterKind,
    Source,
)
from sa2va_rl.data.files import Splits
from sa2va_rl.data.splits import load_splits
from sa2va_rl.learning.policy_stages import PolicyInputs, learn_ppo, learn_selector
from sa2va_rl.learning.stages import (
    digest_samples,
    learn_reward_net,
    load_segmenter,
    open_masks,
)
from sa2va_rl.prompts import PROMPTS
from sa2va_rl.rewards.reward_net import RewardNet, save_reward_net
from tests.sa2va_rl.workshop import small_settings


def steps_done(caplog: pytest.LogCaptureFixture) -> list[bool]:
    """Of the stages that were asked for since the last call: was each done before?"""
    starts = [r.getMessage() for r in caplog.records if r.name == "core_rl.run.stages"]
    caplog.clear()
    return ["done before" in line for line in starts if "into" in line or "done before" in line]


def test_a_network_is_trained_once_for_the_same_pictures(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    small = small_settings(tmp_path)
    masks, splits = open_masks(small), load_splits(small.data_mix, 1)
    first = learn_reward_net(small, splits, masks, 1)
    assert steps_done(caplog) == [False]
    assert masks.calls == (4 + 3 + 3) * 3
    again = learn_reward_net(small, splits, masks, 1)
    assert steps_done(caplog) == [True]
    assert again.key == first.key
    np.testing.assert_equal(again.figures, first.figures)  # so few pictures leave NaN
    for name, value in first.net.state_dict().items():
        np.testing.assert_array_equal(value, again.net.state_dict()[name])
    learn_reward_net(small, splits, masks, 2)
    learn_reward_net(replace(small, reward_fit=RewardFitConfig(lr=1e-3)), splits, masks, 1)
    clipped = replace(small, trainer=replace(small.trainer, grad_clip=0.1))
    learn_reward_net(clipped, splits, masks, 1)
    learn_reward_net(small, Splits(splits.train[:3], splits.val, splits.test), masks, 1)
    assert steps_done(caplog) == [False] * 4
    assert masks.calls == (4 + 3 + 3) * 3


def test_a_network_that_is_brought_along_is_taken(tmp_path: Path) -> None:
    small = small_settings(tmp_path)
    masks, splits = open_masks(small), load_splits(small.data_mix, 1)
    net = learn_reward_net(small, splits, masks, 1).net
    save_reward_net(net, tmp_path / "own")
    brought = replace(small, reward_fit=RewardFitConfig(path=str(tmp_path / "own")))
    bare = [tuple(replace(s, truth_HW=None) for s in part) for part in (splits.train, splits.val)]
    judged = learn_reward_net(brought, Splits(*bare, splits.test), masks, 1)
    assert judged.figures == judged.test_figures == {}
    pair = splits.test[0].image_HWC, [masks(splits.test[0].image_HWC, PROMPTS[0])]
    assert judged.judge.many(*pair) == pytest.approx(
        learn_reward_net(small, splits, masks, 1).judge.many(*pair)
    )


def test_a_network_brought_along_is_known_by_all_that_makes_its_scores(tmp_path: Path) -> None:
    """The same weights look at a smaller picture under other settings, and so judge otherwise."""
    small = small_settings(tmp_path)
    masks, splits = open_masks(small), load_splits(small.data_mix, 1)
    keys = []
    for name, side, seed in (("a", 32, 0), ("b", 32, 0), ("c", 48, 0), ("d", 32, 1)):
        torch.manual_seed(seed)
        save_reward_net(RewardNet(replace(small.reward_net, side=side)), tmp_path / name)
        brought = replace(small, reward_fit=RewardFitConfig(path=str(tmp_path / name)))
        keys.append(learn_reward_net(brought, splits, masks, 1).key)
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def test_one_judge_of_many_seeds_of_files_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small = small_settings(tmp_path)
    masks, splits = open_masks(small), load_splits(small.data_mix, 1)
    brought = replace(
        small,
        reward_fit=RewardFitConfig(path=str(tmp_path / "own")),
        trainer=replace(small.trainer, seeds=[1, 2]),
    )
    save_reward_net(RewardNet(small.reward_net), tmp_path / "own")
    learn_reward_net(brought, splits, masks, 1)
    assert "judges all of" not in caplog.text  # generated: every seed has other patients
    files = Sa2VADataConfig(source=Source.folders, path=str(tmp_path), train=None)
    learn_reward_net(replace(brought, data_mix=files), splits, masks, 1)
    assert "test pictures of one seed may be what it was trained on" in caplog.text


def test_an_absent_network_is_named_with_its_command(tmp_path: Path) -> None:
    small = small_settings(tmp_path)
    masks, splits = open_masks(small), load_splits(small.data_mix, 1)
    gone = replace(small, reward_fit=RewardFitConfig(path=str(tmp_path / "gone")))
    with pytest.raises(FileNotFoundError, match=r"no reward network in .*gone"):
        learn_reward_net(gone, splits, masks, 1)
    bare = replace(splits, train=tuple(replace(s, truth_HW=None) for s in splits.train))
    with pytest.raises(ValueError, match=r"4 pictures have no mask.*\+exp=sa2va_reward_net"):
        learn_reward_net(small, bare, masks, 1)


def test_a_policy_is_trained_once_and_pays_for_its_masks_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    truth = PPOConfig(
        total_steps=64, envs=2, n_steps=32, batch_size=32, hidden=[8],
        env=EnvConfig(reward=RewardMode.gt_dice),
    )  # fmt: skip
    small = small_settings(tmp_path)
    task = PolicyInputs(small, load_splits(small.data_mix, 1), open_masks(small), None, 1)
    first = learn_ppo(task, truth)
    assert 0 < first.figures["segmenter_calls"] <= 4 * 3
    again = learn_ppo(task, truth)
    assert steps_done(caplog) == [False, True]
    assert again.figures == first.figures
    features_BD = task.measure(task.splits.test).features_BD
    np.testing.assert_array_equal(
        first.policy.probabilities(features_BD), again.policy.probabilities(features_BD)
    )


def test_a_checkpoint_of_the_run_reaches_no_stage(tmp_path: Path) -> None:
    """One seed's weights must not become every seed's start."""
    gone = TrainerConfig(progress=False, max_steps=2, resume=str(tmp_path / "no" / "last.ckpt"))
    small = small_settings(tmp_path, trainer=gone)
    masks, splits = open_masks(small), load_splits(small.data_mix, 1)
    judged = learn_reward_net(small, splits, masks, 1)
    assert learn_selector(PolicyInputs(small, splits, masks, judged, 1)).folder.is_dir()


def test_digests_tell_pictures_and_truths_apart() -> None:
    train = load_splits(Sa2VADataConfig(train=2, val=1, test=1, side=64), 1).train
    assert train[0].truth_HW is not None
    bare = replace(train[0], truth_HW=None)
    other = replace(train[0], truth_HW=~train[0].truth_HW)
    renamed = replace(train[0], name="another")
    digests = [digest_samples([one]) for one in (train[0], train[1], bare, other)]
    assert len(set(digests)) == 4
    assert digest_samples([renamed]) == digests[0]
    assert digest_samples(train) != digest_samples(train[::-1])


def test_code_of_a_checkpoint_runs_only_where_it_is_allowed() -> None:
    sa2va = Sa2VAModelConfig(kind=SegmenterKind.sa2va, path="nowhere/model")
    with pytest.raises(ValueError, match="then set trust_remote_code=true"):
        load_segmenter(sa2va)


@pytest.mark.parametrize(("name", "value"), [("threshold", 0.3), ("device", "cuda"), ("path", "x")])
def test_the_embedded_segmenter_refuses_what_it_has_no_use_for(name: str, value: object) -> None:
    config = Sa2VAModelConfig(**{name: value})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=rf"model\.{name}={value} does nothing"):
        load_segmenter(config)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (["one"], "at least two"),
        (["one", " "], "number 1 is empty"),
        (["a", "a"], "more than once"),
    ],
)
def test_prompts_have_to_be_choices(prompts: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        _ = small_settings(tmp_path, model=Sa2VAModelConfig(prompts=prompts)).prompts


@pytest.mark.slow
def test_at_real_size_the_truth_outscores_what_is_spoiled(tmp_path: Path) -> None:
    """The probe table: a network that likes an all-white mask teaches a policy to make them."""
    real = small_settings(
        tmp_path,
        model=Sa2VAModelConfig(),
        data_mix=Sa2VADataConfig(train=24, val=8, test=12),
        reward_net=RewardNetConfig(),
        reward_fit=RewardFitConfig(epochs=6),
    )
    masks, splits = open_masks(real), load_splits(real.data_mix, 1)
    figures = learn_reward_net(real, splits, masks, 1).figures
    for kind in ("full", "empty", "shifted", "foreign"):
        assert figures["test/probe/truth"] > figures[f"test/probe/{kind}"] + 0.05, kind
    assert figures["test/within_image_spearman"] > 0.4
