"""The methods of the comparison that choose no prompt: experiments 2 and 3b, with controls."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np

from core_rl.run.run_folder import cpu_seconds
from sa2va_rl.data.files import Sample
from sa2va_rl.data.splits import places_of
from sa2va_rl.learning.differentiable_segmenter import (
    SmallSegmenter,
    learn_from_truth,
    segment,
    start_segmenter,
)
from sa2va_rl.learning.finetune import Curve, finetune, without_brakes
from sa2va_rl.policy import baselines
from sa2va_rl.results.methods import LEARNED, MEASURES, STOPPED, TRUTH, Arena, Floats, Found
from sa2va_rl.segmenters.mask_cache import Mask, overlap
from sa2va_rl.segmenters.postprocess import (
    Answer,
    Recipe,
    Round,
    Score,
    Searched,
    apply,
    ask,
    draw_recipes,
    search,
    thresholds,
)

log = logging.getLogger(__name__)


MASK_METHODS_VERSION = 1  # raise when a row of the comparison changes


def postprocess_masks(arena: Arena) -> tuple[list[Found], int]:
    """Run experiment 2 on the best fixed prompt: tuned threshold, one recipe, a recipe a picture.

    Returns:
        The results, and the number of segmenter calls for maps, which are not stored.
    """
    prompt = arena.prompts[arena.fixed]
    segmenter = arena.inputs.masks.segmenter
    answers = [ask(segmenter, sample, prompt) for sample in arena.inputs.splits.train]
    held = {
        name: [ask(segmenter, sample, prompt) for sample in table.samples]
        for name, table in arena.held.items()
    }
    found = []
    for way, recipes, rounds in (
        (_tuned, thresholds(), _short(arena)),
        (_searched, _drawn(arena), _rounds(arena)),
    ):
        began = cpu_seconds()
        searched = search(answers, {LEARNED: _judged(arena), TRUTH: _true(arena)}, recipes, rounds)
        spent = cpu_seconds() - began  # of both scores: they share the masks
        for told, end in ((LEARNED, ""), (TRUTH, "_truth")):
            found += way(arena, held, searched[told], told, end, spent)
    return found, len(answers) + sum(map(len, held.values()))


Held = Mapping[str, Sequence[Answer]]


def _tuned(
    arena: Arena, held: Held, searched: Searched, told: str, end: str, spent: float
) -> list[Found]:
    """The best threshold for all pictures."""
    return [Found(f"threshold{end}", told, 1, spent, _applied(arena, held, _one(searched, held)))]


def _searched(
    arena: Arena, held: Held, searched: Searched, told: str, end: str, spent: float
) -> list[Found]:
    """The best recipe for all pictures, and one for each picture chosen by its features."""
    log.info("post-processing by %s: %s", told, searched.recipes[0])
    began = cpu_seconds()
    seen = arena.standardiser
    choose = baselines.fit_forest(seen(arena.train.features_BD), searched.scores_BK)
    spent_choosing = spent + cpu_seconds() - began
    each = {
        name: [searched.recipes[place] for place in choose(seen(table.features_BD))]
        for name, table in arena.held.items()
    }
    return [
        Found(f"{method}{end}", told, 1, seconds, _applied(arena, held, recipes))
        for method, seconds, recipes in (
            ("postprocess", spent, _one(searched, held)),
            ("postprocess_each", spent_choosing, each),
        )
    ]


Recipes = Mapping[str, Sequence[Recipe]]


def _one(searched: Searched, held: Held) -> Recipes:
    """The best recipe, for every picture of every test set."""
    return {name: [searched.recipes[0]] * len(answers) for name, answers in held.items()}


def _applied(arena: Arena, held: Held, recipes: Recipes) -> dict[str, dict[str, Floats]]:
    """Apply each picture's recipe and measure the masks."""
    masks = {
        name: [apply(recipe, answer) for recipe, answer in zip(recipes[name], answers, strict=True)]
        for name, answers in held.items()
    }
    return _measured(arena, masks)


def _drawn(arena: Arena) -> list[Recipe]:
    return draw_recipes(arena.config.postprocess.recipes, arena.inputs.seed)


def _rounds(arena: Arena) -> tuple[Round, ...]:
    """Pictures and number of kept recipes of each round of the search."""
    config, train = arena.config.postprocess, arena.inputs.splits.train
    return (
        (places_of(train, config.first_pictures), config.first_kept),
        (places_of(train, config.second_pictures), config.second_kept),
    )


def _short(arena: Arena) -> tuple[Round, ...]:
    """The only round of the search for a threshold."""
    config = arena.config.postprocess
    return ((places_of(arena.inputs.splits.train, config.first_pictures), config.second_kept),)


def _judged(arena: Arena) -> Score:
    assert arena.inputs.judged is not None
    judge, samples = arena.inputs.judged.judge, arena.inputs.splits.train

    def score(picture: int, masks: Sequence[Mask]) -> list[float]:
        scores = judge.many(samples[picture].image_HWC, masks)
        return [s if mask.any() else 0.0 for s, mask in zip(scores, masks, strict=True)]

    return score


def _true(arena: Arena) -> Score:
    samples = arena.inputs.splits.train
    return lambda picture, masks: [overlap(m, _truth(samples[picture])).dice for m in masks]


def finetune_segmenter(arena: Arena) -> tuple[list[Found], dict[str, Curve]]:
    """Run experiment 3b: pre-train a small segmenter, fine-tune it by the reward network.

    Returns:
        The results before fine-tuning, after it with and without anchor and early stopping, and
        after as many steps on the true masks of the same pictures.  And the curves of fine-tuning.
    """
    assert arena.inputs.judged is not None
    config, seed = arena.config.finetune, arena.inputs.seed
    train, val = arena.inputs.splits.train, arena.inputs.splits.val
    held_out = [val[place] for place in places_of(val, config.look_pictures)]
    labelled = [train[place] for place in places_of(train, config.labelled)]
    began = cpu_seconds()
    net = start_segmenter(labelled, config, seed)
    found = [_small(arena, "small", TRUTH, began, net)]
    curves = {}
    for name, told, own in (
        ("finetune", STOPPED, config),
        ("finetune_free", LEARNED, without_brakes(config)),
    ):
        began = cpu_seconds()
        tuned = finetune(net, arena.inputs.judged.net, train, held_out, own, seed)
        kept = tuned.best if own is config else tuned.last
        found.append(_small(arena, name, told, began, kept))
        curves[name] = tuned.curve
    began = cpu_seconds()
    taught = copy.deepcopy(net)
    learn_from_truth(taught, train, config.steps, config.start_lr, config.batch_size, seed)
    found.append(_small(arena, "small_truth", TRUTH, began, taught))
    return found, curves


def _small(arena: Arena, method: str, told: str, began: float, net: SmallSegmenter) -> Found:
    spent = cpu_seconds() - began
    masks = {name: segment(net, table.samples) for name, table in arena.held.items()}
    return Found(method, told, 1, spent, _measured(arena, masks))


def _measured(arena: Arena, masks: Mapping[str, Sequence[Mask]]) -> dict[str, dict[str, Floats]]:
    """Compare the masks of every test set with the true masks."""
    measured = {}
    for name, found in masks.items():
        samples = arena.held[name].samples
        rows = [asdict(overlap(m, _truth(s))) for m, s in zip(found, samples, strict=True)]
        measured[name] = {m: np.array([row[m] for row in rows]) for m in MEASURES}
    return measured


def _truth(sample: Sample) -> Mask:
    if sample.truth_HW is None:
        raise ValueError(
            f"{sample.name} has no mask: a comparison needs the truth of every picture"
        )
    return sample.truth_HW
