"""Build the reward of a configuration."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, cast

from hydra.utils import get_class, instantiate

from core_rl.config import RewardConfig
from core_rl.objective.rewards import ShuffledReward, WeightedReward
from core_rl.types import Reward
from lever.data.datasets import LeverData
from lever.features.slate_features import Features
from lever.rewards.judges import SlateJudge


def build_reward(
    config: RewardConfig,
    judge: SlateJudge,
    data: LeverData,
    features: Features,
    shuffled: bool = False,
) -> WeightedReward:
    """Build the reward functions; each gets `judge`, `answers` and `features` if it takes them.

    Raises:
        ValueError: a function is not a `_target_` node, or has no weight.
    """
    given = {"judge": judge, "answers": data.answers, "features": features}
    # Functions of weight 0 are left out: some cost more than the rest of a step.
    used = {name: node for name, node in config.functions.items() if config.weights.get(name) != 0}
    functions = {name: _function(name, node, given) for name, node in used.items()}
    weights = {name: config.weights[name] for name in functions if name in config.weights}
    kind = ShuffledReward if shuffled else WeightedReward
    return kind(functions, weights, config.spans, config.max_unjudged, ranges=config.ranges)


def needs_references(config: RewardConfig) -> bool:
    """Whether a function with a weight needs the probability of the reference answer."""
    return any(
        config.weights.get(name) and str(node["_target_"]).endswith("AnswerProbability")
        for name, node in config.functions.items()
        if isinstance(node, Mapping)
    )


def _function(name: str, node: object, given: Mapping[str, Any]) -> Reward:
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise ValueError(
            f"reward.functions.{name}={node!r}: expected a node with `_target_`, as in "
            "conf/reward/lever_vqa.yaml"
        )
    target = instantiate({**node, "_partial_": True})
    takes = inspect.signature(get_class(str(node["_target_"]))).parameters
    # Passed after Hydra's call, which would copy every answer into its own containers.
    return cast("Reward", target(**{key: given[key] for key in given if key in takes}))
