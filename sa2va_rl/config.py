"""Settings of the prompt choice, as plain dataclasses; no torch here (see `core_rl.config`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from core_rl.config import require

# The name of a file up to its last number is the film, the number is the frame.
FILM = r"(.*?)[-_ .]*\d*$"


class RewardMode(Enum):
    """What an action is paid by."""

    reward_net = "reward_net"  # the learned judge alone: needs no truth
    gt_dice = "gt_dice"  # the truth: a reference for what the judge costs
    mix = "mix"


@dataclass
class EnvConfig:
    """How an episode goes and what it pays."""

    reward: RewardMode = RewardMode.reward_net
    dice_share: float = 0.5  # of the truth in `mix`
    max_steps: int = 1
    # Take the mean over all prompts off, per picture: what is left is what the choice is worth.
    # It needs the masks of every prompt, which the cache has after the first pass.
    centre: bool = False
    scale: float = 1.0

    def __post_init__(self) -> None:
        require(0 <= self.dice_share <= 1, "ppo.env.dice_share", self.dice_share, "from 0 to 1")
        require(self.max_steps >= 1, "ppo.env.max_steps", self.max_steps, "at least 1")
        require(self.scale > 0, "ppo.env.scale", self.scale, "above 0")


QUALITIES = ("dice", "iou", "precision", "recall")


@dataclass
class RewardNetConfig:
    """Shape of the reward network and what it learns to predict."""

    side: int = 112  # pixels of the square that picture and mask are brought to
    width: int = 24  # channels of the first layer
    # Weights of the label's parts (dice, iou, precision, recall); they sum to 1.
    label: dict[str, float] = field(default_factory=lambda: {"dice": 1.0})

    def __post_init__(self) -> None:
        require(self.side >= 32, "reward_net.side", self.side, "at least 32")
        require(self.width >= 4, "reward_net.width", self.width, "at least 4")
        known = set(self.label) <= set(QUALITIES) and all(w >= 0 for w in self.label.values())
        require(
            known and abs(sum(self.label.values()) - 1) < 1e-6,
            "reward_net.label",
            self.label,
            f"weights of {', '.join(QUALITIES)}, none negative, that sum to 1",
        )


class Source(Enum):
    """Where pictures come from."""

    generated = "generated"  # `sa2va_rl.data.angiograms`
    annotations = "annotations"  # a list of pictures with polygons
    folders = "folders"  # pictures and masks of the same names


@dataclass
class Sa2VADataConfig:
    """Pictures and their splits, by patient or film."""

    name: str = "sa2va_angiograms"
    source: Source = Source.generated
    # Pictures of each split: drawn, or of files at most so many; null = every one there is.
    train: int | None = 100
    val: int | None = 50
    test: int | None = 100
    # Generated pictures of a range never trained on, as a second test.
    shifted: int = 0
    side: int = 160  # of generated pictures, in pixels
    # Files: `annotations.json`, or the folder of pictures.
    path: str | None = None
    images: str | None = None  # folder of the annotated pictures; null = beside the file
    masks: str | None = None  # folder of masks; null = pictures without masks
    # Folder of pictures without masks that policies learn from beside the training pictures.
    bare: str | None = None
    group: str = FILM  # regular expression whose first bracket is the patient or film
    val_share: float = 0.2  # of groups
    test_share: float = 0.2

    def __post_init__(self) -> None:
        for name in ("train", "val", "test"):
            size = getattr(self, name)
            require(
                size is not None or self.source is not Source.generated,
                f"data_mix.{name}",
                size,
                "a number of pictures to generate",
            )
            require(size is None or size >= 1, f"data_mix.{name}", size, "null or at least 1")
        require(self.shifted >= 0, "data_mix.shifted", self.shifted, "0 or more")
        require(self.side >= 64, "data_mix.side", self.side, "at least 64")
        require(
            self.path is not None or self.source is Source.generated,
            "data_mix.path",
            self.path,
            "a file or folder, as in data_mix.path=FILE",
        )


class SegmenterKind(Enum):
    """Who makes masks."""

    vesselness = "vesselness"  # the embedded one: no weights
    clipseg = "clipseg"
    sam3 = "sam3"
    sa2va = "sa2va"


@dataclass
class Sa2VAModelConfig:
    """The segmenter with its prompts, and what the shared loop asks of the policy that chooses."""

    name: str = "sa2va_vesselness"
    kind: SegmenterKind = SegmenterKind.vesselness
    path: str | None = None  # hub id or folder; none for `vesselness`
    # Sa2VA's checkpoints bring Python code that runs on loading: read it before setting this.
    trust_remote_code: bool = False
    threshold: float | None = None  # of a probability map; null = the segmenter's own
    device: str = "cpu"
    # In the order of the actions; empty = the eleven of `sa2va_rl.prompts`.
    prompts: list[str] = field(default_factory=list)
    # Of the policy on the shared loop (exp=sa2va_grpo).
    lr: float = 3e-3
    batch_size: int = 50
    # A candidate is one choice; the picture is no text.
    max_prompt: int = 1
    max_completion: int = 1

    def __post_init__(self) -> None:
        require(
            self.path is not None or self.kind is SegmenterKind.vesselness,
            "model.path",
            self.path,
            f"a hub id or folder for model.kind={self.kind.value}",
        )
        require(
            self.threshold is None or 0 < self.threshold < 1,
            "model.threshold",
            self.threshold,
            "null or between 0 and 1",
        )
        require(self.lr > 0, "model.lr", self.lr, "above 0")
        require(self.batch_size >= 1, "model.batch_size", self.batch_size, "at least 1")


@dataclass
class RewardFitConfig:
    """How the reward network is trained, or where a trained one is."""

    path: str | None = None  # folder of a trained network; null = train one, once
    lr: float = 4e-3
    epochs: int = 10
    batch_size: int = 32
    weight_decay: float = 1e-2

    def __post_init__(self) -> None:
        require(self.lr > 0, "reward_fit.lr", self.lr, "above 0")
        for name in ("epochs", "batch_size"):
            require(
                getattr(self, name) >= 1, f"reward_fit.{name}", getattr(self, name), "at least 1"
            )
        require(self.weight_decay >= 0, "reward_fit.weight_decay", self.weight_decay, "0 or more")


@dataclass
class PPOConfig:
    """stable-baselines3's PPO.  The defaults are the published run's values (`ppo=seed`)."""

    name: str = "seed"
    total_steps: int = 10_000  # rounded up to whole rollouts
    envs: int = 4
    n_steps: int = 128  # of each environment, between two updates
    lr: float = 3e-4
    batch_size: int = 64
    n_epochs: int = 10
    gamma: float = 0.99
    gae_lambda: float = 0.95
    clip: float = 0.2
    entropy: float = 0.01
    value: float = 0.5
    max_grad_norm: float = 0.5
    hidden: list[int] = field(default_factory=lambda: [128, 64])
    anneal: bool = False  # learning rate falls to 0 over the run
    weight_decay: float = 0.0
    checkpoint_every: int = 1000  # steps
    keep_best: bool = False  # hand out the policy that did best on validation, not the last one
    env: EnvConfig = field(default_factory=EnvConfig)

    def __post_init__(self) -> None:
        for name in ("total_steps", "envs", "n_steps", "n_epochs", "checkpoint_every"):
            require(getattr(self, name) >= 1, f"ppo.{name}", getattr(self, name), "at least 1")
        require(
            2 <= self.batch_size <= self.n_steps * self.envs,
            "ppo.batch_size",
            self.batch_size,
            f"from 2 to n_steps * envs = {self.n_steps * self.envs}",
        )
        require(self.lr > 0, "ppo.lr", self.lr, "above 0")
        require(0 < self.clip < 1, "ppo.clip", self.clip, "between 0 and 1")
        for name in ("gamma", "gae_lambda"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"ppo.{name}", value, "from 0 to 1")
        for name in ("entropy", "value", "weight_decay"):
            require(getattr(self, name) >= 0, f"ppo.{name}", getattr(self, name), "0 or more")
        require(self.max_grad_norm > 0, "ppo.max_grad_norm", self.max_grad_norm, "above 0")
        require(all(w >= 1 for w in self.hidden), "ppo.hidden", self.hidden, "widths of 1 or more")


@dataclass
class SelectorConfig:
    """The policy on the shared loop."""

    hidden: list[int] = field(default_factory=lambda: [128, 64])
    reward: RewardMode = RewardMode.reward_net
    dice_share: float = 0.5  # of the truth in `mix`

    def __post_init__(self) -> None:
        require(
            all(w >= 1 for w in self.hidden), "selector.hidden", self.hidden, "widths of 1 or more"
        )
        require(0 <= self.dice_share <= 1, "selector.dice_share", self.dice_share, "from 0 to 1")


@dataclass
class ScaleConfig:
    """Sizes that go with one preset of the trainer; `conf/scale` holds one for each."""

    train: int = 100
    val: int = 50
    test: int = 100
    reward_epochs: int = 10
    ppo_steps: int = 10_000
    ppo_envs: int = 4
    selector_steps: int = 300
    # Pictures of the comparison, which is made at a size of its own.
    compare_train: int = 300
    compare_val: int = 100
    compare_test: int = 200
    shifted: int = 0
    seeds: list[int] = field(default_factory=lambda: [1])
    workers: int = 1


@dataclass
class CompareSizes:
    """Pictures of the comparison that ends `exp=sa2va`."""

    train: int = 300
    val: int = 100
    test: int = 200

    def __post_init__(self) -> None:
        for name in ("train", "val", "test"):
            value = getattr(self, name)
            require(value >= 1, f"compare_sizes.{name}", value, "at least 1")
