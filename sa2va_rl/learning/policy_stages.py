"""The steps that train a policy, each done once (see `sa2va_rl.learning.stages`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from core_rl.config import TrainerConfig
from core_rl.fingerprint import fingerprint
from core_rl.hardware import prepare
from core_rl.run.run_folder import cpu_seconds
from core_rl.run.stages import run_stage
from sa2va_rl.config import PPOConfig
from sa2va_rl.data.features import FEATURES_VERSION, Standardiser
from sa2va_rl.data.files import Splits
from sa2va_rl.data.splits import load_bare, without_films_of
from sa2va_rl.learning.grpo import GRPO_VERSION, SelectorRun, fit_selector
from sa2va_rl.learning.ppo import PPO_VERSION, PPORun, fit_ppo
from sa2va_rl.learning.stages import JudgedBy, digest_samples
from sa2va_rl.policy.saved import PromptPolicy, load_policy
from sa2va_rl.rewards.verdicts import Verdict, Verdicts
from sa2va_rl.segmenters.mask_cache import MaskCache
from sa2va_rl.settings import Settings


@dataclass(frozen=True)
class Task:
    """What a policy is trained from.

    Attributes:
        settings: of the run.
        splits: training pictures pay (those without masks, `data_mix.bare`, too), validation says
            which policy is the best; test is not read.
        masks: where masks come from.
        judged: the reward network; None where the truth alone pays.
        seed: of weights, order and draws.
    """

    settings: Settings
    splits: Splits
    masks: MaskCache
    judged: JudgedBy | None
    seed: int

    @cached_property
    def learnt_from(self) -> Splits:
        """The splits with the pictures without masks among the training ones.

        Bare pictures of a film that is held out stay out, or policies would learn from it.
        """
        bare = load_bare(self.settings.data_mix)
        kept = without_films_of(bare, (*self.splits.val, *self.splits.test))
        return replace(self.splits, train=(*self.splits.train, *kept))

    @cached_property
    def _known(self) -> tuple[dict[tuple[int, int], Verdict], dict[tuple[int, int], Verdict]]:
        """What is known of training and of validation pictures: policies need not judge again."""
        return {}, {}

    def verdicts(self) -> tuple[Verdicts, Verdicts]:
        """What pays in training and in validation; each policy's count of what it asked is new."""
        judge = None if self.judged is None else self.judged.judge
        splits, prompts = self.learnt_from, self.settings.prompts
        train, val = self._known
        return (
            Verdicts(splits.train, prompts, self.masks, judge, train),
            Verdicts(splits.val, prompts, self.masks, judge, val),
        )

    def key(self, *how: object) -> str:
        """Fingerprint of all that a policy trained in this way depends on."""
        splits = self.learnt_from
        return fingerprint(
            [digest_samples(part) for part in (splits.train, splits.val)],
            self.masks.segmenter.fingerprint,
            self.settings.prompts,
            None if self.judged is None else self.judged.key,
            *how,
            FEATURES_VERSION,
            self.seed,
        )


@dataclass(frozen=True)
class Learnt:
    """A policy, and what its training took.

    Attributes:
        policy: chooses prompts.
        folder: curves, checkpoints and `final_model`.
        figures: of its training: `cpu_seconds`, and `segmenter_calls`, the masks of training
            pictures that it takes (calls, where none is stored).
    """

    policy: PromptPolicy
    folder: Path
    figures: dict[str, float]


def train_ppo(task: Task, config: PPOConfig, folder: Path, resume: Path | None = None) -> Learnt:
    """Train PPO into a folder; one that was interrupted there goes on.

    Args:
        task: from what.
        config: which PPO: `settings.ppo`, or another.
        folder: where everything goes.
        resume: run folder whose newest checkpoint to go on from instead.
    """
    settings = task.settings

    def fit(train: Verdicts, val: Verdicts) -> PromptPolicy:
        prepare(settings.hardware, task.seed)
        seen = Standardiser.fit(train.features_BD)
        progress = settings.trainer.progress
        run = PPORun(config, train, val, seen, task.seed, folder, settings.logger, progress)
        return fit_ppo(run, resume)

    return _learn(task, folder, fit)


def learn_ppo(task: Task, config: PPOConfig) -> Learnt:
    """Train PPO once: a policy that was trained the same way is taken from its stage."""
    key = task.key(config, PPO_VERSION)
    return _once(f"ppo_{config.name}", task, key, lambda into: train_ppo(task, config, into))


def train_selector(task: Task, folder: Path) -> Learnt:
    """Train the policy on the shared loop into a folder; one interrupted there goes on."""
    settings = task.settings
    last = folder / "checkpoints" / "last.ckpt"
    if settings.trainer.resume is None and last.is_file():
        settings = replace(settings, trainer=replace(settings.trainer, resume=str(last)))

    def fit(train: Verdicts, val: Verdicts) -> PromptPolicy:
        seen = Standardiser.fit(train.features_BD)
        return fit_selector(SelectorRun(settings, train, val, seen, task.seed, folder))

    return _learn(task, folder, fit)


def learn_selector(task: Task) -> Learnt:
    """Train the policy on the shared loop once, as `learn_ppo` does with PPO.

    `trainer.resume` is not read: one checkpoint is no seed's own, and a stage that was interrupted
    goes on by itself.
    """
    if task.settings.trainer.resume is not None:
        fresh = replace(task.settings.trainer, resume=None)
        task = replace(task, settings=replace(task.settings, trainer=fresh))
    settings = task.settings
    how = (settings.selector, settings.curriculum, settings.loss, settings.rollout)
    key = task.key(*how, _steady(settings.trainer), GRPO_VERSION)
    return _once("grpo", task, key, lambda into: train_selector(task, into))


def _learn(task: Task, folder: Path, fit: Callable[[Verdicts, Verdicts], PromptPolicy]) -> Learnt:
    train, val = task.verdicts()
    began = cpu_seconds()
    policy = fit(train, val)
    figures = {"segmenter_calls": float(train.asked), "cpu_seconds": cpu_seconds() - began}
    return Learnt(policy, folder, figures)


def _once(name: str, task: Task, key: str, train: Callable[[Path], Learnt]) -> Learnt:
    root = task.settings.cache
    folder, figures = run_stage(name, root, key, lambda into: train(into).figures)
    policy = load_policy(folder / "final_model", task.settings.prompts)
    return Learnt(policy, folder, figures)


def _steady(trainer: TrainerConfig) -> TrainerConfig:
    """The trainer less what does not change what is learnt."""
    return replace(trainer, name="", seeds=[0], workers=1, progress=False, resume=None, log_every=1)
