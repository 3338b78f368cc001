"""Policies, each trained once (see `sa2va_rl.learning.stages`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from core_rl.config import TrainerConfig
from core_rl.fingerprint import fingerprint
from core_rl.run.resume import has_resume_point
from core_rl.run.run_folder import cpu_seconds
from core_rl.run.stages import run_stage
from sa2va_rl.config import PPOConfig
from sa2va_rl.data.features import FEATURES_VERSION, Standardiser
from sa2va_rl.data.files import Sample, Splits
from sa2va_rl.data.splits import load_bare, load_splits, without_films_of
from sa2va_rl.learning.grpo import GRPO_VERSION, fit_selector
from sa2va_rl.learning.policy_run import PolicyRun
from sa2va_rl.learning.ppo import PPO_VERSION, fit_ppo
from sa2va_rl.learning.stages import TrainedJudge, digest_samples, learn_reward_net, open_masks
from sa2va_rl.policy.saved import PromptPolicy, load_policy
from sa2va_rl.rewards.prompt_table import PromptTable, measure_prompts
from sa2va_rl.rewards.verdicts import Verdict, Verdicts
from sa2va_rl.segmenters.mask_cache import MaskCache
from sa2va_rl.settings import Settings


@dataclass(frozen=True)
class PolicyInputs:
    """Everything that a policy is trained from.

    Attributes:
        settings: of the run.
        splits: training and validation pictures are used, test pictures are not.
        masks: makes or reads the masks.
        judged: the reward network; None if Dice alone is the reward.
        seed: of weights, order and sampling.
    """

    settings: Settings
    splits: Splits
    masks: MaskCache
    judged: TrainedJudge | None
    seed: int

    @cached_property
    def with_bare(self) -> Splits:
        """The splits with the pictures of `data_mix.bare` among the training pictures.

        Bare pictures of a film that is in validation or test are left out.
        """
        bare = load_bare(self.settings.data_mix)
        kept = without_films_of(bare, (*self.splits.val, *self.splits.test))
        return replace(self.splits, train=(*self.splits.train, *kept))

    @cached_property
    def _known(self) -> tuple[dict[tuple[int, int], Verdict], dict[tuple[int, int], Verdict]]:
        """Verdicts on training and validation pictures, shared by all policies."""
        return {}, {}

    def verdicts(self) -> tuple[Verdicts, Verdicts]:
        """Return the scores of training and validation pictures, with new counts of requests."""
        judge = None if self.judged is None else self.judged.judge
        splits, prompts = self.with_bare, self.settings.prompts
        train, val = self._known
        return (
            Verdicts(splits.train, prompts, self.masks, judge, train),
            Verdicts(splits.val, prompts, self.masks, judge, val),
        )

    def measure(self, samples: Sequence[Sample]) -> PromptTable:
        """Measure every prompt on every picture."""
        judge = None if self.judged is None else self.judged.judge
        return measure_prompts(samples, self.settings.prompts, self.masks, judge)

    def key(self, *how: object) -> str:
        """Return the fingerprint of a policy that is trained with the settings `how`."""
        splits = self.with_bare
        return fingerprint(
            [digest_samples(part) for part in (splits.train, splits.val)],
            self.masks.segmenter.fingerprint,
            self.settings.prompts,
            None if self.judged is None else self.judged.key,
            *how,
            FEATURES_VERSION,
            self.seed,
        )


def open_inputs(settings: Settings, seed: int, needs_judge: bool = True) -> PolicyInputs:
    """Load the pictures of a seed, open the mask cache and train the reward network.

    Args:
        settings: of the run.
        seed: of the pictures and of everything random.
        needs_judge: False leaves the reward network out.
    """
    masks, splits = open_masks(settings), load_splits(settings.data_mix, seed)
    judged = learn_reward_net(settings, splits, masks, seed) if needs_judge else None
    return PolicyInputs(settings, splits, masks, judged, seed)


@dataclass(frozen=True)
class TrainedPolicy:
    """A trained policy with the costs of its training.

    Attributes:
        policy: chooses prompts.
        folder: of curves, checkpoints and `final_model`.
        figures: `cpu_seconds` of the training and `segmenter_calls`, the number of masks of
            training pictures that it needed (calls, if no mask were stored).
    """

    policy: PromptPolicy
    folder: Path
    figures: dict[str, float]


def train_ppo(
    inputs: PolicyInputs, config: PPOConfig, folder: Path, resume: Path | None = None
) -> TrainedPolicy:
    """Train PPO in a folder; an interrupted training there is continued.

    Args:
        inputs: pictures and rewards.
        config: `inputs.settings.ppo`, or another PPO.
        folder: of all output.
        resume: run folder from whose newest checkpoint to continue instead.
    """
    settings = replace(inputs.settings, ppo=config)
    return _train(inputs, settings, folder, lambda run: fit_ppo(run, resume))


def learn_ppo(inputs: PolicyInputs, config: PPOConfig) -> TrainedPolicy:
    """Train PPO, or reuse a policy that was trained in the same way."""
    key = inputs.key(config, PPO_VERSION)
    return _once(f"ppo_{config.name}", inputs, key, lambda into: train_ppo(inputs, config, into))


def train_selector(inputs: PolicyInputs, folder: Path) -> TrainedPolicy:
    """Train the policy on the shared loop; an interrupted training in the folder is continued."""
    settings = inputs.settings
    if settings.trainer.resume is None and has_resume_point(folder):
        settings = replace(settings, trainer=replace(settings.trainer, resume=str(folder)))
    return _train(inputs, settings, folder, fit_selector)


def learn_selector(inputs: PolicyInputs) -> TrainedPolicy:
    """Train the policy on the shared loop, or reuse a finished one.

    `trainer.resume` is ignored: one checkpoint must not become the start of every seed.
    """
    settings = inputs.settings
    if settings.trainer.resume is not None:
        settings = replace(settings, trainer=replace(settings.trainer, resume=None))
        inputs = replace(inputs, settings=settings)
    how = (settings.selector, settings.curriculum, settings.loss, settings.rollout)
    key = inputs.key(*how, _learning(settings.trainer), GRPO_VERSION)
    return _once("grpo", inputs, key, lambda into: train_selector(inputs, into))


def _train(
    inputs: PolicyInputs,
    settings: Settings,
    folder: Path,
    fit: Callable[[PolicyRun], PromptPolicy],
) -> TrainedPolicy:
    train, val = inputs.verdicts()
    began = cpu_seconds()
    seen = Standardiser.fit(train.features_BD)
    policy = fit(PolicyRun(settings, train, val, seen, inputs.seed, folder))
    figures = {"segmenter_calls": float(train.asked), "cpu_seconds": cpu_seconds() - began}
    return TrainedPolicy(policy, folder, figures)


def _once(
    name: str, inputs: PolicyInputs, key: str, train: Callable[[Path], TrainedPolicy]
) -> TrainedPolicy:
    root = inputs.settings.cache
    folder, figures = run_stage(name, root, key, lambda into: train(into).figures)
    policy = load_policy(folder / "final_model", inputs.settings.prompts)
    return TrainedPolicy(policy, folder, figures)


def _learning(trainer: TrainerConfig) -> TrainerConfig:
    """Reset the trainer's fields that do not change what is learnt."""
    return replace(trainer, name="", seeds=[0], workers=1, progress=False, resume=None, log_every=1)
