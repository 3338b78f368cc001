"""Settings of selectors and of how they learn; no torch here, see `core_rl.config`."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from core_rl.config import CurriculumConfig, require


class SelectorKind(Enum):
    """Which selector; see `lever.policy.selectors` and `lever.policy.earlier_selectors`."""

    metric = "metric"  # a diagonal bilinear score a step: a few hundred parameters
    pointer = "pointer"  # cross attention from the query to its pool
    gpt2 = "gpt2"  # a small autoregressive transformer over demonstration ids
    mlp = "mlp"  # two towers and a fixed mixture


class Update(Enum):
    """How the pointer's state takes in a choice."""

    none = "none"  # the state stays: only what is barred depends on the prefix
    gate = "gate"  # g q + (1 - g) c, g = sigmoid(W [q; c])
    gru = "gru"  # a GRU cell


class FeatureKind(Enum):
    """What a selector sees of an item (`features.slate_features`, `policy.neighbours`)."""

    mean = "mean"  # mean of the unit vectors of picture and question, as published
    pca = "pca"  # principal components of each modality side by side
    answers = "answers"  # of those, the directions in which the bank's answers agree
    clip = "clip"  # CLIP at every look-up, with adapters that learn; see `lever.features.clip`


@dataclass
class FeatureConfig:
    """What a selector sees of an item."""

    kind: FeatureKind = FeatureKind.answers
    # Principal components a modality, and the power of the singular value each is scaled to.
    dims: int = 56
    power: float = 0.5
    # Directions a modality that are learned from the bank's answers, and how.
    directions: int = 32
    items: int = 4000  # of the bank at most: time and memory grow with its square
    epochs: int = 15
    lr: float = 0.01
    weight_decay: float = 1.0  # what keeps them from learning the bank by heart
    batch_size: int = 250
    # clip: local folder or hub id, rank and scale of the adapters.
    path: str | None = None
    lora_rank: int = 16
    lora_alpha: int = 32

    def __post_init__(self) -> None:
        require(
            self.path is not None or self.kind is not FeatureKind.clip,
            "model.features.path",
            self.path,
            "a local folder or a hub id of CLIP",
        )
        for name in ("dims", "directions", "items", "epochs", "lora_rank", "lora_alpha"):
            value = getattr(self, name)
            require(value >= 1, f"model.features.{name}", value, "at least 1")
        require(self.batch_size >= 2, "model.features.batch_size", self.batch_size, "at least 2")
        require(self.lr > 0, "model.features.lr", self.lr, "above 0")
        require(
            self.weight_decay >= 0, "model.features.weight_decay", self.weight_decay, "0 or more"
        )
        require(
            self.directions <= self.dims,
            "model.features.directions",
            self.directions,
            f"at most the model.features.dims={self.dims} they are taken from",
        )


@dataclass
class LeverModelConfig:
    """The selector."""

    name: str = "lever_metric"
    kind: SelectorKind = SelectorKind.metric
    shots: int = 2  # demonstrations in a slate
    features: FeatureConfig = field(default_factory=FeatureConfig)
    # metric: sharpness at the start.
    scale: float = 10.0
    # pointer, gpt2, mlp: width, layers, heads (gpt2), and the temperature of the cosines.
    width: int = 256
    layers: int = 1
    heads: int = 4
    cosine_temperature: float = 0.1
    # pointer: how a choice changes the state, a learned penalty on likeness, stopping early.
    update: Update = Update.gate
    diversity: bool = False
    stop: bool = False
    # Learning: the rate, which each phase scales, and queries a step.
    lr: float = 0.03
    batch_size: int = 32

    def __post_init__(self) -> None:
        require(1 <= self.shots <= 8, "model.shots", self.shots, "from 1 to 8")
        for name in ("width", "layers", "heads", "batch_size"):
            require(getattr(self, name) >= 1, f"model.{name}", getattr(self, name), "at least 1")
        for name in ("scale", "cosine_temperature", "lr"):
            require(getattr(self, name) > 0, f"model.{name}", getattr(self, name), "above 0")
        require(
            self.width % self.heads == 0,
            "model.heads",
            self.heads,
            f"a divisor of model.width={self.width}",
        )
        require(
            not self.stop or self.kind is SelectorKind.pointer,
            "model.stop",
            self.stop,
            "false: only the pointer can stop",
        )


class PhaseData(Enum):
    """What a phase of `curriculum` learns from: the values of its `data`."""

    beams = "beams"  # beam data, all beams of a query alike: supervision
    beam_scores = "beam_scores"  # beam data, weighed by their InfoScore
    stored = "stored"  # RL data, weighed by the reward
    fresh = "fresh"  # drawn from the policy and judged while it learns


class Best(Enum):
    """Which checkpoint is kept as the result."""

    auto = "auto"  # drawn where the last phase is GRPO, else reward
    # Largest held-out reward of slates that are drawn: what GRPO climbs, and less noisy than the
    # next: on a hundred queries a point of that is one query, and a real gain is hardly more.
    drawn = "drawn"
    reward = "reward"  # largest held-out reward of the most probable slates
    kl = "kl"  # smallest KL of a pass: the published rule; it favours what learned least
    last = "last"


@dataclass
class LearnConfig:
    """One training: what it starts from, reads and keeps."""

    # Inputs; null = of the same settings, made where they are missing.
    beam_data: str | None = None
    val_beam_data: str | None = None  # of the held-out queries, for the validation loss
    rl_data: str | None = None
    # The selector to start from; null = untrained for supervision, else the supervised one.
    checkpoint: str | None = None
    freeze_backbone_in_grpo: bool = False  # of the pointer: train its heads alone
    max_samples: int | None = None  # queries to learn from, a random draw; null = all
    best: Best = Best.auto
    dry_run: bool = False  # read everything, one update of each phase, no checkpoint

    def __post_init__(self) -> None:
        require(
            self.max_samples is None or self.max_samples >= 1,
            "learn.max_samples",
            self.max_samples,
            "null or at least 1",
        )


class ChooseFrom(Enum):
    """Which queries inference is run on."""

    val = "val"
    test = "test"


@dataclass
class ChooseConfig:
    """Inference: which selector, how many demonstrations, how answers are judged."""

    checkpoint: str | None = None  # null = the untrained selector
    shots: list[int] = field(default_factory=lambda: [1, 2, 3, 4])
    split: ChooseFrom = ChooseFrom.test
    simple_match: bool = False  # exact 1, in part .5, instead of the official rule
    results: str | None = None  # a results file in the official format, scored instead of answering
    query: int | None = None  # of `+exp=lever_pick`; null = the first of the split

    def __post_init__(self) -> None:
        ok = len(self.shots) > 0 and all(1 <= shots <= 8 for shots in self.shots)
        require(ok, "choose.shots", self.shots, "at least one number, each from 1 to 8")


@dataclass
class PipelineConfig:
    """The trainings of the whole pipeline, in order, and what stands beside them in the table."""

    sft: CurriculumConfig = field(default_factory=CurriculumConfig)
    rce: CurriculumConfig = field(default_factory=CurriculumConfig)
    offline: CurriculumConfig = field(default_factory=CurriculumConfig)  # GRPO on RL data
    refresh: CurriculumConfig = field(default_factory=CurriculumConfig)  # GRPO on fresh slates
    # Rows of the table that need trainings of their own; see `lever.learning.trained_methods.ARMS`.
    arms: list[str] = field(default_factory=list)
    # Selectors that come from elsewhere; null = the stage is done, or was.  Data: see `learn`.
    sft_checkpoint: str | None = None
    rce_checkpoint: str | None = None
