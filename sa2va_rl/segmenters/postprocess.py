"""Experiment 2: leave the prompt alone and improve the mask afterwards.

A recipe smooths the segmenter's map, thresholds it, follows vessels further down (region growing),
bridges gaps, and drops specks.  Recipes are compared on training pictures, by the reward network or
by the truth, whichever the caller scores with; a picture's own recipe is then chosen from its
features alone.  Either way a picture costs one segmenter call.

The published attempt let a policy apply such operations step by step and shipped no number.  One
recipe a picture reaches the same masks, and a search over recipes needs no policy: successive
halving (Jamieson and Talwalkar, 2016) tries many on few pictures and few on all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from skimage import morphology

from sa2va_rl.compare_config import RECIPES
from sa2va_rl.data.files import Sample
from sa2va_rl.segmenters.mask_cache import Mask
from sa2va_rl.segmenters.models import Segmenter, single_mask
from sa2va_rl.segmenters.vesselness import REFERENCE_SIDE

Floats = NDArray[np.float64]
# Score masks of the picture at a place among those searched on.
Score = Callable[[int, Sequence[Mask]], Sequence[float]]
# Places of the pictures that are looked at, and recipes kept after it.
Round = tuple[Sequence[int], int]

SURE = 12.0  # logits beyond which a map says no more


@dataclass(frozen=True)
class Recipe:
    """What is done to a map; lengths are for a picture of 160 px.

    Attributes:
        threshold: logit above which a pixel starts a vessel; None = begin with the segmenter's own
            mask, which `follow` and `smooth` then have no part in.
        follow: logits below the threshold down to which a vessel is followed, 0 or more.
        smooth: standard deviation of the smoothing of the map, in pixels.
        close: radius of the disc that closes gaps, in pixels.
        grow: pixels that the mask gains all around; negative ones are lost.
        min_size: smallest connected piece kept, in pixels.
    """

    threshold: float | None = None
    follow: float = 0.0
    smooth: float = 0.0
    close: int = 0
    grow: int = 0
    min_size: int = 0


OWN = Recipe()  # the segmenter's mask as it is
CHOICES: dict[str, tuple[float | None, ...]] = {
    "threshold": (None, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0),
    "follow": (0.0, 1.0, 2.0, 3.0),
    "smooth": (0.0, 0.7, 1.4),
    "close": (0, 1, 2, 3),
    "grow": (-1, 0, 0, 1),
    "min_size": (0, 40, 80, 160),
}
# What a tuned threshold may keep of a segmenter's hysteresis and of its smallest piece.
FOLLOWED, SMALLEST = (0.0, 1.5, 2.5), (0, 60)


@dataclass(frozen=True)
class Answer:
    """What a segmenter said of one picture: its mask HW, and its map HW as logits."""

    mask_HW: Mask
    logits_HW: NDArray[np.float16]


def ask(segmenter: Segmenter, sample: Sample, prompt: str) -> Answer:
    """Ask for mask and map with one call; a segmenter without maps is sure of its mask."""
    height, width = sample.image_HWC.shape[:2]
    answer = segmenter.predict_forward(Image.fromarray(sample.image_HWC), prompt)
    mask_HW = single_mask(answer, height, width)
    maps = answer.get("probability_maps")
    if not maps:
        return Answer(mask_HW, np.where(mask_HW, SURE, -SURE).astype(np.float16))
    map_HW = np.max([np.reshape(one, (-1, height, width))[0] for one in maps], axis=0)
    least = 1 / (1 + np.exp(SURE))
    map_HW = np.clip(map_HW.astype(np.float64), least, 1 - least)
    return Answer(mask_HW, np.log(map_HW / (1 - map_HW)).astype(np.float16))


def apply(recipe: Recipe, answer: Answer) -> Mask:
    """Make a mask HW by a recipe."""
    unit = min(answer.mask_HW.shape) / REFERENCE_SIDE
    mask_HW = answer.mask_HW
    if recipe.threshold is not None:
        logits_HW = answer.logits_HW.astype(np.float32)
        if recipe.smooth:
            logits_HW = ndimage.gaussian_filter(logits_HW, recipe.smooth * unit)
        low = recipe.threshold - recipe.follow
        mask_HW = _followed(logits_HW, low, recipe.threshold)
    if recipe.close:
        # Padded: a vessel that leaves the picture must not be torn off at its edge.
        disc = morphology.disk(max(1, round(recipe.close * unit)))
        reach = disc.shape[0] // 2
        padded = np.pad(mask_HW, reach, mode="edge")
        inside = slice(reach, -reach)
        mask_HW = ndimage.binary_closing(padded, disc)[inside, inside]
    if recipe.grow:
        change = ndimage.binary_dilation if recipe.grow > 0 else ndimage.binary_erosion
        mask_HW = change(mask_HW, iterations=max(1, round(abs(recipe.grow) * unit)))
    if recipe.min_size:
        mask_HW = _without_specks(mask_HW, recipe.min_size * unit**2)
    return np.asarray(mask_HW, dtype=bool)


def _followed(logits_HW: NDArray[np.float32], low: float, high: float) -> Mask:
    """Keep pieces above `low` that hold a pixel above `high`; corners tie, as thin vessels need."""
    pieces_HW, count = ndimage.label(logits_HW > low, structure=np.ones((3, 3)))
    kept = np.bincount(pieces_HW[logits_HW > high], minlength=count + 1) > 0
    kept[0] = False  # what is in no piece
    return kept[pieces_HW]


def _without_specks(mask_HW: Mask, smallest: float) -> Mask:
    pieces_HW, _ = ndimage.label(mask_HW, structure=np.ones((3, 3)))
    kept = np.bincount(pieces_HW.ravel()) >= smallest
    kept[0] = False  # what is in no piece
    return kept[pieces_HW]


def thresholds() -> list[Recipe]:
    """List the recipes that move the threshold, the segmenter's own mask first.

    A segmenter may follow vessels below its threshold and drop specks, as the embedded one does
    under most prompts: a threshold that had to do without both could only lose to it.
    """
    return [
        OWN,
        *(
            Recipe(float(logit), follow, min_size=min_size)
            for logit in np.arange(-4.0, 8.5, 0.5)
            for follow in FOLLOWED
            for min_size in SMALLEST
        ),
    ]


def draw_recipes(count: int, seed: int = 0) -> list[Recipe]:
    """Draw different recipes at random from `CHOICES`, up to `RECIPES`; the first is `OWN`."""
    assert count <= RECIPES, "there are no more"
    rng = np.random.default_rng(seed)
    found = {OWN: None}  # a dict keeps the order
    while len(found) < count:
        drawn = {name: values[rng.integers(len(values))] for name, values in CHOICES.items()}
        if drawn["threshold"] is None:
            drawn |= {"follow": 0.0, "smooth": 0.0}  # they would do nothing
        found[Recipe(**drawn)] = None  # type: ignore[arg-type]
    return list(found)


@dataclass(frozen=True)
class Searched:
    """Recipes worth having, the best on average first, and what each scored on each picture."""

    recipes: tuple[Recipe, ...]
    scores_BK: Floats


def search(
    answers: Sequence[Answer],
    scores: Mapping[str, Score],
    recipes: Sequence[Recipe],
    rounds: Sequence[Round],
) -> dict[str, Searched]:
    """Find good recipes by each way to score: many on few pictures, then few on all.

    Args:
        answers: of training pictures.
        scores: by name, what a mask of one of them is worth, higher is better.
        recipes: to try.
        rounds: what each looks at and keeps.  The last round keeps recipes that are good for
            different pictures, the others those that are good on average.

    Returns:
        What was found, by the same names.
    """
    left = {name: list(recipes) for name in scores}
    count = len(recipes)
    for number, (places, keep) in enumerate(rounds):
        if count <= keep:
            continue
        last = number == len(rounds) - 1
        for name, scores_BK in score_recipes(answers, scores, left, places).items():
            kept = _cover(scores_BK, keep) if last else np.argsort(-scores_BK.mean(0))[:keep]
            left[name] = [left[name][place] for place in kept]
        count = keep
    found = score_recipes(answers, scores, left, range(len(answers)))
    return {name: _best_first(left[name], found[name]) for name in scores}


def score_recipes(
    answers: Sequence[Answer],
    scores: Mapping[str, Score],
    recipes: Mapping[str, Sequence[Recipe]],
    places: Sequence[int],
) -> dict[str, Floats]:
    """Score every recipe on the pictures at some places, BK; make no mask twice."""
    wanted = dict.fromkeys(recipe for some in recipes.values() for recipe in some)
    rows: dict[str, list[Sequence[float]]] = {name: [] for name in scores}
    for place in places:
        made = {recipe: apply(recipe, answers[place]) for recipe in wanted}
        for name, score in scores.items():
            rows[name].append(score(place, [made[recipe] for recipe in recipes[name]]))
    return {name: np.asarray(found, dtype=np.float64) for name, found in rows.items()}


def _best_first(recipes: Sequence[Recipe], scores_BK: Floats) -> Searched:
    order = np.argsort(-scores_BK.mean(axis=0), kind="stable")
    return Searched(tuple(recipes[place] for place in order), scores_BK[:, order])


def _cover(scores_BK: Floats, count: int) -> list[int]:
    """Take the best recipe on average, then again and again the one that adds most beside it."""
    kept: list[int] = []
    reached_B = np.full(len(scores_BK), -np.inf)
    for _ in range(count):
        means_K = np.maximum(scores_BK, reached_B[:, None]).mean(axis=0)
        means_K[kept] = -np.inf
        kept.append(int(means_K.argmax()))
        reached_B = np.maximum(reached_B, scores_BK[:, kept[-1]])
    return kept
