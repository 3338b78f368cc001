"""Settings of the comparison and of experiments 2 and 3b; no torch here (see `core_rl.config`)."""

from __future__ import annotations

from dataclasses import dataclass, field

from core_rl.config import require

RECIPES = 4080  # different ones that can be drawn from `postprocess.CHOICES`


@dataclass
class PostprocessConfig:
    """The search over post-processing recipes (experiment 2)."""

    recipes: int = 64  # tried on the first pictures
    # Pictures that all of them are tried on, and how many are then left; and once more.
    first_pictures: int = 40
    first_kept: int = 16
    second_pictures: int = 100
    second_kept: int = 8

    def __post_init__(self) -> None:
        for name in ("recipes", "first_pictures", "first_kept", "second_pictures", "second_kept"):
            value = getattr(self, name)
            require(value >= 1, f"compare.postprocess.{name}", value, "at least 1")
        require(
            self.recipes <= RECIPES,
            "compare.postprocess.recipes",
            self.recipes,
            f"at most {RECIPES}: there are no more different ones",
        )


@dataclass
class FinetuneConfig:
    """The small segmenter and its reward-guided fine-tuning (experiment 3b)."""

    labelled: int = 8  # training pictures whose masks it is started on
    width: int = 12  # channels of its first layer
    start_steps: int = 120
    start_lr: float = 5e-3
    steps: int = 80  # of fine-tuning
    lr: float = 1e-3
    batch_size: int = 4
    grad_clip: float = 1.0
    # Price of a nat a pixel away from the start's masks; a reward lies between 0 and 1.
    anchor: float = 2.0
    look_every: int = 10  # steps between two looks at validation pictures
    look_pictures: int = 20
    patience: int = 3  # looks without a better Dice after which the anchored run stops

    def __post_init__(self) -> None:
        counts = ("labelled", "start_steps", "steps", "batch_size", "look_every", "look_pictures")
        for name in (*counts, "patience"):
            value = getattr(self, name)
            require(value >= 1, f"compare.finetune.{name}", value, "at least 1")
        require(
            self.width >= 4 and self.width % 4 == 0,
            "compare.finetune.width",
            self.width,
            "a multiple of 4",
        )
        for name in ("start_lr", "lr", "grad_clip"):
            value = getattr(self, name)
            require(value > 0, f"compare.finetune.{name}", value, "above 0")
        require(self.anchor >= 0, "compare.finetune.anchor", self.anchor, "0 or more")


@dataclass
class CompareConfig:
    """Which comparisons are made, on how many training pictures."""

    # Smaller numbers of training pictures that get a table, too: the first so many of
    # `data_mix.train`, which has the main table; larger ones are left out.
    sizes: list[int] = field(default_factory=lambda: [20, 100])
    pulls: int = 10_000  # trials of LinUCB: as many as PPO's steps
    shown: int = 6  # pictures on the sheet
    postprocess: PostprocessConfig = field(default_factory=PostprocessConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)

    def __post_init__(self) -> None:
        require(
            all(size >= 2 for size in self.sizes),
            "compare.sizes",
            self.sizes,
            "numbers of training pictures, each at least 2",
        )
        for name in ("pulls", "shown"):
            require(getattr(self, name) >= 1, f"compare.{name}", getattr(self, name), "at least 1")
