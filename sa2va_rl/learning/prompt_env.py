"""The choice of a prompt as an environment: see a picture, choose a prompt, get the mask's score.

With one step an episode this is a contextual bandit, and discounting has no effect.  With several
steps, the best mask so far is kept and a step earns what it adds, so the sum over an episode is the
score of its best mask, whatever the order.  The true mask, where there is one, goes into `info`
and, if the reward mode says so, into the reward; never into the observation.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from sa2va_rl.config import EnvConfig
from sa2va_rl.data.features import CLIP, FEATURES, Standardiser, observation
from sa2va_rl.rewards.verdicts import Verdicts, check_judged, worth_of


class PromptEnv(gymnasium.Env[NDArray[np.float32], np.int64]):
    """One picture an episode, drawn without replacement until all were drawn.

    The observation is `features.FEATURES`, standardised, and the share of steps done; the action is
    the index of a prompt.  `info` holds `reward_net_score`, `gt_dice`, `best_reward` (the episode's
    best score so far, before centring and scaling), `best_prompt`, `prompt` and `picture`.

    Args:
        verdicts: pictures, prompts and their scores.
        standardiser: fitted on the training pictures.
        config: reward and length of an episode.

    Raises:
        ValueError: the reward needs a reward network or true masks that are missing.
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
        """Start with the next picture, or with `options={"picture": index}`."""
        super().reset(seed=seed)
        if seed is not None:
            self._order = []  # the rest of the old order must not survive a new seed
        asked = None if options is None else options.get("picture")
        self._picture = self._next() if asked is None else int(asked)
        self._steps, self._best, self._best_prompt = 0, None, -1
        return self._observe(), {"picture": self._picture}

    def step(
        self, action: np.int64
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Try a prompt; the reward is the gain over the episode's best score so far."""
        prompt = int(action)
        assert self._steps < self.config.max_steps, "the episode is over: call reset"
        worth = self.worth(self._picture, prompt)
        # The first step's baseline is the picture's mean score if rewards are centred, else 0.
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
        """Return a prompt's score under the reward mode, before centring and scaling."""
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
