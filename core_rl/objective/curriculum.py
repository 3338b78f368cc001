"""Phases of training in optimiser steps, and which stored candidates a phase learns from.

The published curriculum learns first from the k best candidates by reward.  Among a dozen stored
candidates those often have one and the same reward: the group goes flat and carries no gradient.
`contrast` (best, median, worst) keeps the spread; `top_k` stays available and warns when it loses
it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from core_rl.config import CurriculumConfig, PhaseConfig, Subset
from core_rl.objective.advantages import FLAT_SPREAD, is_mixed
from core_rl.types import Actions, RewardTable

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Phase:
    """One phase on the axis of optimiser steps: the half-open range [start, end)."""

    index: int
    config: PhaseConfig
    start: int
    end: int

    @property
    def steps(self) -> int:
        return self.end - self.start

    def tau(self, step: int) -> float:
        """RCE's temperature at a step: linear, `tau_start` at the first, `tau_end` at the last."""
        done = (step - self.start) / max(self.steps - 1, 1)
        return self.config.tau_start + done * (self.config.tau_end - self.config.tau_start)


@dataclass(frozen=True)
class Curriculum:
    """The phases in order, without gaps; make one with `Curriculum.resolve`."""

    phases: tuple[Phase, ...]

    @classmethod
    def resolve(
        cls,
        cfg: CurriculumConfig,
        steps_per_epoch: int | Sequence[int],
        max_steps: int | None = None,
    ) -> Curriculum:
        """Lay the phases out on optimiser steps.

        Args:
            cfg: phases with `steps`, or with `epochs` where `steps` is null.
            steps_per_epoch: optimiser steps of one pass over the data (repeated updates of one
                rollout included), one number or one a phase.
            max_steps: if the phases are longer in sum, they are shortened in proportion, so that a
                short run still goes through every phase.

        Raises:
            ValueError: `steps_per_epoch` has another length than the phases or is below 1, or
                `max_steps` leaves a phase without a step.
        """
        count = len(cfg.phases)
        per_epoch = (
            [steps_per_epoch] * count if isinstance(steps_per_epoch, int) else steps_per_epoch
        )
        if len(per_epoch) != count or any(steps < 1 for steps in per_epoch):
            raise ValueError(
                f"steps_per_epoch={steps_per_epoch!r}: expected a number from 1 for each of "
                f"{count} phases; is a data source empty or smaller than one batch?"
            )
        lengths = [
            phase.steps if phase.steps is not None else _steps(phase.epochs, per_pass)
            for phase, per_pass in zip(cfg.phases, per_epoch, strict=True)
        ]
        if max_steps is not None and max_steps < sum(lengths):
            lengths = _shorten(lengths, max_steps)
        phases, start = [], 0
        for index, (config, length) in enumerate(zip(cfg.phases, lengths, strict=True)):
            phases.append(Phase(index, config, start, start + length))
            start += length
        return cls(tuple(phases))

    @property
    def total_steps(self) -> int:
        return self.phases[-1].end

    def phase_at(self, step: int) -> Phase:
        """Return the phase that optimiser step `step` (from 0) belongs to.

        Raises:
            IndexError: the step is negative or past the last phase.
        """
        for phase in self.phases:
            if phase.start <= step < phase.end:
                return phase
        raise IndexError(f"step {step} is outside the curriculum of {self.total_steps} steps")


def _steps(epochs: float, per_epoch: int) -> int:
    # The small number keeps .1 * 30 = 3.0000000000000004 from becoming 4 steps.
    return max(1, math.ceil(epochs * per_epoch - 1e-9))


def _shorten(lengths: Sequence[int], budget: int) -> list[int]:
    """Shares of `budget` in proportion to `lengths`, at least 1 each, by largest remainder."""
    if budget < len(lengths):
        raise ValueError(
            f"trainer.max_steps={budget}: expected at least {len(lengths)}, a step for each phase"
        )
    spare = budget - len(lengths)
    ideal = [spare * length / sum(lengths) for length in lengths]
    shares = [math.floor(part) for part in ideal]
    by_remainder = sorted(range(len(lengths)), key=lambda i: (shares[i] - ideal[i], i))
    for i in by_remainder[: spare - sum(shares)]:
        shares[i] += 1
    return [1 + share for share in shares]


class CandidateSubset:
    """Keep the candidates of each query that a phase learns from.

    Args:
        subset: all, the `top_k` best by total reward, or best, median and worst.
        top_k: how many for `top_k`.
        warn_every: calls between two warnings that `top_k` flattens groups.
    """

    def __init__(self, subset: Subset, top_k: int = 3, warn_every: int = 100) -> None:
        self.subset = subset
        self.top_k = top_k
        self.warn_every = warn_every
        self._calls = 0
        self._warned_at: int | None = None

    @classmethod
    def of_phase(cls, phase: PhaseConfig) -> CandidateSubset:
        return cls(phase.subset, phase.top_k)

    def __call__(self, actions: Actions, rewards: RewardTable) -> tuple[Actions, RewardTable]:
        """Return the kept candidates and their rewards, best first.

        Padding candidates and those without a total come last; where a query has fewer candidates
        than are asked for, the rest is padding (mask False).
        """
        self._calls += 1
        if self.subset is Subset.all:
            return actions, rewards
        judged_BG = actions.mask_BGT.any(dim=-1) & ~rewards.total_BG.isnan()
        index_BC, keep_BC = choose(rewards.total_BG, judged_BG, self.subset, self.top_k)
        kept = take_candidates(actions, index_BC, keep_BC)
        table = RewardTable(
            names=rewards.names,
            values_RBG=rewards.values_RBG.gather(
                2, index_BC.expand(len(rewards.names), *index_BC.shape)
            ),
            total_BG=rewards.total_BG.gather(1, index_BC),
        )
        if self.subset is Subset.top_k:
            before_B = is_mixed(rewards.total_BG, judged_BG)
            self._warn_if_flat(before_B, is_mixed(table.total_BG, keep_BC))
        return kept, table

    def _warn_if_flat(self, before_B: Tensor, after_B: Tensor) -> None:
        lost = int((before_B & ~after_B).sum())
        due = self._warned_at is None or self._calls - self._warned_at >= self.warn_every
        if lost == 0 or not due:
            return
        self._warned_at = self._calls
        log.warning(
            "the %d best candidates by reward are all alike in %d of %d groups that had contrast; "
            "those teach nothing. subset=contrast keeps best, median and worst",
            self.top_k,
            lost,
            int(before_B.sum()),
        )


def choose(
    total_BG: Tensor, judged_BG: Tensor, subset: Subset, top_k: int
) -> tuple[Tensor, Tensor]:
    """Choose C candidates a query by total reward.

    Returns:
        Indices BC into G, best first, and a mask BC that is False where a query had no further
        candidate to choose.  Equal ones stand in random order (torch's own generator, which a run
        seeds): a store keeps its candidates by kind, and its order would favour the first kind.
    """
    # Whole numbers of the smallest spread: what floating point leaves of a tie is a tie.
    key_BG = (total_BG.double() / FLAT_SPREAD).round().masked_fill(~judged_BG, -torch.inf)
    shuffle_BG = torch.rand_like(key_BG).argsort(dim=-1)
    by_key_BG = key_BG.gather(1, shuffle_BG).argsort(dim=-1, descending=True, stable=True)
    order_BG = shuffle_BG.gather(1, by_key_BG)
    count_B1 = judged_BG.sum(dim=-1, keepdim=True)
    if subset is Subset.top_k:
        place_BC = torch.arange(min(top_k, total_BG.shape[1]), device=total_BG.device)
        place_BC = place_BC.expand(total_BG.shape[0], -1)
        return order_BG.gather(1, place_BC), place_BC < count_B1
    assert subset is Subset.contrast, subset
    # Of one or two candidates median and worst coincide with another: kept once.
    last_B1 = (count_B1 - 1).clamp(min=0)
    place_BC = torch.cat([torch.zeros_like(last_B1), (last_B1 + 1) // 2, last_B1], dim=-1)
    repeated_BC = torch.cat([count_B1 == 0, place_BC[:, 1:] == place_BC[:, :-1]], dim=-1)
    return order_BG.gather(1, place_BC), ~repeated_BC


def take_candidates(actions: Actions, index_BC: Tensor, keep_BC: Tensor) -> Actions:
    """Return the candidates at `index_BC`; those where `keep_BC` is False become padding."""
    index_BCT = index_BC.unsqueeze(-1).expand(-1, -1, actions.mask_BGT.shape[-1])

    def take(values_BGT: Tensor) -> Tensor:
        return values_BGT.gather(1, index_BCT)

    texts = tuple(
        tuple(row[i] for i in chosen)
        for row, chosen in zip(actions.texts, index_BC.tolist(), strict=False)
    )
    cut_BG = actions.truncated_BG
    return replace(
        actions,
        ids_BGT=take(actions.ids_BGT),
        mask_BGT=take(actions.mask_BGT) & keep_BC.unsqueeze(-1),
        logp_BGT=None if actions.logp_BGT is None else take(actions.logp_BGT),
        truncated_BG=None if cut_BG is None else cut_BG.gather(1, index_BC),
        texts=texts,
        spans={name: take(span_BGT) for name, span_BGT in actions.spans.items()},
        engine_logp_BGT=None if actions.engine_logp_BGT is None else take(actions.engine_logp_BGT),
        share_BG=None if actions.share_BG is None else actions.share_BG.gather(1, index_BC),
    )
