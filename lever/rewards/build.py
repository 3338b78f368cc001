"""The reward that a configuration names, with what its functions judge by."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hydra.utils import get_class, instantiate

from core_rl.config import RewardConfig
from core_rl.objective.rewards import ShuffledReward, WeightedReward
from lever.answerers.protocol import Answerer
from lever.candidates.rl_records import CandidateRecord
from lever.data.datasets import LeverData
from lever.features.slate_features import Features
from lever.generation_config import Matching
from lever.rewards.functions import LiveJudge, Slate, SlateJudge, StoredJudge, Verdict


class StoredThenLive:
    """Looks slates up in RL data and asks the answerer about the others.

    Args:
        stored: knows what was judged before.
        live: asked for the rest.
        references: the probability of the reference answer is needed too; RL data made with
            `rl_data.gt_prob=false` lack it.
    """

    def __init__(self, stored: SlateJudge, live: SlateJudge, references: bool = False) -> None:
        self.stored = stored
        self.live = live
        self.references = references

    def __call__(self, slates: Sequence[Slate]) -> list[Verdict]:
        verdicts = self.stored(slates)
        unknown = [
            slate
            for slate, verdict in zip(slates, verdicts, strict=True)
            if verdict.accuracy is None or (self.references and verdict.answer_prob is None)
        ]
        asked = dict(zip(unknown, self.live(unknown), strict=True))
        return [
            _joined(found, asked[slate]) if slate in asked else found
            for slate, found in zip(slates, verdicts, strict=True)
        ]


def _joined(stored: Verdict, live: Verdict) -> Verdict:
    """Fill up what RL data do not say; what they say is believed."""
    said = live if stored.accuracy is None else stored
    prob = live.answer_prob if stored.answer_prob is None else stored.answer_prob
    return replace(said, answer_prob=prob, beam_score=stored.beam_score)


class CountedJudge:
    """Remembers which slates were judged.

    Args:
        judge: asked.
    """

    def __init__(self, judge: SlateJudge) -> None:
        self.judge = judge
        self.seen: set[Slate] = set()

    def __call__(self, slates: Sequence[Slate]) -> list[Verdict]:
        self.seen.update(slates)
        return self.judge(slates)


def build_judge(
    data: LeverData,
    answerer: Answerer,
    records: Iterable[CandidateRecord] = (),
    references: bool = False,
    rule: Matching = Matching.official,
) -> StoredThenLive:
    """Make what says how good a slate is.

    Args:
        data: with the annotators' answers.
        answerer: should be cached.
        records: RL data, whose scores are believed.
        references: also ask for the probability of the reference answer.
        rule: how answers are judged.

    Raises:
        ValueError: RL data were judged by another rule.
    """
    wanted = data.references if references else {}
    live = LiveJudge(answerer, data.answers, wanted, rule)
    return StoredThenLive(StoredJudge(records, rule), live, references)


def build_reward(
    config: RewardConfig,
    judge: SlateJudge,
    data: LeverData,
    features: Features,
    shuffled: bool = False,
) -> WeightedReward:
    """Build the reward functions; each gets those of judge, answers and features that it takes.

    Raises:
        ValueError: a function is no `_target_` node, or has no weight.
    """
    given = {"judge": judge, "answers": data.answers, "features": features}
    # What weighs nothing is left out: some functions cost more than the rest of a step.
    used = {name: node for name, node in config.functions.items() if config.weights.get(name) != 0}
    functions = {name: _function(name, node, given) for name, node in used.items()}
    weights = {name: config.weights[name] for name in functions if name in config.weights}
    kind = ShuffledReward if shuffled else WeightedReward
    return kind(functions, weights, config.spans, config.max_unjudged)


def needs_references(config: RewardConfig) -> bool:
    """Whether a function of some weight judges by the probability of the reference answer."""
    return any(
        config.weights.get(name) and str(node["_target_"]).endswith("AnswerProbability")
        for name, node in config.functions.items()
        if isinstance(node, Mapping)
    )


def _function(name: str, node: Any, given: Mapping[str, Any]) -> Any:
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise ValueError(
            f"reward.functions.{name}={node!r}: expected a node with `_target_`, as in "
            "conf/reward/lever_vqa.yaml"
        )
    target = instantiate({**node, "_partial_": True})
    takes = inspect.signature(get_class(str(node["_target_"]))).parameters
    # Handed over after Hydra is done: it would copy every answer into its own containers.
    return target(**{key: value for key, value in given.items() if key in takes})
