"""Settings of selectors and of their training.  No torch, as in `core_rl.config`."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from core_rl.config import CurriculumConfig, require, require_least, require_positive
from lever.generation_config import Split


class SelectorKind(Enum):
    """The selector; see `lever.policy.selectors` and `lever.policy.earlier_selectors`."""

    metric = "metric"  # a diagonal bilinear score at each step: a few hundred parameters
    pointer = "pointer"  # cross attention from the query to its pool
    gpt2 = "gpt2"  # a small autoregressive transformer over demonstration ids
    mlp = "mlp"  # two towers and a fixed mixture


class Update(Enum):
    """How a choice updates the pointer's state."""

    none = "none"  # no update: the prefix only bars what was chosen
    gate = "gate"  # g q + (1 - g) c, g = sigmoid(W [q; c])
    gru = "gru"  # a GRU cell


class FeatureKind(Enum):
    """The features of an item (`features.slate_features`, `policy.neighbours`)."""

    mean = "mean"  # mean of the unit vectors of picture and question, as published
    pca = "pca"  # principal components of each modality side by side
    answers = "answers"  # neighbourhood components of those, learned from the bank's answers
    clip = "clip"  # CLIP at every look-up, with trained adapters; see `policy.live_features`


@dataclass
class FeatureConfig:
    """The features of an item."""

    kind: FeatureKind = FeatureKind.answers
    # Principal components a modality; each is scaled to its singular value to the given power.
    dims: int = 56
    power: float = 0.5
    # answers: directions a modality, and how they are learned.
    directions: int = 32
    items: int = 4000  # largest number of items; time and memory grow with its square
    epochs: int = 15
    lr: float = 0.01
    weight_decay: float = 1.0  # against overfitting to the bank, which is small
    batch_size: int = 250
    # clip: local folder or hub id; rank and scale of the adapters.
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
        node = "model.features"
        counts = ("dims", "directions", "items", "epochs", "lora_rank", "lora_alpha")
        require_least(node, self, 1, *counts)
        require_least(node, self, 2, "batch_size")
        require_least(node, self, 0, "weight_decay")
        require_positive(node, self, "lr")
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
    scale: float = 10.0  # metric: initial scale of the logits
    # pointer, gpt2, mlp: width, layers, heads (gpt2), temperature of the cosines.
    width: int = 256
    layers: int = 1
    heads: int = 4
    cosine_temperature: float = 0.1
    # pointer: update of the state, learned penalty on similarity to a choice, early stop.
    update: Update = Update.gate
    diversity: bool = False
    stop: bool = False
    # Training: learning rate, which each phase scales, and queries a step.
    lr: float = 0.03
    batch_size: int = 32

    def __post_init__(self) -> None:
        require(1 <= self.shots <= 8, "model.shots", self.shots, "from 1 to 8")
        require_least("model", self, 1, "width", "layers", "heads", "batch_size")
        require_positive("model", self, "scale", "cosine_temperature", "lr")
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
    """The data of a phase: the values of `curriculum.phases.data`."""

    beams = "beams"  # beam data, all beams of a query with equal weight: supervision
    beam_scores = "beam_scores"  # beam data, weighted by InfoScore
    stored = "stored"  # RL data, judged by the reward
    fresh = "fresh"  # sampled from the policy and judged during training


class Best(Enum):
    """The rule that chooses the checkpoint to keep."""

    auto = "auto"  # `drawn` where the last phase is GRPO, else `reward`
    # Highest held-out reward of sampled slates: the objective of GRPO.  Less noisy than `reward`,
    # in which one query of a hundred is a point, about as much as a real gain.
    drawn = "drawn"
    reward = "reward"  # highest held-out reward of the most probable slates
    kl = "kl"  # lowest KL of a pass: the published rule; it prefers the least trained policy
    last = "last"


@dataclass
class LearnConfig:
    """One training: its inputs, its start and the checkpoint it keeps."""

    # Inputs; null = the files of the same settings, generated if missing.
    beam_data: str | None = None
    val_beam_data: str | None = None  # held-out queries, for the validation loss
    rl_data: str | None = None
    # Checkpoint to start from; null = untrained for supervision, else the supervised selector.
    checkpoint: str | None = None
    freeze_backbone_in_grpo: bool = False  # pointer: train only its heads in GRPO phases
    max_samples: int | None = None  # size of a random sample of the training queries; null = all
    best: Best = Best.auto
    dry_run: bool = False  # read everything, one update of each phase, no checkpoint

    def __post_init__(self) -> None:
        require(
            self.max_samples is None or self.max_samples >= 1,
            "learn.max_samples",
            self.max_samples,
            "null or at least 1",
        )


@dataclass
class ChooseConfig:
    """Inference: the selector, the numbers of demonstrations, and how answers are judged."""

    checkpoint: str | None = None  # null = the untrained selector
    shots: list[int] = field(default_factory=lambda: [1, 2, 3, 4])
    split: Split = Split.test  # val or test
    simple_match: bool = False  # 1 for an exact match, .5 for a partial one; not the official rule
    results: str | None = None  # a results file in the official format to score; asks no answerer
    # Stem answers as OK-VQA's annotations are stemmed; published scores differ in whether they do.
    stem_predictions: bool = False
    query: int | None = None  # +exp=lever_pick: id of the question; null = the first of the split

    def __post_init__(self) -> None:
        ok = len(self.shots) > 0 and all(1 <= shots <= 8 for shots in self.shots)
        require(ok, "choose.shots", self.shots, "at least one number, each from 1 to 8")
        held_out = self.split is not Split.train
        require(held_out, "choose.split", self.split.value, "val or test: held-out queries")


@dataclass
class PipelineConfig:
    """The trainings of the whole pipeline, in order, and further rows of its table."""

    sft: CurriculumConfig = field(default_factory=CurriculumConfig)
    rce: CurriculumConfig = field(default_factory=CurriculumConfig)
    offline: CurriculumConfig = field(default_factory=CurriculumConfig)  # GRPO on RL data
    refresh: CurriculumConfig = field(default_factory=CurriculumConfig)  # GRPO on fresh slates
    # Further rows, each with its own training; see `lever.learning.trained_methods.ARMS`.
    arms: list[str] = field(default_factory=list)
    # Checkpoints to use in place of a stage; null = run the stage.  For data see `learn`.
    sft_checkpoint: str | None = None
    rce_checkpoint: str | None = None
