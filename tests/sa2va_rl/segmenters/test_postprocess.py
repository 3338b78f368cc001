"""Post-processing: what each part of a recipe does, and that the search finds what is there."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from PIL import Image

from sa2va_rl.compare_config import RECIPES
from sa2va_rl.data.angiograms import DEFAULT, draw_samples
from sa2va_rl.prompts import PROMPTS
from sa2va_rl.segmenters.mask_cache import overlap
from sa2va_rl.segmenters.models import Prediction
from sa2va_rl.segmenters.postprocess import (
    CHOICES,
    LARGEST_LOGIT,
    OWN,
    Answer,
    Recipe,
    _cover,
    apply,
    ask,
    draw_recipes,
    score_recipes,
    search,
    thresholds,
)
from sa2va_rl.segmenters.vesselness import VesselnessSegmenter

SIDE = 160  # at which a recipe's lengths are pixels


def answer(logits_HW: np.ndarray) -> Answer:
    return Answer(logits_HW > 0, logits_HW.astype(np.float16))


def flat(value: float = -5.0) -> np.ndarray:
    return np.full((SIDE, SIDE), value)


def test_without_a_threshold_the_segmenters_own_mask_stays() -> None:
    logits_HW = flat()
    logits_HW[40:44, 10:90] = 3.0
    own = Answer(logits_HW < 0, logits_HW.astype(np.float16))  # a mask its map does not make
    assert np.array_equal(apply(OWN, own), own.mask_HW)


def test_following_goes_on_from_what_is_above_the_threshold_alone() -> None:
    logits_HW = flat()
    logits_HW[40, 10:60], logits_HW[40, 60:90] = 2.0, -1.0  # a vessel that fades
    logits_HW[100, 10:60] = -1.0  # as faint, and tied to nothing
    found = apply(Recipe(threshold=1.0, follow=2.5), answer(logits_HW))
    assert found[40, 10:90].all() and not found[100].any()
    assert apply(Recipe(threshold=1.0), answer(logits_HW)).sum() == 50


def test_a_vessel_of_one_pixel_is_followed_across_corners() -> None:
    logits_HW = flat()
    logits_HW[range(20, 100), range(20, 100)] = -1.0
    logits_HW[20, 20] = 2.0
    assert apply(Recipe(threshold=1.0, follow=2.5), answer(logits_HW)).sum() == 80


def test_closing_bridges_a_gap_and_leaves_the_edge_alone() -> None:
    logits_HW = flat()
    logits_HW[40:45, :70] = logits_HW[40:45, 74:] = 3.0
    own = answer(logits_HW)
    found = apply(Recipe(close=3), own)
    assert found[42, :].all()
    assert not (own.mask_HW & ~found).any(), "closing takes nothing away"


@pytest.mark.parametrize(("grow", "rows"), [(-1, 3), (0, 5), (1, 7)])
def test_growing_moves_the_outline_by_a_pixel(grow: int, rows: int) -> None:
    logits_HW = flat()
    logits_HW[40:45, 20:140] = 3.0
    assert apply(Recipe(grow=grow), answer(logits_HW))[:, 80].sum() == rows


def test_small_pieces_go() -> None:
    logits_HW = flat()
    logits_HW[10:12, 10:12] = logits_HW[50:60, 50:60] = 3.0
    found = apply(Recipe(min_size=40), answer(logits_HW))
    assert found.sum() == 100 and found[55, 55]


def test_lengths_grow_with_the_picture() -> None:
    logits_HW = np.full((2 * SIDE, 2 * SIDE), -5.0)
    logits_HW[10:20, 10:20] = 3.0  # 100 pixels here, 25 at the size that is meant
    assert not apply(Recipe(min_size=40), answer(logits_HW)).any()


def test_an_empty_mask_stays_empty() -> None:
    for recipe in draw_recipes(30):
        assert not apply(recipe, answer(flat(-LARGEST_LOGIT))).any()


class Hard:
    """A segmenter without maps."""

    fingerprint = "hard"

    def predict_forward(self, image: Image.Image, text: str) -> Prediction:
        mask_1HW = np.zeros((1, image.height, image.width), dtype=bool)
        mask_1HW[:, :5] = True
        return Prediction(prediction="[SEG]", prediction_masks=[mask_1HW])


def test_a_segmenter_without_maps_is_sure_of_its_mask() -> None:
    sample = draw_samples(DEFAULT, range(1))[0]
    own = ask(Hard(), sample, "anything")
    assert own.mask_HW[:5].all() and own.mask_HW.sum() == 5 * SIDE
    for threshold in (-3.0, 0.0, 4.0):
        assert np.array_equal(apply(Recipe(threshold), own), own.mask_HW)


def test_the_map_of_the_embedded_segmenter_is_half_at_its_threshold() -> None:
    sample = draw_samples(DEFAULT, range(1))[0]
    own = ask(VesselnessSegmenter(), sample, PROMPTS[0])
    assert np.isfinite(own.logits_HW).all()
    # Every piece of the mask holds a pixel above the threshold.
    assert (own.logits_HW[own.mask_HW] > 0).any()
    assert not (own.logits_HW[~own.mask_HW] > 0.5).sum() > 40 * 40


def every_recipe() -> set[Recipe]:
    found = (Recipe(*values) for values in product(*CHOICES.values()))
    return {replace(one, follow=0.0, smooth=0.0) if one.threshold is None else one for one in found}


def test_recipes_are_drawn_without_repetition_and_begin_with_none() -> None:
    recipes = draw_recipes(40, seed=3)
    assert recipes[0] == OWN and len(set(recipes)) == 40
    assert recipes == draw_recipes(40, seed=3) != draw_recipes(40, seed=4)
    assert len(draw_recipes(RECIPES)) == RECIPES == len(every_recipe())
    assert thresholds()[0] == OWN
    assert len(set(thresholds())) == len(thresholds())


def test_a_tuned_threshold_keeps_what_the_segmenter_follows_and_drops() -> None:
    """The truth fades along its length, and specks as bright as its start lie around it.

    The segmenter starts too high and loses the fainter of two vessels: only a lower threshold
    that goes on following and dropping finds both and nothing else.
    """
    logits_HW = flat()
    logits_HW[40:43, 10:60], logits_HW[40:43, 60:140] = 3.0, 1.0
    logits_HW[80:83, 10:60], logits_HW[80:83, 60:140] = 1.5, -0.25
    truth_HW = logits_HW > -1
    logits_HW[10:30:4, 10:150:4] = 3.0  # specks
    logits_HW[120:150, 10:150] = 0.25  # a haze that nothing bright touches
    own = Answer(
        apply(Recipe(2.0, follow=2.0, min_size=80), answer(logits_HW)), answer(logits_HW).logits_HW
    )

    def dice(_: int, masks: list[np.ndarray]) -> list[float]:
        return [overlap(mask, truth_HW).dice for mask in masks]

    found = search([own], {"dice": dice}, thresholds(), rounds=(([0], 3),))["dice"]
    assert dice(0, [own.mask_HW])[0] < 0.7
    assert found.recipes[0] != OWN
    assert found.scores_BK[0, 0] == 1.0


def planted(count: int = 12) -> list[Answer]:
    """Maps whose vessel is at logit -1: only a threshold below that finds it."""
    answers = []
    for number in range(count):
        logits_HW = flat()
        logits_HW[20 + 5 * number, 10:150] = -1.0
        answers.append(answer(logits_HW))
    return answers


def test_the_search_finds_the_planted_recipe() -> None:
    answers = planted()
    truths = [a.logits_HW > -2 for a in answers]

    def dice(picture: int, masks: list[np.ndarray]) -> list[float]:
        return [overlap(mask, truths[picture]).dice for mask in masks]

    tried: list[int] = []
    looked: list[int] = []

    def counted(picture: int, masks: list[np.ndarray]) -> list[float]:
        tried.append(len(masks))
        looked.append(picture)
        return dice(picture, masks)

    recipes = [Recipe(float(t)) for t in range(-2, 10)]
    rounds = ((range(0, 8, 2), 6), (range(8), 3))
    found = search(answers, {"dice": counted}, recipes, rounds)["dice"]
    assert found.recipes[0] == Recipe(-2.0)
    assert found.scores_BK[:, 0].tolist() == [1.0] * 12
    assert tried == [12] * 4 + [6] * 8 + [3] * 12  # many on few, few on all
    assert looked[:4] == [0, 2, 4, 6]


def test_the_last_round_keeps_recipes_for_different_pictures() -> None:
    # Recipe 0 is fair everywhere, 1 best on two pictures, 2 nearly as good there, 3 on the others.
    table = [[0.6, 0.9, 0.89, 0.0]] * 2 + [[0.6, 0.0, 0.0, 0.8]] * 2
    assert _cover(np.array(table), 3) == [0, 1, 3]


def test_scores_are_of_the_recipes_masks() -> None:
    answers = planted(2)

    def size(_: int, masks: list[np.ndarray]) -> list[float]:
        return [float(mask.sum()) for mask in masks]

    recipes = {"size": [OWN, Recipe(-2.0)], "again": [Recipe(-2.0)]}
    sizes = score_recipes(answers, {"size": size, "again": size}, recipes, [0, 1])
    assert sizes["size"].tolist() == [[0.0, 140.0]] * 2
    assert sizes["again"].tolist() == [[140.0]] * 2


def test_searched_together_or_alone_the_same_is_found() -> None:
    answers = planted()
    scores = {
        "more": lambda _, masks: [float(mask.sum()) for mask in masks],
        "less": lambda _, masks: [-float(mask.sum()) for mask in masks],
    }
    recipes, rounds = [Recipe(float(t)) for t in range(-4, 8)], ((range(6), 6), (range(8), 3))
    together = search(answers, scores, recipes, rounds)
    for name, score in scores.items():
        [alone] = search(answers, {name: score}, recipes, rounds).values()
        assert together[name].recipes == alone.recipes
        assert np.array_equal(together[name].scores_BK, alone.scores_BK)
    assert together["more"].recipes != together["less"].recipes
