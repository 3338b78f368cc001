"""Named reward functions, weighed.

A function that cannot judge a candidate says None.  That is counted, logged and, above a share,
warned of; it never becomes a default value, because a constant floor looks like a judgement.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor

from core_rl.config import RewardConfig
from core_rl.objective.advantages import moments
from core_rl.types import Actions, Query, Reward, RewardTable, masked_mean

log = logging.getLogger(__name__)

Values = Sequence[Sequence[float | None]]  # values[b][g]

ANY = (-1e6, 1e6)  # range of a function that states none; the square of a value must be finite


class WeightedReward:
    """Run every reward function over a batch and weigh what they say.

    Functions of weight 0 are run and logged all the same: they only watch.  Coroutine functions
    (or objects whose `__call__` is one) run side by side in one event loop, a fresh one each call:
    they must not keep clients or locks that are bound to a loop.

    Args:
        functions: name -> function.
        weights: name -> weight, one for each function.
        spans: name -> span of the candidate that the reward may steer; others steer all of it.
        max_unjudged: share of None, from 0 to 1, above which a warning is logged.
        warn_every: calls of `score` between two warnings about the same function.
        ranges: name -> lowest and highest value of a function; `ANY` for others.

    Raises:
        ValueError: weights and functions name different things, a weight is not finite, or a span
            belongs to no function.
    """

    def __init__(
        self,
        functions: Mapping[str, Reward],
        weights: Mapping[str, float],
        spans: Mapping[str, str] | None = None,
        max_unjudged: float = 0.5,
        warn_every: int = 50,
        ranges: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        _check_names(functions, weights, spans or {})
        self.functions = dict(functions)
        self.weights = {name: float(weights[name]) for name in functions}
        self.spans = dict(spans or {})
        self.max_unjudged = max_unjudged
        self.warn_every = warn_every
        self.ranges = {name: tuple((ranges or {}).get(name, ANY)) for name in functions}
        self._calls = 0
        self._warned_at: dict[str, int] = {}

    @classmethod
    def from_config(cls, cfg: RewardConfig) -> WeightedReward:
        """Build from the `reward` group; a function is a `_target_` node or a ready callable."""
        functions = {name: _instantiate(name, node) for name, node in cfg.functions.items()}
        return cls(functions, cfg.weights, cfg.spans, cfg.max_unjudged, ranges=cfg.ranges)

    def score(self, queries: Sequence[Query], actions: Actions) -> RewardTable:
        """Judge every candidate of every query.

        Returns:
            Values RBG in float32, NaN where a function said None or the candidate is padding;
            total BG, the weighted sum.  In it a missing judgement counts as the mean of what the
            function said of the query's other candidates, so it is neither a bonus nor a penalty,
            as in the advantages; a function that judged none of them adds 0.  NaN only where no
            function with a weight judged the candidate.

        Raises:
            ValueError: a function returned another shape than B x G, or something that is neither
                None nor a number in its range.
        """
        self._calls += 1
        said = self._run(queries, actions)
        shape = actions.num_queries, actions.num_candidates
        real_BG = actions.mask_BGT.any(dim=-1).cpu()
        values_RBG = torch.stack(
            [_tensor(name, said[name], shape, self.ranges[name]) for name in self.functions]
        )
        values_RBG = values_RBG.masked_fill(~real_BG, torch.nan)
        table = RewardTable(tuple(self.functions), values_RBG, self._total(values_RBG))
        self._warn_of_unjudged(table, real_BG)
        return table

    def judging(self, means: Mapping[str, float]) -> list[str]:
        """Names of the functions with a weight that judged something: their mean is no NaN."""
        return [
            name
            for name, weight in self.weights.items()
            if weight != 0 and not math.isnan(means[name])
        ]

    def _run(self, queries: Sequence[Query], actions: Actions) -> dict[str, Values]:
        waiting = [name for name, function in self.functions.items() if _is_async(function)]
        said: dict[str, Any] = {}
        for name, function in self.functions.items():
            if name not in waiting:
                with _no_exit(name):
                    said[name] = function(queries, actions)
        if waiting:
            with _no_exit(" or ".join(waiting)):
                answers = _wait_for(self._gather(waiting, queries, actions))
            said.update(zip(waiting, answers, strict=True))
        return said

    async def _gather(
        self, names: Sequence[str], queries: Sequence[Query], actions: Actions
    ) -> list[Values]:
        calls = [self.functions[name](queries, actions) for name in names]
        return await asyncio.gather(*cast("list[Coroutine[Any, Any, Values]]", calls))

    def _total(self, values_RBG: Tensor) -> Tensor:
        weights_R11 = torch.tensor(list(self.weights.values())).view(-1, 1, 1)
        judged_RBG = ~values_RBG.isnan()
        mean_RB1, _ = moments(values_RBG, judged_RBG)
        total_BG = (weights_R11 * torch.where(judged_RBG, values_RBG, mean_RB1)).sum(dim=0)
        counts_BG = (judged_RBG & (weights_R11 != 0)).any(dim=0)
        return torch.where(counts_BG, total_BG, torch.nan)

    def _warn_of_unjudged(self, table: RewardTable, real_BG: Tensor) -> None:
        for name, values_BG in zip(table.names, table.values_RBG, strict=True):
            share = unjudged_share(values_BG, real_BG)
            last = self._warned_at.get(name)
            due = last is None or self._calls - last >= self.warn_every
            if share > self.max_unjudged and due:
                self._warned_at[name] = self._calls
                log.warning(
                    "reward %r could not judge %.0f %% of this batch (reward.max_unjudged is "
                    "%.0f %%): it teaches nothing there",
                    name,
                    100 * share,
                    100 * self.max_unjudged,
                )


class ShuffledReward(WeightedReward):
    """The control: a group's rewards are permuted at random over its candidates.

    They keep their distribution and carry no signal.  Groups of one candidate (held-out queries)
    keep their true reward; padding candidates, which stand at the end, stay there.
    """

    def score(self, queries: Sequence[Query], actions: Actions) -> RewardTable:
        table = super().score(queries, actions)
        if actions.num_candidates == 1:
            return table
        padding_BG = ~actions.mask_BGT.any(dim=-1).cpu()
        order_BG = (torch.rand(table.total_BG.shape) + padding_BG).argsort(dim=-1)
        values_RBG = table.values_RBG.gather(-1, order_BG.expand_as(table.values_RBG))
        return RewardTable(table.names, values_RBG, table.total_BG.gather(-1, order_BG))


def reward_stats(table: RewardTable, real_BG: Tensor | None = None) -> dict[str, float]:
    """Mean (`name`), deviation (`name_std`) and unjudged share (`name_unjudged`) of every reward.

    Args:
        table: rewards of a batch.
        real_BG: False on padding candidates, which count nowhere.

    Returns:
        Numbers over the judged candidates of the whole batch, `total` among the names; the mean and
        deviation (unbiased, 0 for one value) are NaN where nothing was judged.
    """
    stats = {}
    rows = [*zip(table.names, table.values_RBG, strict=True), ("total", table.total_BG)]
    for name, values_BG in rows:
        if real_BG is None:
            real_BG = torch.ones_like(values_BG, dtype=torch.bool)
        judged = values_BG[~values_BG.isnan() & real_BG]
        some = judged.numel() > 0
        stats[name] = judged.mean().item() if some else math.nan
        spread = judged.std().item() if judged.numel() > 1 else 0.0
        stats[f"{name}_std"] = spread if some else math.nan
        stats[f"{name}_unjudged"] = unjudged_share(values_BG, real_BG)
    return stats


def rollout_stats(table: RewardTable, actions: Actions) -> dict[str, float]:
    """Name what the log says of fresh candidates: rewards, length, truncation and entropy."""
    rewards = reward_stats(table, actions.mask_BGT.any(-1).cpu())
    stats = {f"reward/{name}": value for name, value in rewards.items()}
    stats["rollout/length"] = actions.mask_BGT.sum(-1).float().mean().item()
    if actions.truncated_BG is not None:
        stats["rollout/truncated_share"] = actions.truncated_BG.float().mean().item()
    if actions.logp_BGT is not None:
        # Monte Carlo estimate of the entropy a step, in nats.
        stats["rollout/entropy"] = -masked_mean(actions.logp_BGT, actions.mask_BGT).item()
    return stats


def unjudged_share(values_BG: Tensor, real_BG: Tensor) -> float:
    """Share of the real candidates whose value is NaN; 0 where there is none."""
    return ((values_BG.isnan() & real_BG).sum() / real_BG.sum().clamp(min=1)).item()


def _check_names(
    functions: Mapping[str, Reward], weights: Mapping[str, float], spans: Mapping[str, str]
) -> None:
    if not functions:
        raise ValueError("reward.functions={}: expected at least one reward function")
    missing = sorted(set(functions) - set(weights))
    if missing:
        raise ValueError(
            f"reward.weights: no weight for {missing}; give one, or 0 to only watch the reward"
        )
    for field, names in (("weights", weights), ("spans", spans)):
        unknown = sorted(set(names) - set(functions))
        if unknown:
            raise ValueError(
                f"reward.{field}={unknown}: expected names of reward functions, "
                f"which are {sorted(functions)}"
            )
    for name, weight in weights.items():
        if not math.isfinite(weight):
            raise ValueError(f"reward.weights.{name}={weight}: expected a finite number")


def _instantiate(name: str, node: object) -> Reward:
    if isinstance(node, Mapping):
        # Imported here: Hydra is needed only for runs that are configured by it.
        from hydra.utils import instantiate

        node = instantiate(dict(node))
    if callable(node):
        return cast("Reward", node)
    raise ValueError(
        f"reward.functions.{name}={node!r}: expected a callable or a node with `_target_` "
        "(and `_partial_: true` where the target is the function itself)"
    )


@contextmanager
def _no_exit(name: str) -> Iterator[None]:
    """Make sys.exit in a reward an error: it would end the run as if that were its end."""
    try:
        yield
    except SystemExit as left:
        raise RuntimeError(f"reward {name!r} called sys.exit({left.code!r})") from left


def _is_async(function: Reward) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        type(function).__call__
    )


def _wait_for(work: Coroutine[Any, Any, list[Values]]) -> list[Values]:
    """Run a coroutine to its end, also when the caller stands inside a running event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(asyncio.run, work).result()


def _tensor(name: str, values: Values, shape: tuple[int, int], ends: tuple[float, ...]) -> Tensor:
    if len(values) != shape[0] or any(len(row) != shape[1] for row in values):
        raise ValueError(
            f"reward {name!r} returned rows of {[len(row) for row in values]} values: expected "
            f"{shape[0]} rows (queries) of {shape[1]} (candidates)"
        )
    told = [
        [math.nan if value is None else _number(name, value, ends) for value in row]
        for row in values
    ]
    return torch.tensor(told, dtype=torch.float32).view(shape)


def _number(name: str, value: Any, ends: tuple[float, ...]) -> float:
    low, high = ends
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    # A value that is a sum of rounded parts may pass the end by a little.
    slack = 1e-6 * max(1.0, abs(low), abs(high))
    if not low - slack <= number <= high + slack:  # NaN is in no range
        raise ValueError(
            f"reward {name!r} returned {value!r}: expected None or a finite number from {low:g} to "
            f"{high:g}; mend the function, or set reward.ranges.{name}=[LOWEST,HIGHEST]"
        )
    return number
