"""Choosing a prompt as an environment: look at a picture, name a prompt, be paid for the mask.

With one step an episode this is a contextual bandit and discounting has no effect.  With several,
the best mask so far is kept and a step earns what it adds, so that an episode's sum is the best
mask's worth whatever the order.  The truth, where there is one, goes into `info` and, if the reward
mode says so, into the reward; never into the observation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import gymnasium
import numpy as np
from numpy.typing import NDArray

from sa2va_rl.config import EnvConfig, RewardMode
from sa2va_rl.data.features import CLIP, FEATURES, Floats, Standardiser, observation
from sa2va_rl.data.files import Sample
from sa2va_rl.prompts import check_prompts
from sa2va_rl.segmenters.mask_cache import Mask, overlap


class Masks(Protocol):
    """Where masks come from: `masks.MaskCache`."""

    def __call__(self, image_HWC: NDArray[np.uint8], prompt: str) -> Mask: ...


class Judge(Protocol):
    """Score a mask of a picture in [0, 1] without the truth."""

    def __call__(self, image_HWC: NDArray[np.uint8], mask_HW: Mask) -> float: ...


@dataclass(frozen=True)
class Verdict:
    """What is known of one picture under one prompt.

    Attributes:
        reward_net: the judge's score; NaN without a judge.
        gt_dice: overlap with the truth; NaN without one.
    """

    reward_net: float
    gt_dice: float


class Verdicts:
    """Masks judged once for each picture and prompt; environments may share one.

    Args:
        samples: pictures, by their place.
        prompts: texts, by their place.
        masks: where masks come from.
        judge: the reward network; None where only the truth pays.
        known: verdicts that others made of the same, by places of picture and prompt; added to.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        prompts: Sequence[str],
        masks: Masks,
        judge: Judge | None = None,
        known: dict[tuple[int, int], Verdict] | None = None,
    ) -> None:
        if not samples:
            raise ValueError("no pictures: expected at least one")
        self.samples = tuple(samples)
        self.prompts = check_prompts(prompts)
        self.masks = masks
        self.judge = judge
        self._known = {} if known is None else known
        self._asked: set[tuple[int, int]] = set()

    def __call__(self, picture: int, prompt: int) -> Verdict:
        """Return the verdict, made when it is first asked for."""
        key = picture, prompt
        self._asked.add(key)
        if key not in self._known:
            self._known[key] = self._make(self.samples[picture], self.prompts[prompt])
        return self._known[key]

    def known(self, picture: int) -> dict[int, Verdict]:
        """Return the verdicts of a picture that were asked for so far, by prompt."""
        everything = range(len(self.prompts))
        return {k: self._known[picture, k] for k in everything if (picture, k) in self._asked}

    @property
    def asked(self) -> int:
        """Pairs of picture and prompt asked for so far: segmenter calls, but for stored masks."""
        return len(self._asked)

    @cached_property
    def features_BD(self) -> Floats:  # noqa: N802  # named as arrays are
        """Features of each picture, not standardised."""
        return np.stack([sample.features_D for sample in self.samples])

    def mask(self, picture: int, prompt: int) -> Mask:
        """Return the mask itself."""
        return self.masks(self.samples[picture].image_HWC, self.prompts[prompt])

    def _make(self, sample: Sample, prompt: str) -> Verdict:
        mask_HW = self.masks(sample.image_HWC, prompt)
        score, dice = math.nan, math.nan
        if self.judge is not None:
            # Nothing found is worth nothing, whatever a network makes of a black mask.
            score = self.judge(sample.image_HWC, mask_HW) if mask_HW.any() else 0.0
        if sample.truth_HW is not None:
            dice = overlap(mask_HW, sample.truth_HW).dice
        return Verdict(score, dice)


class PromptEnv(gymnasium.Env[NDArray[np.float32], np.int64]):
    """One picture an episode, drawn without replacement until all were seen.

    The observation is `features.FEATURES`, standardised, and the share of steps done; the action is
    the place of a prompt.  `info` holds `reward_net_score`, `gt_dice`, `best_reward` (the episode's
    best worth so far, before centring and scale), `best_prompt`, `prompt` and `picture`.

    Args:
        verdicts: pictures, prompts and what they are worth.
        standardiser: fitted on the training pictures.
        config: reward and length of an episode.

    Raises:
        ValueError: the reward needs a judge or truths that are absent.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  # gymnasium's own annotation

    def __init__(self, verdicts: Verdicts, standardiser: Standardiser, config: EnvConfig) -> None:
        check_judged(verdicts, config.reward)
        self.verdicts = verdicts
        self.config = config
        self.features = standardiser(verdicts.features_BD)
        bound = np.append(np.full(len(FEATURES), CLIP), 1.0).astype(np.float32)
        low = np.append(np.full(len(FEATURES), -CLIP), 0.0).astype(np.float32)
        self.observation_space = gymnasium.spaces.Box(low, bound, dtype=np.float32)
        self.action_space = gymnasium.spaces.Discrete(len(verdicts.prompts))
        self._order: list[int] = []
        self._picture = 0
        self._steps = 0
        self._best: float | None = None
        self._best_prompt = -1

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Show the next picture; `options={"picture": place}` asks for one."""
        super().reset(seed=seed)
        if seed is not None:
            self._order = []  # the seed decides the order from here on
        asked = None if options is None else options.get("picture")
        self._picture = self._next() if asked is None else int(asked)
        self._steps, self._best, self._best_prompt = 0, None, -1
        return self._observe(), {"picture": self._picture}

    def step(
        self, action: np.int64
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Try a prompt and pay what it adds to the episode's best."""
        prompt = int(action)
        assert self._steps < self.config.max_steps, "the episode is over: call reset"
        worth = self.worth(self._picture, prompt)
        # What the first step adds to is the picture's mean, or 0 where rewards are not centred.
        before = self._start() if self._best is None else self._best
        if self._best is None or worth > self._best:
            self._best, self._best_prompt = worth, prompt
        self._steps += 1
        verdict = self.verdicts(self._picture, prompt)
        info = {
            "picture": self._picture,
            "prompt": prompt,
            "reward_net_score": verdict.reward_net,
            "gt_dice": verdict.gt_dice,
            "best_reward": self._best,
            "best_prompt": self._best_prompt,
        }
        reward = self.config.scale * (self._best - before)
        return self._observe(), reward, self._steps == self.config.max_steps, False, info

    def worth(self, picture: int, prompt: int) -> float:
        """Return what the reward mode says of a prompt, before centring and scale."""
        return worth_of(self.verdicts(picture, prompt), self.config)

    def _start(self) -> float:
        if not self.config.centre:
            return 0.0
        everything = range(len(self.verdicts.prompts))
        return float(np.mean([self.worth(self._picture, prompt) for prompt in everything]))

    def _next(self) -> int:
        if not self._order:
            self._order = self.np_random.permutation(len(self.features)).tolist()
        return self._order.pop()

    def _observe(self) -> NDArray[np.float32]:
        return observation(self.features[self._picture], self._steps / self.config.max_steps)


def worth_of(verdict: Verdict, config: EnvConfig) -> float:
    """Return what the reward mode says of a verdict."""
    if config.reward is RewardMode.reward_net:
        return verdict.reward_net
    if config.reward is RewardMode.gt_dice:
        return verdict.gt_dice
    return config.dice_share * verdict.gt_dice + (1 - config.dice_share) * verdict.reward_net


def check_judged(verdicts: Verdicts, mode: RewardMode) -> None:
    """Raise ValueError where a reward needs a judge or truths that are absent."""
    if mode is not RewardMode.gt_dice and verdicts.judge is None:
        raise ValueError(
            f"reward={mode.value}: needs a reward network; train one by +exp=sa2va_reward_net, or "
            "set ppo.env.reward=gt_dice"
        )
    bare = [sample.name for sample in verdicts.samples if sample.truth_HW is None]
    if mode is not RewardMode.reward_net and bare:
        raise ValueError(
            f"reward={mode.value}: {len(bare)} pictures have no mask, the first {bare[0]}; "
            "set ppo.env.reward=reward_net or add masks"
        )
