"""Settings of prompt selection, as plain dataclasses; no torch here (see `core_rl.config`)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum

from core_rl.config import OnBadRecord, require, require_least, require_positive, require_share

# A file name up to its last number is the film; the number is the frame.
FILM = r"(.*?)[-_ .]*\d*$"


class RewardMode(Enum):
    """The reward of an action."""

    reward_net = "reward_net"  # the reward network's score: needs no true mask
    gt_dice = "gt_dice"  # Dice with the true mask: the reference for the reward network
    mix = "mix"


@dataclass
class EnvConfig:
    """Length and reward of an episode."""

    reward: RewardMode = RewardMode.reward_net
    dice_share: float = 0.5  # weight of Dice in `mix`
    max_steps: int = 1
    # Subtract the picture's mean reward over all prompts, so that only the choice counts.
    # This needs the masks of every prompt, which the cache holds after the first pass.
    centre: bool = False
    scale: float = 1.0

    def __post_init__(self) -> None:
        require_share("ppo.env", self, "dice_share")
        require_least("ppo.env", self, 1, "max_steps")
        require_positive("ppo.env", self, "scale")


QUALITIES = ("dice", "iou", "precision", "recall")


@dataclass
class RewardNetConfig:
    """Size of the reward network and the label that it predicts."""

    side: int = 112  # pixels of the square that picture and mask are resized to
    width: int = 24  # channels of the first layer
    # Weights of the measures in the label (dice, iou, precision, recall); they sum to 1.
    label: dict[str, float] = field(default_factory=lambda: {"dice": 1.0})

    def __post_init__(self) -> None:
        require_least("reward_net", self, 32, "side")
        require_least("reward_net", self, 4, "width")
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
    folders = "folders"  # a folder of pictures and a folder of masks


class PolygonRule(Enum):
    """The pixels that a polygon covers."""

    coco = "coco"  # those whose centre is inside; pixel (0, 0) reaches from 0 to 1
    cv2 = "cv2"  # OpenCV's fillPoly: corners are centres of pixels, the outline belongs to it


class Corners(Enum):
    """Unit of the coordinates of polygons."""

    pixels = "pixels"
    normalised = "normalised"  # shares of the picture's width and height


@dataclass
class Sa2VADataConfig:
    """Pictures and their splits, by patient or film."""

    name: str = "sa2va_angiograms"
    source: Source = Source.generated
    # Pictures of each split: the number generated, or the largest number taken from files;
    # null = all of the files.
    train: int | None = 100
    val: int | None = 50
    test: int | None = 100
    # Generated test pictures from trait ranges that nothing is trained on.
    shifted: int = 0
    side: int = 160  # of generated pictures, in pixels
    path: str | None = None  # `annotations.json`, or the folder of pictures
    # Folder of the annotated pictures; null = beside the file, or in `images/` beside it.
    images: str | None = None
    polygon_rule: PolygonRule = PolygonRule.coco
    corners: Corners = Corners.pixels
    masks: str | None = None  # folder of masks; null = pictures without masks
    # Name of a picture's mask without suffix: {stem} is the picture's name without suffix, {number}
    # its first number.  DRIVE: "{number}_manual1".
    mask_name: str = "{stem}"
    on_bad_record: OnBadRecord = OnBadRecord.error  # skip = leave bad pictures out, and count them
    # Folder of pictures without masks that policies learn from beside the training pictures.
    bare: str | None = None
    group: str = FILM  # regular expression whose first group is the patient or film
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
        require_least("data_mix", self, 0, "shifted")
        require_least("data_mix", self, 64, "side")
        rest, fields = re.subn(r"\{(?:stem|number)\}", "", self.mask_name)
        require(
            fields > 0 and not set(rest) & set("{}"),
            "data_mix.mask_name",
            self.mask_name,
            "a name with {stem} or {number}, as in '{stem}_mask'",
        )
        require(
            self.path is not None or self.source is Source.generated,
            "data_mix.path",
            self.path,
            "a file or folder, as in data_mix.path=FILE",
        )


class SegmenterKind(Enum):
    """The model that makes masks."""

    vesselness = "vesselness"  # the embedded segmenter: no weights
    clipseg = "clipseg"
    sam3 = "sam3"
    sa2va = "sa2va"


@dataclass
class Sa2VAModelConfig:
    """The segmenter with its prompts, and the optimizer of the policy on the shared loop."""

    name: str = "sa2va_vesselness"
    kind: SegmenterKind = SegmenterKind.vesselness
    path: str | None = None  # hub id or folder; null for `vesselness`
    # A Sa2VA checkpoint contains Python code that runs on loading: read it before setting this.
    trust_remote_code: bool = False
    threshold: float | None = None  # of a probability map; null = the segmenter's own
    device: str = "cpu"
    # In the order of the actions; empty = the eleven of `sa2va_rl.prompts`.
    prompts: list[str] = field(default_factory=list)
    # Of the policy on the shared loop (exp=sa2va_grpo).
    lr: float = 3e-3
    batch_size: int = 50
    # A candidate is one choice, and the query has no tokens.
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
        require_positive("model", self, "lr")
        require_least("model", self, 1, "batch_size")


@dataclass
class RewardFitConfig:
    """Training of the reward network, or the folder of a trained one."""

    path: str | None = None  # folder of a trained network; null = train one
    lr: float = 4e-3
    epochs: int = 10
    batch_size: int = 32
    weight_decay: float = 1e-2

    def __post_init__(self) -> None:
        require_positive("reward_fit", self, "lr")
        require_least("reward_fit", self, 1, "epochs", "batch_size")
        require_least("reward_fit", self, 0, "weight_decay")


@dataclass
class PPOConfig:
    """stable-baselines3's PPO.  The defaults are those of the published run (`ppo=seed`)."""

    name: str = "seed"
    total_steps: int = 10_000  # rounded up to whole rollouts
    envs: int = 4
    n_steps: int = 128  # steps of each environment between two updates
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
    anneal: bool = False  # decay the learning rate linearly to 0
    weight_decay: float = 0.0
    checkpoint_every: int = 1000  # steps
    keep_best: bool = False  # return the policy with the best validation reward, not the last
    env: EnvConfig = field(default_factory=EnvConfig)

    def __post_init__(self) -> None:
        counts = ("total_steps", "envs", "n_steps", "n_epochs", "checkpoint_every")
        require_least("ppo", self, 1, *counts)
        require(
            2 <= self.batch_size <= self.n_steps * self.envs,
            "ppo.batch_size",
            self.batch_size,
            f"from 2 to n_steps * envs = {self.n_steps * self.envs}",
        )
        require_positive("ppo", self, "lr", "max_grad_norm")
        require(0 < self.clip < 1, "ppo.clip", self.clip, "between 0 and 1")
        require_share("ppo", self, "gamma", "gae_lambda")
        require_least("ppo", self, 0, "entropy", "value", "weight_decay")
        require(all(w >= 1 for w in self.hidden), "ppo.hidden", self.hidden, "widths of 1 or more")


@dataclass
class SelectorConfig:
    """The policy on the shared loop."""

    hidden: list[int] = field(default_factory=lambda: [128, 64])
    reward: RewardMode = RewardMode.reward_net
    dice_share: float = 0.5  # weight of Dice in `mix`

    def __post_init__(self) -> None:
        require(
            all(w >= 1 for w in self.hidden), "selector.hidden", self.hidden, "widths of 1 or more"
        )
        require_share("selector", self, "dice_share")


@dataclass
class ScaleConfig:
    """Sizes for one trainer preset; `conf/scale/sa2va.yaml` holds one for each preset."""

    train: int = 100
    val: int = 50
    test: int = 100
    reward_epochs: int = 10
    ppo_steps: int = 10_000
    ppo_envs: int = 4
    selector_steps: int = 300
    # Pictures of the comparison.
    compare_train: int = 300
    compare_val: int = 100
    compare_test: int = 200
    shifted: int = 0
    seeds: list[int] = field(default_factory=lambda: [1])
    workers: int = 1


@dataclass
class CompareSizes:
    """Numbers of pictures in the comparison, the last step of `exp=sa2va`."""

    train: int = 300
    val: int = 100
    test: int = 200

    def __post_init__(self) -> None:
        require_least("compare_sizes", self, 1, "train", "val", "test")
