"""Callbacks of PPO: metrics of the choices, and the best policy on validation pictures."""

from __future__ import annotations

import copy
import json
import logging
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.torch import load_file, save_file
from stable_baselines3.common.callbacks import BaseCallback
from torch import Tensor

from core_rl.files import write_json
from sa2va_rl.config import EnvConfig
from sa2va_rl.policy.saved import PromptPolicy
from sa2va_rl.rewards.verdicts import Verdicts, worth_of

log = logging.getLogger(__name__)


class WatchChoices(BaseCallback):
    """Log metrics of a rollout's choices.

    `custom/reward_net_score` and `custom/gt_dice` are means over the rollout's steps (left out
    where unknown), `custom/best_reward` is the best score so far, `custom/regret` the mean
    difference to the best prompt tried on the picture, `custom/action_entropy` the entropy of the
    choices in nats, `custom/distinct_prompts` the number of different prompts.

    Args:
        verdicts: of the training pictures.
        config: reward mode.
    """

    def __init__(self, verdicts: Verdicts, config: EnvConfig) -> None:
        super().__init__()
        self.verdicts = verdicts
        self.config = config
        self._best = -math.inf
        self._counts = np.zeros(len(verdicts.prompts))

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            for name in ("reward_net_score", "gt_dice"):
                if not math.isnan(info[name]):
                    self.logger.record_mean(f"custom/{name}", info[name])
            self._best = max(self._best, info["best_reward"])
            self._counts[info["prompt"]] += 1
            tried = self.verdicts.known(info["picture"])
            worths = {prompt: worth_of(tried[prompt], self.config) for prompt in tried}
            self.logger.record_mean("custom/regret", max(worths.values()) - worths[info["prompt"]])
        return True

    def _on_rollout_end(self) -> None:
        share_K = self._counts / self._counts.sum()
        used = share_K[share_K > 0]
        self.logger.record("custom/best_reward", self._best)
        self.logger.record("custom/action_entropy", float(-(used * np.log(used)).sum()))
        self.logger.record("custom/distinct_prompts", len(used))
        self._counts[:] = 0


class KeepBest(BaseCallback):
    """Evaluate on validation pictures before each rollout; keep the weights of the best policy.

    The criterion is the training reward, so a run with the reward network alone needs no true masks
    here either.

    Args:
        policy: returns the current policy.
        verdicts: of the validation pictures; only the masks of chosen prompts are made.
        config: reward mode.

    Attributes:
        weights: of the best policy; empty before the first evaluation.
        score: its mean reward.
    """

    FILE = "best.safetensors"

    def __init__(
        self, policy: Callable[[], PromptPolicy], verdicts: Verdicts, config: EnvConfig
    ) -> None:
        super().__init__()
        self.policy = policy
        self.verdicts = verdicts
        self.config = config
        self.weights: dict[str, Tensor] = {}
        self.score = -math.inf

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if self.num_timesteps:  # nothing is learnt before the first rollout
            self.look()

    def look(self) -> None:
        """Evaluate the current policy."""
        chosen_B = self.policy().choose(self.verdicts.features_BD)
        verdicts = [self.verdicts(place, int(prompt)) for place, prompt in enumerate(chosen_B)]
        score = float(np.mean([worth_of(verdict, self.config) for verdict in verdicts]))
        self.logger.record("val/reward", score)
        log.info("step %d val/reward %.4f", self.num_timesteps, score)
        if score > self.score:
            self.score, self.weights = score, copy.deepcopy(self.model.policy.state_dict())

    def save(self, folder: Path) -> None:
        """Write the best policy so far, for a continued run."""
        if self.weights:
            save_file(self.weights, folder / self.FILE)
            write_json(folder / "best.json", {"val/reward": self.score})

    def load(self, folder: Path) -> None:
        """Read what `save` wrote, if it did."""
        if (folder / self.FILE).is_file():
            self.weights = load_file(folder / self.FILE)
            stored = json.loads((folder / "best.json").read_text(encoding="utf-8"))
            self.score = stored["val/reward"]
