"""Settings of the comparison and of experiments 2 and 3b; no torch here (see `core_rl.config`)."""

from __future__ import annotations

from dataclasses import dataclass, field

from core_rl.config import require, require_least, require_positive

RECIPES = 4080  # number of different recipes in `postprocess.CHOICES`


@dataclass
class PostprocessConfig:
    """The search over post-processing recipes (experiment 2)."""

    recipes: int = 64  # tried in the first round
    # Pictures and remaining recipes of the first and the second round of successive halving.
    first_pictures: int = 40
    first_kept: int = 16
    second_pictures: int = 100
    second_kept: int = 8

    def __post_init__(self) -> None:
        sizes = ("recipes", "first_pictures", "first_kept", "second_pictures", "second_kept")
        require_least("compare.postprocess", self, 1, *sizes)
        few = f"at most {RECIPES}, the number of different recipes"
        require(self.recipes <= RECIPES, "compare.postprocess.recipes", self.recipes, few)


@dataclass
class FinetuneConfig:
    """The small segmenter and its reward-guided fine-tuning (experiment 3b)."""

    labelled: int = 8  # training pictures with true masks that it is pre-trained on
    width: int = 12  # channels of its first layer
    start_steps: int = 120
    start_lr: float = 5e-3
    steps: int = 80  # of fine-tuning
    lr: float = 1e-3
    batch_size: int = 4
    grad_clip: float = 1.0
    # Weight of the KL divergence from the pre-trained masks, in reward per nat and pixel.
    anchor: float = 2.0
    look_every: int = 10  # steps between two evaluations on validation pictures
    look_pictures: int = 20
    patience: int = 3  # evaluations without a better Dice before the anchored run stops

    def __post_init__(self) -> None:
        counts = ("labelled", "start_steps", "steps", "batch_size", "look_every", "look_pictures")
        require_least("compare.finetune", self, 1, *counts, "patience")
        fits = self.width >= 4 and self.width % 4 == 0
        require(fits, "compare.finetune.width", self.width, "a multiple of 4")
        require_positive("compare.finetune", self, "start_lr", "lr", "grad_clip")
        require_least("compare.finetune", self, 0, "anchor")


@dataclass
class CompareConfig:
    """Sizes of the comparison."""

    # Smaller numbers of training pictures that get a table of their own.  Numbers of
    # `data_mix.train`, the main table, or above are left out.
    sizes: list[int] = field(default_factory=lambda: [20, 100])
    pulls: int = 10_000  # trials of LinUCB: as many as PPO's steps
    shown: int = 6  # pictures on the sheet of masks
    postprocess: PostprocessConfig = field(default_factory=PostprocessConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)

    def __post_init__(self) -> None:
        require(
            all(size >= 2 for size in self.sizes),
            "compare.sizes",
            self.sizes,
            "numbers of training pictures, each at least 2",
        )
        require_least("compare", self, 1, "pulls", "shown")
