"""The comparison's methods on pictures whose best prompt is known, and what each may read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sa2va_rl.compare_config import CompareConfig, FinetuneConfig, PostprocessConfig
from sa2va_rl.config import RewardNetConfig, Sa2VAModelConfig
from sa2va_rl.data.features import Standardiser
from sa2va_rl.data.files import Sample, Splits
from sa2va_rl.learning.differentiable_segmenter import start_segmenter
from sa2va_rl.learning.policy_stages import PolicyInputs
from sa2va_rl.learning.stages import TrainedJudge
from sa2va_rl.results import mask_methods
from sa2va_rl.results.mask_methods import _rounds, finetune_segmenter, postprocess_masks
from sa2va_rl.results.methods import (
    LEARNED,
    MEASURES,
    STOPPED,
    TEST,
    TRUTH,
    Arena,
    Found,
    choose_prompts,
)
from sa2va_rl.rewards.prompt_table import PromptTable, measure_prompts
from sa2va_rl.rewards.reward_net import RewardNet
from sa2va_rl.segmenters.mask_cache import MaskCache
from sa2va_rl.segmenters.models import Prediction
from tests.sa2va_rl.workshop import small_settings

PROMPTS = ("base", "dark", "bright")
SIDE = 32
LEARNERS = ("linucb", "ridge", "forest")


class HalfRight:
    """Right where prompt and picture agree, half right under the base prompt."""

    fingerprint = "half-right"

    def predict_forward(self, image: Image.Image, text: str) -> Prediction:
        mask_HW = np.zeros((SIDE, SIDE), dtype=bool)
        right = ("dark", "bright")[int(np.asarray(image).mean() > 100)]
        mask_HW[: {right: 16, "base": 8}.get(text, 0)] = True
        logits_HW = np.where(mask_HW, 2.0, -2.0)
        # The lower half of the truth is there, faintly, whatever the prompt.
        logits_HW[8:16] = np.maximum(logits_HW[8:16], -0.5)
        maps = [1 / (1 + np.exp(-logits_HW))[None]]
        return Prediction(
            prediction="[SEG]", prediction_masks=[mask_HW[None]], probability_maps=maps
        )


def pictures(first: int, count: int, truth: bool = True) -> tuple[Sample, ...]:
    found = []
    for index in range(first, first + count):
        rng = np.random.default_rng(index)
        image_HWC = rng.integers(0, 60, (SIDE, SIDE, 3), dtype=np.uint8)
        image_HWC += np.uint8(160 * (index % 3 > 0))  # two in three are bright
        truth_HW = np.zeros((SIDE, SIDE), dtype=bool)
        truth_HW[:16] = True
        found.append(Sample(f"p{index}", image_HWC, truth_HW if truth else None, f"g{index}"))
    return tuple(found)


def arena(tmp_path: Path, backwards: bool = False) -> Arena:
    """Scores equal Dice, or its opposite, so that who follows which can be told."""
    masks = MaskCache(HalfRight(), tmp_path)
    splits = Splits(pictures(0, 18), pictures(100, 6), pictures(200, 9))
    torch.manual_seed(0)
    net = RewardNet(RewardNetConfig(side=32, width=4)).eval()

    def measured(samples: tuple[Sample, ...]) -> PromptTable:
        table = measure_prompts(samples, PROMPTS, masks)
        dice_BK = table.dice_BK
        return replace(table, score_BK=1 - dice_BK if backwards else dice_BK.copy())

    train = measured(splits.train)
    settings = small_settings(tmp_path, model=Sa2VAModelConfig(prompts=list(PROMPTS)))
    return Arena(
        inputs=PolicyInputs(settings, splits, masks, TrainedJudge(net, "key", {}), seed=0),
        config=CompareConfig(
            pulls=300,
            postprocess=PostprocessConfig(recipes=12, first_pictures=6, first_kept=6),
            finetune=FinetuneConfig(
                labelled=4, width=4, start_steps=3, steps=2, look_every=1, look_pictures=2
            ),
        ),
        train=train,
        held={TEST: measured(splits.test)},
        standardiser=Standardiser.fit(train.features_BD),
    )


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Arena:
    return arena(tmp_path_factory.mktemp("masks"))


@pytest.fixture(scope="module")
def backwards(tmp_path_factory: pytest.TempPathFactory) -> Arena:
    return arena(tmp_path_factory.mktemp("masks"), backwards=True)


def dice(found: list[Found]) -> dict[str, float]:
    return {one.method: float(one.measures[TEST]["dice"].mean()) for one in found}


def test_rows_without_learning_are_what_they_say(honest: Arena) -> None:
    found = dice(choose_prompts(honest, {}))
    # Right 1, half right 2/3, wrong 0; two in three are bright.
    assert found["base"] == pytest.approx(2 / 3)
    assert found["oracle"] == found["rerank"] == 1
    assert found["random"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert found["fixed"] == pytest.approx(2 / 3)


def test_what_learns_finds_the_right_prompt(honest: Arena) -> None:
    found = choose_prompts(honest, {})
    for method in LEARNERS:
        assert dice(found)[method] > 0.95, method
    one = next(one for one in found if one.method == "ridge")
    assert one.choices is not None and set(one.choices[TEST].tolist()) == {1, 2}
    assert set(one.measures[TEST]) == set(MEASURES)


def test_methods_follow_what_told_them_and_nothing_else(backwards: Arena) -> None:
    found = choose_prompts(backwards, {})
    told = {one.method: one.told for one in found}
    for method in (*LEARNERS, "rerank"):
        assert told[method] == LEARNED
        assert dice(found)[method] < 0.1, f"{method} read the truth"
    for method in ("ridge_truth", "forest_truth", "fixed", "oracle"):
        assert told[method] == TRUTH
        assert dice(found)[method] > 0.6, f"{method} read the scores"


def test_calls_are_counted_by_what_a_picture_needs(honest: Arena) -> None:
    calls = {one.method: one.calls for one in choose_prompts(honest, {})}
    assert calls.pop("oracle") == calls.pop("rerank") == len(PROMPTS)
    assert set(calls.values()) == {1}


def test_post_processing_by_truth_finds_the_faint_half(honest: Arena) -> None:
    found, asked = postprocess_masks(honest)
    assert asked == 18 + 9
    scores = dice(found)
    fixed = dice(choose_prompts(honest, {}))["fixed"]
    assert scores["threshold_truth"] > fixed + 0.2
    assert scores["postprocess_truth"] >= fixed
    told = {one.method: one.told for one in found}
    assert {name.endswith("_truth") == (kind == TRUTH) for name, kind in told.items()} == {True}


def test_fine_tuning_brings_its_controls_and_curves(honest: Arena) -> None:
    found, curves = finetune_segmenter(honest)
    told = {one.method: one.told for one in found}
    assert told == {
        "small": TRUTH,
        "finetune": STOPPED,
        "finetune_free": LEARNED,
        "small_truth": TRUTH,
    }
    assert all(len(one.measures[TEST]["dice"]) == 9 for one in found)
    assert curves["finetune_free"].steps == (0, 1, 2)


def test_few_pictures_of_files_are_of_many_films(
    honest: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first pictures of files are frames of one film; generated ones keep their order."""
    started: list[list[int]] = []

    def recorded(samples: list[Sample], *rest: Any) -> Any:
        started.append([int(sample.name[1:]) for sample in samples])
        return start_segmenter(samples, *rest)

    monkeypatch.setattr(mask_methods, "start_segmenter", recorded)
    splits = honest.inputs.splits
    train = tuple(replace(s, group=f"{n // 6}") for n, s in enumerate(splits.train))
    filmed_splits = replace(splits, train=train)
    filmed = replace(honest, inputs=replace(honest.inputs, splits=filmed_splits))
    for one in (honest, filmed):
        finetune_segmenter(one)
    assert started == [[0, 1, 2, 3], [0, 4, 9, 13]]
    looked = [_rounds(one)[0][0] for one in (honest, filmed)]
    assert looked == [[0, 1, 2, 3, 4, 5], [0, 3, 6, 9, 12, 15]]


def test_a_picture_without_truth_is_refused(honest: Arena) -> None:
    bare = replace(honest.held[TEST], samples=pictures(200, 9, truth=False))
    with pytest.raises(ValueError, match="p200 has no mask"):
        postprocess_masks(replace(honest, held={TEST: bare}))
