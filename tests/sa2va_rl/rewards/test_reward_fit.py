"""Training the reward network, on a few small pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sa2va_rl.config import RewardFitConfig, RewardNetConfig, Sa2VAModelConfig
from sa2va_rl.data.angiograms import DEFAULT, draw_samples
from sa2va_rl.data.files import Splits
from sa2va_rl.prompts import PROMPTS
from sa2va_rl.rewards.reward_fit import (
    Fitted,
    PairSet,
    RewardNetModule,
    evaluate_reward_net,
    fit_reward_net,
)
from sa2va_rl.rewards.reward_net import RewardNet, inputs_of
from sa2va_rl.rewards.reward_pairs import Pair, prompt_pairs
from sa2va_rl.segmenters.mask_cache import MaskCache
from sa2va_rl.segmenters.vesselness import VesselnessSegmenter
from tests.sa2va_rl.workshop import small_settings

SMALL = RewardNetConfig(side=48, width=8)
FOUR = PROMPTS[:4]
FIT = RewardFitConfig(lr=1e-2, epochs=24, batch_size=16, weight_decay=0.0)
SAMPLES = draw_samples(replace(DEFAULT, side=64), range(12))
TRAIN, VAL = tuple(SAMPLES[:8]), tuple(SAMPLES[8:])


def fit(
    masks: MaskCache,
    train: int = 8,
    val: int = 4,
    epochs: int = 24,
    seed: int = 0,
    shared: bool = False,
) -> Fitted:
    settings = small_settings(
        masks.folder,
        model=Sa2VAModelConfig(prompts=list(FOUR)),
        reward_net=SMALL,
        reward_fit=replace(FIT, epochs=epochs),
    )
    held = TRAIN if shared else VAL
    return fit_reward_net(settings, Splits(TRAIN[:train], held[:val], ()), masks, seed)


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> MaskCache:
    return MaskCache(VesselnessSegmenter(), tmp_path_factory.mktemp("masks"))


@pytest.fixture(scope="module")
def fitted(masks: MaskCache) -> Fitted:
    return fit(masks)


def test_pairs_come_back_as_the_network_sees_them(masks: MaskCache) -> None:
    pairs = list(prompt_pairs(TRAIN[:2], FOUR, masks, SMALL.label))
    pair_set = PairSet(TRAIN[:2], pairs, SMALL.side)
    assert len(pair_set) == 8
    for index, pair in enumerate(pairs):
        inputs, label = pair_set[index]
        expected = inputs_of(TRAIN[pair.picture].image_HWC, [pair.mask_HW], SMALL.side)[0]
        torch.testing.assert_close(inputs, expected, atol=1 / 255, rtol=0)
        assert label == pytest.approx(pair.label)


def test_it_predicts_better_than_before(fitted: Fitted, masks: MaskCache) -> None:
    torch.manual_seed(0)
    before = evaluate_reward_net(RewardNet(SMALL), TRAIN, FOUR, masks)
    after = evaluate_reward_net(fitted.net, TRAIN, FOUR, masks)
    assert after["mae"] < before["mae"]
    assert after["probe/truth"] > after["probe/empty"] + 0.1
    assert after["probe/truth"] > after["probe/full"] + 0.1


def test_metrics_are_those_of_the_network_returned(fitted: Fitted, masks: MaskCache) -> None:
    assert evaluate_reward_net(fitted.net, VAL, FOUR, masks) == fitted.metrics
    assert fitted.metrics["probe_label/truth"] == 1
    assert fitted.metrics["probe_label/empty"] == 0


def test_the_seed_decides_everything(fitted: Fitted, masks: MaskCache) -> None:
    nets = [fit(masks, 3, 2, epochs=1, seed=seed).net for seed in (1, 1, 2)]
    weights = [net.head[0].weight for net in nets]
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=0)
    assert not torch.equal(weights[0], weights[2])


def test_the_epoch_with_the_best_order_is_kept() -> None:
    module = RewardNetModule(RewardNet(SMALL), FIT, num_prompts=3)
    module.log_dict = lambda *_, **__: None  # type: ignore[method-assign]  # no trainer here
    labels = torch.tensor([0.1, 0.5, 0.9])
    kept = []
    for scores in ([0.1, 0.9, 0.5], [0.2, 0.5, 0.8], [0.9, 0.5, 0.1]):
        with torch.no_grad():
            module.net.head[2].bias.fill_(scores[0])  # tells the epochs apart
        module._held_out = [(torch.tensor(scores), labels)]
        module.on_validation_epoch_end()
        kept.append(round(float(module.best["head.2.bias"]), 3))
    assert kept == [0.1, 0.2, 0.2]
    assert module.best_score == pytest.approx(1)


def test_a_group_on_both_sides_is_refused(masks: MaskCache) -> None:
    with pytest.raises(ValueError, match="are in training and validation: split anew"):
        fit(masks, val=1, shared=True)


def test_nothing_is_written_where_the_command_was_typed(
    masks: MaskCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fit(masks, 2, 2, epochs=1)
    assert not list(tmp_path.iterdir())


def test_pairs_of_one_picture_share_it() -> None:
    mask_HW = np.zeros((64, 64), dtype=bool)
    pairs = [Pair(0, kind, mask_HW, 0.0) for kind in ("one", "two")]
    assert len(PairSet(TRAIN[:1], pairs, 48).flat_PSS) == 1


def test_pairs_gathered_at_once_are_those_gathered_singly(masks: MaskCache) -> None:
    pair_set = PairSet(TRAIN[:2], prompt_pairs(TRAIN[:2], FOUR, masks, SMALL.label), SMALL.side)
    batches = list(pair_set.batches(3))
    singly = [pair_set[place] for place in range(len(pair_set))]
    torch.testing.assert_close(
        torch.cat([x for x, _ in batches]), torch.stack([x for x, _ in singly])
    )
    torch.testing.assert_close(
        torch.cat([y for _, y in batches]), torch.stack([y for _, y in singly])
    )
    assert [len(y) for _, y in batches] == [3, 3, 2]
