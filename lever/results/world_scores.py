"""Score every method on every test query of one world."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from core_rl.files import write_json
from core_rl.hardware import prepare
from lever.data.world import Floats
from lever.generation_config import Split
from lever.learning.stages import Workshop
from lever.learning.trained_methods import ARMS, PIPELINE
from lever.results import choose
from lever.results.choose import Slates
from lever.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WorldScores:
    """The results of one world.

    Attributes:
        scores: method -> accuracy of each test query, in a fixed order.
        pictures: the picture of each test query, in the same order.
        expected: trained selector -> exact expected accuracy of a sampled slate, for each query.
        answerer_calls: prompts that the answerer was asked.
        validation: `val/accuracy/<method>` of the pipeline's selectors on the validation queries.
        shared: all seeds have the same test queries; False for generated worlds.
    """

    scores: dict[str, Floats]
    pictures: tuple[int, ...]
    expected: dict[str, Floats] = field(default_factory=dict)
    answerer_calls: float = 0.0
    validation: dict[str, float] = field(default_factory=dict)
    shared: bool = False


def score_world(settings: Settings, seed: int, folder: Path) -> WorldScores:
    """Run the pipeline and all other methods on the world of a seed.

    `folder` gets `choices.json`, the slates of every method.
    """
    prepare(settings.hardware, seed)
    with Workshop.open(settings, seed) as shop:
        return _score(shop, folder)


def _score(shop: Workshop, folder: Path) -> WorldScores:
    settings, data, answerer = shop.settings, shop.data, shop.setup.answerer
    slates = {"untrained": choose.by_selector(shop.selector(), data.test), **_rules(shop)}
    exact: Floats | None = None
    if settings.model.shots == 2:
        exact = choose.pair_rewards(data, answerer.answerer, data.test, shop.rule)
    scores: dict[str, Floats] = {}
    expected: dict[str, Floats] = {}
    validation: dict[str, float] = {}
    if exact is not None:
        scores["oracle"] = np.nanmax(exact, axis=(1, 2))
        scores["random"] = np.nanmean(exact, axis=(1, 2))
    arms = {**PIPELINE, **{name: ARMS[name] for name in settings.pipeline.arms}}
    for name, train in arms.items():
        policy = train(shop)
        slates[name] = choose.by_selector(policy, data.test)
        if exact is not None and not policy.stops:
            expected[name] = choose.expected_rewards(policy, data.test, exact)
        if name in PIPELINE and data.val:
            chosen = choose.by_selector(policy, data.val)
            accuracy = choose.scores_of(data, answerer, chosen, shop.rule).mean()
            validation[f"val/accuracy/{name}"] = float(accuracy)
        log.info("seed %d: %s is trained", shop.seed, name)
    for name, chosen in slates.items():
        scores.setdefault(name, choose.scores_of(data, answerer, chosen, shop.rule))
    write_json(folder / "choices.json", slates)
    calls = float(answerer.calls)
    log.info("seed %d: %s", shop.seed, {name: round(v.mean(), 3) for name, v in scores.items()})
    pictures = tuple(data.question_of(one.query).image_id for one in data.test)
    shared = data.world is None
    return WorldScores(scores, pictures, expected, calls, validation, shared)


def _rules(shop: Workshop) -> dict[str, Slates]:
    """Return the choices of the methods without a selector."""
    data, shots = shop.data, shop.settings.model.shots
    test = data.test
    constant = choose.best_constant(data, shop.setup.answerer, shots, shop.seed, shop.rule)
    return {
        "zero_shot": {one.query: () for one in test},
        "random": choose.at_random(test, shots, shop.seed),
        "text_sim": choose.by_similarity(data, test, shots, 0.0, 1.0),
        "image_sim": choose.by_similarity(data, test, shots, 1.0, 0.0),
        "mix": choose.by_similarity(data, test, shots, 1.0, 1.0),
        "img1_txt1": choose.by_both(data, test, shots),
        "constant": {one.query: constant for one in test},
        "greedy_infoscore": choose.by_beams(shop.beams(Split.test), test),
    }
