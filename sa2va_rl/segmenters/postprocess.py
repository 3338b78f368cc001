"""Experiment 2: keep the prompt and improve the mask by post-processing.

A recipe smooths the segmenter's logits, applies hysteresis thresholds, closes gaps, grows or
shrinks the mask, and drops small components.  Recipes are compared on training pictures by a score
that the caller gives (the reward network's, or Dice); a picture's own recipe is then chosen from
its features alone.  Either way a picture costs one segmenter call.

The published attempt let a policy apply such operations step by step and reports no number.  One
recipe a picture reaches the same masks, and a search over recipes needs no policy: successive
halving (Jamieson and Talwalkar, 2016) tries many recipes on few pictures, then few on all pictures.
"""

from __future__ import annotations

import itertools
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
from sa2va_rl.segmenters.vesselness import REFERENCE_SIDE, hysteresis, without_specks

Floats = NDArray[np.float64]
# Index of a training picture and some of its masks -> a score for each mask.
Score = Callable[[int, Sequence[Mask]], Sequence[float]]
# Indices of the pictures in a round of the search, and the number of recipes kept after it.
Round = tuple[Sequence[int], int]

LARGEST_LOGIT = 12.0


@dataclass(frozen=True)
class Recipe:
    """One way to post-process; lengths are for a picture of 160 px.

    Attributes:
        threshold: high threshold of the hysteresis, a logit; None = start from the segmenter's own
            mask, and ignore `follow` and `smooth`.
        follow: distance of the low threshold below the high one, in logits, 0 or more.
        smooth: standard deviation of the smoothing of the logits, in pixels.
        close: radius of the disc of the closing, in pixels.
        grow: pixels of dilation, or of erosion if negative.
        min_size: smallest connected component that is kept, in pixels.
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
# Values of `follow` and `min_size` beside a tuned threshold.
FOLLOWED, SMALLEST = (0.0, 1.5, 2.5), (0, 60)


@dataclass(frozen=True)
class Answer:
    """A segmenter's mask HW of one picture, and its probability map HW as logits."""

    mask_HW: Mask
    logits_HW: NDArray[np.float16]


def ask(segmenter: Segmenter, sample: Sample, prompt: str) -> Answer:
    """Call the segmenter once for mask and logits; a hard mask becomes logits of +-12."""
    height, width = sample.image_HWC.shape[:2]
    answer = segmenter.predict_forward(Image.fromarray(sample.image_HWC), prompt)
    mask_HW = single_mask(answer, height, width)
    maps = answer.get("probability_maps")
    if not maps:
        logits_HW = np.where(mask_HW, LARGEST_LOGIT, -LARGEST_LOGIT)
        return Answer(mask_HW, logits_HW.astype(np.float16))
    map_HW = np.max([np.reshape(one, (-1, height, width))[0] for one in maps], axis=0)
    smallest = 1 / (1 + np.exp(LARGEST_LOGIT))
    map_HW = np.clip(map_HW.astype(np.float64), smallest, 1 - smallest)
    return Answer(mask_HW, np.log(map_HW / (1 - map_HW)).astype(np.float16))


def apply(recipe: Recipe, answer: Answer) -> Mask:
    """Post-process a segmenter's answer into a mask HW."""
    unit = min(answer.mask_HW.shape) / REFERENCE_SIDE
    mask_HW = answer.mask_HW
    if recipe.threshold is not None:
        logits_HW = answer.logits_HW.astype(np.float32)
        if recipe.smooth:
            logits_HW = ndimage.gaussian_filter(logits_HW, recipe.smooth * unit)
        mask_HW = hysteresis(logits_HW, recipe.threshold - recipe.follow, recipe.threshold)
    if recipe.close:
        # Padded, because the closing would erode vessels at the picture's edge.
        disc = morphology.disk(max(1, round(recipe.close * unit)))
        reach = disc.shape[0] // 2
        padded = np.pad(mask_HW, reach, mode="edge")
        inside = slice(reach, -reach)
        mask_HW = ndimage.binary_closing(padded, disc)[inside, inside]
    if recipe.grow:
        change = ndimage.binary_dilation if recipe.grow > 0 else ndimage.binary_erosion
        mask_HW = change(mask_HW, iterations=max(1, round(abs(recipe.grow) * unit)))
    if recipe.min_size:
        mask_HW = without_specks(mask_HW, recipe.min_size * unit**2)
    return np.asarray(mask_HW, dtype=bool)


def thresholds() -> list[Recipe]:
    """List the recipes of a tuned threshold, the segmenter's own mask first.

    They include hysteresis and a smallest component, because the embedded segmenter has both under
    most prompts: a threshold without them could only be worse than its own mask.
    """
    grid = itertools.product(np.arange(-4.0, 8.5, 0.5).tolist(), FOLLOWED, SMALLEST)
    return [OWN, *(Recipe(high, follow, min_size=smallest) for high, follow, smallest in grid)]


def draw_recipes(count: int, seed: int = 0) -> list[Recipe]:
    """Draw different recipes at random from `CHOICES`, at most `RECIPES`; the first is `OWN`."""
    assert count <= RECIPES, "more recipes than there are"
    rng = np.random.default_rng(seed)
    found = {OWN: None}  # a dict keeps the order
    while len(found) < count:
        drawn = {name: values[rng.integers(len(values))] for name, values in CHOICES.items()}
        if drawn["threshold"] is None:
            drawn |= {"follow": 0.0, "smooth": 0.0}  # they have no effect without a threshold
        found[Recipe(**drawn)] = None  # type: ignore[arg-type]
    return list(found)


@dataclass(frozen=True)
class Searched:
    """The recipes that a search kept, the best on average first, and their scores BK."""

    recipes: tuple[Recipe, ...]
    scores_BK: Floats


def search(
    answers: Sequence[Answer],
    scores: Mapping[str, Score],
    recipes: Sequence[Recipe],
    rounds: Sequence[Round],
) -> dict[str, Searched]:
    """Find good recipes under each score by successive halving.

    Args:
        answers: the segmenter's, on training pictures.
        scores: by name; higher is better.
        recipes: the candidates.
        rounds: pictures and number of recipes kept.  The last round keeps recipes that are good
            for different pictures, the others those that are good on average.

    Returns:
        The recipes that were kept, by the name of the score.
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
    """Score recipes BK on the pictures at `places`; each mask is made once for all scores."""
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
    """Choose recipes greedily: each raises the mean of the best score so far by the most."""
    kept: list[int] = []
    reached_B = np.full(len(scores_BK), -np.inf)
    for _ in range(count):
        means_K = np.maximum(scores_BK, reached_B[:, None]).mean(axis=0)
        means_K[kept] = -np.inf
        kept.append(int(means_K.argmax()))
        reached_B = np.maximum(reached_B, scores_BK[:, kept[-1]])
    return kept
