"""The KL term: its estimators, what each is good for, and the controller of its weight.

All estimate KL(pi || ref), the reverse direction, from steps drawn by pi.  With
d = log pi - log ref at the chosen option (Schulman, "Approximating KL divergence", 2020):

    k1 = d                  unbiased, may be negative
    k2 = d^2 / 2            biased, >= 0
    k3 = exp(-d) + d - 1    unbiased, >= 0, low variance
    exact = sum_k pi_k (log pi_k - log ref_k)    over all options of the step

A good value is not a good gradient.  Differentiated as a loss on steps that pi itself drew, in
expectation k1 gives 0, k2 the gradient of KL(pi || ref), k3 that of KL(ref || pi) (the forward,
mass-covering direction), exact that of KL(pi || ref).  Multiplied by the importance ratio with its
graph (`ratio_BGT`), k1 and k3 give the gradient of KL(pi || ref) too, and stay unbiased on steps
that an older policy drew; see arXiv 2510.01555 and TRL's `use_bias_correction_kl`.

Each is taken at the prefixes that were visited; what a step does to the KL of later steps is not
followed.  On stored candidates (beams, retrieval) nobody drew from pi, so k1, k2 and k3 estimate
nothing: use `exact` there.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from core_rl.loss_config import KLConfig, KLKind
from core_rl.types import StepLogProbs

log = logging.getLogger(__name__)

MAX_LOG_RATIO = (
    20.0  # as in `core_rl.objective.losses`: one broken step must not make the term infinite
)
TEMPERATURE_STEP = 1.05  # factor of one move of the sampling temperature; it acts on every draw


def kl_per_step(
    scores: StepLogProbs,
    ref: StepLogProbs,
    kind: KLKind,
    mask_BGT: Tensor | None = None,
    ratio_BGT: Tensor | None = None,
) -> Tensor:
    """KL(pi || ref) of every step, in nats, with a graph.

    Args:
        scores: under the policy being trained; `exact` needs the log-probabilities of all options,
            -inf on those that are masked out.
        ref: the same under the reference, with the same options masked out; an option that the
            policy can choose and the reference cannot makes the step infinite.
        kind: the estimator.
        mask_BGT: steps outside are 0 and get no gradient, whatever stands there.
        ratio_BGT: token importance ratio with its graph, for k1 and k3 (see above).

    Returns:
        BGT; add it up with `core_rl.objective.losses.sum_steps`, as the policy loss.
    """
    if kind is KLKind.exact:
        assert scores.all_logp_BGTK is not None, "exact KL needs a policy's all_logp_BGTK"
        assert ref.all_logp_BGTK is not None, "exact KL needs the reference's all_logp_BGTK"
        return _exact(scores.all_logp_BGTK, ref.all_logp_BGTK, mask_BGT)
    difference_BGT = scores.logp_BGT - ref.logp_BGT
    if mask_BGT is not None:
        # Before any function: the gradient of exp at inf is not undone by a later mask.
        difference_BGT = torch.where(mask_BGT, difference_BGT, 0.0)
    difference_BGT = difference_BGT.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    if kind is KLKind.k1:
        kl_BGT = difference_BGT
    elif kind is KLKind.k2:
        kl_BGT = 0.5 * difference_BGT.square()
    else:
        assert kind is KLKind.k3, kind
        kl_BGT = torch.exp(-difference_BGT) + difference_BGT - 1
    return kl_BGT if ratio_BGT is None else kl_BGT * ratio_BGT


def _exact(logp_BGTK: Tensor, ref_BGTK: Tensor, mask_BGT: Tensor | None) -> Tensor:
    possible_BGTK = logp_BGTK > -torch.inf
    if mask_BGT is not None:
        possible_BGTK = possible_BGTK & mask_BGT.unsqueeze(-1)
    # 0 log 0 = 0; replaced before the arithmetic so that no gradient meets inf * 0.
    logp_BGTK = torch.where(possible_BGTK, logp_BGTK, 0.0)
    ref_BGTK = torch.where(possible_BGTK, ref_BGTK, 0.0)
    terms_BGTK = torch.where(possible_BGTK, logp_BGTK.exp() * (logp_BGTK - ref_BGTK), 0.0)
    return terms_BGTK.sum(dim=-1)


class KLController(nn.Module):
    """Weight of the KL term, and optionally the sampling temperature, following the measured KL.

    Where the temperature follows, KL has to be measured at a fixed one: KL of colder distributions
    is larger, so a temperature that falls with KL would raise what it follows.

    The smoothed KL decides every `cfg.every` optimiser steps: above `high` the weight grows by
    `factor` (and the temperature falls), below `low` it shrinks (and the temperature rises); both
    are clamped.  `observe` belongs into a training step and moves nothing; `step` belongs between
    two optimiser steps, so that all micro-batches of one share one weight.

    State lives in buffers, so checkpoints and DistributedDataParallel carry it.

    Args:
        cfg: band, factor, smoothing, limits.  `weight` 0 means no KL term.
        temperature: sampling temperature to start from.

    Attributes:
        seen: since the last optimiser step, on this rank: the sum of KL * size and that of sizes.
    """

    weight: Tensor
    ema: Tensor
    temperature: Tensor
    updates: Tensor
    last_step: Tensor
    seen: Tensor

    def __init__(self, cfg: KLConfig, temperature: float = 1.0) -> None:
        super().__init__()
        self.cfg = cfg
        self.first_temperature = temperature
        self.register_buffer("weight", torch.tensor(cfg.weight))
        self.register_buffer("ema", torch.tensor(0.0))
        self.register_buffer("temperature", torch.tensor(temperature))
        self.register_buffer("updates", torch.tensor(0))
        self.register_buffer("last_step", torch.tensor(0))
        # No buffer: DistributedDataParallel would overwrite
        # what this rank has seen with rank 0's at every micro-batch.
        self.seen = torch.zeros(2)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> KLController:
        """Follow a move to another device and keep float32: bf16 would round the average away."""
        kept = dict(self.named_buffers())
        super()._apply(fn, recurse)
        for name, buffer in kept.items():
            setattr(self, name, buffer.to(getattr(self, name).device))
        return self

    def observe(self, kl: Tensor, size: float | Tensor = 1.0) -> None:
        """Note the mean KL of one micro-batch; `size` is its weight, 0 where no group learned."""
        noted = torch.stack([kl.detach() * size, torch.as_tensor(size).to(kl)]).float()
        self.seen = self.seen.to(noted.device) + noted

    def observed(self) -> tuple[Tensor, Tensor]:
        """Mean KL of all ranks since the last optimiser step, and its size, as `observe` has it."""
        noted = self.seen.to(self.weight.device, copy=True)
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(noted)  # every rank must hold the same weight
        return noted[0] / noted[1].clamp(min=1e-9), noted[1]

    def step(self, global_step: int) -> bool:
        """Act on what was observed since the last optimiser step, averaged over ranks.

        Args:
            global_step: optimiser steps made so far.  Nothing happens until it has grown, so the
                call may stand at the start of every micro-batch.

        Returns:
            True if the weight or the temperature changed.
        """
        if global_step <= int(self.last_step):
            return False
        self.last_step.fill_(global_step)
        kl, size = self.observed()
        self.seen = torch.zeros(2)
        return self.update(kl) if size > 0 else False

    def update(self, kl: float | Tensor) -> bool:
        """Take in the mean KL of one optimiser step; `step` does so from what was observed.

        Args:
            kl: nats a step (or a candidate: the band must be in the same unit), averaged over
                micro-batches and ranks.  A value that is not finite is reported and ignored.

        Returns:
            True if the weight or the temperature changed.
        """
        value = float(kl)
        if not math.isfinite(value):
            log.warning("KL of this step is %s; the controller ignores it", value)
            return False
        seen = int(self.updates)
        # The first value starts the average; a start at 0 would read as "no drift" for long.
        ema = value if seen == 0 else self.cfg.ema * float(self.ema) + (1 - self.cfg.ema) * value
        self.ema.fill_(ema)
        self.updates.fill_(seen + 1)
        if (seen + 1) % self.cfg.every:
            return False
        direction = int(ema > self.cfg.high) - int(ema < self.cfg.low)
        return self._move_weight(direction) | self._move_temperature(direction)

    def restart(self) -> None:
        """Forget the smoothed KL: a new phase has a new reference.  Weight and temperature stay."""
        self.ema.zero_()
        self.updates.zero_()
        self.seen = torch.zeros(2)

    def _move_weight(self, direction: int) -> bool:
        if not self.cfg.adaptive:
            return False
        limits = self.cfg.weight_min, self.cfg.weight_max
        return _move(self.weight, self.cfg.factor**direction, limits, self.cfg.weight)

    def _move_temperature(self, direction: int) -> bool:
        if not self.cfg.follow_temperature:
            return False
        limits = self.cfg.temperature_min, self.cfg.temperature_max
        return _move(self.temperature, TEMPERATURE_STEP**-direction, limits, self.first_temperature)


def _move(value: Tensor, factor: float, limits: tuple[float, float], first: float) -> bool:
    """Multiply in place, within limits that hold the first value; tell whether it changed."""
    before = float(value)
    value.fill_(min(max(before * factor, min(limits[0], first)), max(limits[1], first)))
    return float(value) != before
