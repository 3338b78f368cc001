"""The policy of the shared loop: a small net from a picture's features to a prompt.

A candidate has one step (T = 1) and the options are the K prompts, so log-probabilities, KL and
entropy are exact.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from core_rl.types import Actions, Policy, StepLogProbs
from sa2va_rl.data.features import Floats
from sa2va_rl.rewards.verdicts import Verdict


@dataclass(frozen=True)
class Look:
    """A query: a picture's index among the samples, and its standardised features D."""

    picture: int
    features_D: Floats


class PromptSelector(Policy[Tensor]):
    """Probabilities of K prompts from a picture's features.

    Args:
        num_features: D.
        num_prompts: K.
        hidden: widths of the hidden layers.
    """

    def __init__(
        self, num_features: int, num_prompts: int, hidden: Sequence[int] = (128, 64)
    ) -> None:
        super().__init__()
        self.hidden = list(hidden)
        widths = (num_features, *hidden)
        layers: list[nn.Module] = []
        for inside, outside in itertools.pairwise(widths):
            layers += [nn.Linear(inside, outside), nn.Tanh()]
        last = nn.Linear(widths[-1], num_prompts)
        # Start near the uniform distribution, so that every prompt is tried.
        nn.init.normal_(last.weight, std=0.01)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(*layers, last)

    def encode(self, queries: Sequence[Look]) -> Tensor:
        """Return the logits BK, with their graph."""
        features_BD = np.stack([query.features_D for query in queries])
        return self.layers(torch.from_numpy(features_BD).to(next(self.parameters())))

    @torch.no_grad()
    def sample(self, prompt: Tensor, num_candidates: int, temperature: float = 1.0) -> Actions:
        """Sample prompts; temperature 0 takes the most probable one."""
        logp_BK = (prompt / (temperature or 1.0)).log_softmax(-1)
        if temperature:
            ids_BG = torch.multinomial(logp_BK.exp(), num_candidates, replacement=True)
        else:
            ids_BG = logp_BK.argmax(-1, keepdim=True).expand(-1, num_candidates)
        return _actions(ids_BG, logp_BK.gather(1, ids_BG))

    def log_probs(self, prompt: Tensor, actions: Actions, temperature: float = 1.0) -> StepLogProbs:
        """Return the log-probabilities of choices under logits / temperature."""
        all_BK = (prompt / temperature).log_softmax(-1)
        logp_BG = all_BK.gather(1, actions.ids_BGT.squeeze(-1))
        all_BGTK = all_BK[:, None, None].expand(*actions.ids_BGT.shape, -1)
        return StepLogProbs(logp_BG.unsqueeze(-1), all_BGTK)


def every_prompt(
    policy: Policy, prompt: Tensor, queries: Sequence[Look], temperature: float
) -> Actions:
    """Return all K prompts of each picture as one group: a `core_rl` sampler for RCE.

    They were not sampled, so they have no sampling log-probabilities.
    """
    num_prompts = prompt.shape[1]
    return _actions(torch.arange(num_prompts, device=prompt.device).expand(len(queries), -1))


class VerdictReward:
    """The reward network's score of a choice, or its Dice.

    Args:
        verdicts: from the indices of a picture and a prompt, such as `rewards.verdicts.Verdicts`.
        use_truth: Dice instead of the reward network's score.
    """

    def __init__(self, verdicts: Callable[[int, int], Verdict], use_truth: bool = False) -> None:
        self.verdicts = verdicts
        self.use_truth = use_truth

    def __call__(
        self, queries: Sequence[Look], actions: Actions
    ) -> Sequence[Sequence[float | None]]:
        """Return values[b][g]; None without a reward network or a true mask."""
        choices = actions.ids_BGT.squeeze(-1).tolist()
        return [
            [self._value(query.picture, prompt) for prompt in row]
            for query, row in zip(queries, choices, strict=True)
        ]

    def _value(self, picture: int, prompt: int) -> float | None:
        verdict = self.verdicts(picture, prompt)
        value = verdict.gt_dice if self.use_truth else verdict.reward_net
        return None if math.isnan(value) else value


def _actions(ids_BG: Tensor, logp_BG: Tensor | None = None) -> Actions:
    ids_BGT = ids_BG.unsqueeze(-1)
    return Actions(
        ids_BGT=ids_BGT,
        mask_BGT=torch.ones_like(ids_BGT, dtype=torch.bool),
        logp_BGT=None if logp_BG is None else logp_BG.unsqueeze(-1),
    )
