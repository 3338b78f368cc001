"""Settings of the loss: ratio, clipping, reduction, advantages, KL; no torch in here."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from core_rl.config import require, require_least, require_positive


class Reduction(Enum):
    """How token losses become one number; names as in the literature.

    Candidates and tokens are those that learn in the whole optimiser step, over its micro-batches
    and processes.
    """

    grpo = "grpo"  # mean over tokens of a candidate, then over candidates
    bnpo = "bnpo"  # mean over all tokens
    dr_grpo = "dr_grpo"  # sum over tokens / (candidates * maximal length)
    dapo = "dapo"  # mean over all tokens, as bnpo


class RatioLevel(Enum):
    """Where the importance ratio is taken."""

    token = "token"
    sequence = "sequence"  # GSPO: exp of the mean log-ratio over the candidate's tokens
    sequence_sum = "sequence_sum"  # exp of the summed log-ratio: exact for a slate reward


class Objective(Enum):
    """Surrogate of the GRPO phase."""

    clip = "clip"
    cispo = "cispo"


class AdvantageKind(Enum):
    """How rewards become advantages inside a group."""

    zscore = "zscore"
    mean = "mean"
    rank = "rank"
    leave_one_out = "leave_one_out"


class Normalise(Enum):
    """Whether advantages are taken of the weighted sum or of each reward before weighing."""

    sum = "sum"
    each = "each"


class KLKind(Enum):
    """Estimator of the KL term."""

    k1 = "k1"
    k2 = "k2"
    k3 = "k3"
    exact = "exact"  # over all options of a step; needs a policy that returns them


class MismatchLevel(Enum):
    """Whether the engine's probabilities are corrected step by step or for whole candidates."""

    token = "token"
    sequence = "sequence"


class OverCap(Enum):
    """What happens to importance weights above the cap."""

    truncate = "truncate"
    mask = "mask"


class FlatGroups(Enum):
    """What to do with groups whose rewards are all equal."""

    drop = "drop"
    # Draw the whole batch again while all its groups are flat, at most `max_resamples` times.  The
    # questions stay the same: DAPO's dynamic sampling goes on to others until the batch is full.
    resample = "resample"


@dataclass
class AdvantageConfig:
    """Rewards of a group to advantages."""

    kind: AdvantageKind = AdvantageKind.zscore
    normalise: Normalise = Normalise.sum
    # Smallest standard deviation divided by, per reward type; `default` for those not named.
    std_floor: dict[str, float] = field(default_factory=lambda: {"default": 0.1})
    clip: float = 5.0  # of the advantage by one reward before its weight, or of the sum's z-score
    flat_groups: FlatGroups = FlatGroups.drop
    max_resamples: int = 2

    def __post_init__(self) -> None:
        require_positive("loss.advantage", self, "clip")
        require_least("loss.advantage", self, 0, "max_resamples")
        for name, floor in self.std_floor.items():
            require(floor > 0, f"loss.advantage.std_floor.{name}", floor, "above 0")


@dataclass
class KLConfig:
    """The KL term against the policy at the start of the phase, and its controller."""

    kind: KLKind = KLKind.k3
    weight: float = 0.04
    adaptive: bool = False  # the weight follows KL
    low: float = 0.01
    high: float = 0.1
    factor: float = 1.5
    ema: float = 0.9
    every: int = 10  # optimiser steps between two changes of the weight
    # Limits of the weight, and of the temperature below; a start beyond one is the limit instead.
    weight_min: float = 1e-3
    weight_max: float = 10.0
    # Sampling temperature that follows KL: lower when the policy drifts, higher when it stalls.
    # KL is then measured at temperature 1, which costs two more scorings a step.
    follow_temperature: bool = False
    temperature_min: float = 0.7
    temperature_max: float = 1.3

    def __post_init__(self) -> None:
        require_least("loss.kl", self, 0, "weight")
        needed = self.adaptive or self.follow_temperature
        expected = (
            "above 0 with loss.kl.adaptive or loss.kl.follow_temperature: without the KL term "
            "nothing measures KL"
        )
        require(self.weight > 0 or not needed, "loss.kl.weight", self.weight, expected)
        require(0 < self.low < self.high, "loss.kl.low", self.low, f"between 0 and {self.high}")
        require(self.factor > 1, "loss.kl.factor", self.factor, "above 1")
        require(0 <= self.ema < 1, "loss.kl.ema", self.ema, "from 0 to below 1")
        require_least("loss.kl", self, 1, "every")
        for name in ("weight", "temperature"):
            least, most = getattr(self, f"{name}_min"), getattr(self, f"{name}_max")
            expected = f"above 0 and at most {most}"
            require(0 < least <= most, f"loss.kl.{name}_min", least, expected)


@dataclass
class MismatchConfig:
    """Importance weights for what an engine drew with slightly other probabilities."""

    level: MismatchLevel = MismatchLevel.token
    over_cap: OverCap = OverCap.truncate
    cap: float = 2.0

    def __post_init__(self) -> None:
        require_least("loss.mismatch", self, 1, "cap")


@dataclass
class LossConfig:
    """The objective of the GRPO phases."""

    objective: Objective = Objective.clip
    ratio_level: RatioLevel = RatioLevel.token
    eps_low: float = 0.2
    eps_high: float = 0.2
    dual_clip: float | None = None  # bound on the ratio for A < 0; 3 is usual
    reduction: Reduction = Reduction.bnpo
    mask_truncated: bool = False  # leave out candidates that the length limit cut
    advantage: AdvantageConfig = field(default_factory=AdvantageConfig)
    kl: KLConfig = field(default_factory=KLConfig)
    mismatch: MismatchConfig = field(default_factory=MismatchConfig)  # of rollout.engine

    def __post_init__(self) -> None:
        require(0 < self.eps_low < 1, "loss.eps_low", self.eps_low, "between 0 and 1")
        require_positive("loss", self, "eps_high")
        clip = self.dual_clip
        require(clip is None or clip > 1, "loss.dual_clip", clip, "null or above 1")
