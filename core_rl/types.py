"""The vocabulary every pipeline shares.

Shape suffixes, everywhere in this project:

    B  queries in a batch          T  steps of one candidate (tokens, pointers, choices)
    G  candidates of one query     K  options at one step (vocabulary, pool, prompts)
    R  reward functions            D  width of an embedding
    P  steps of a prompt

A candidate is a sequence of discrete choices, whatever the domain: the tokens of a completion
(`omni_rl`), pointers into a pool of demonstrations (`lever`), one prompt out of eleven
(`sa2va_rl`, T = 1).  So one loss serves all three.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

Query = Any  # A record of the domain: `omni_rl.data.record.Record`, a lever query, an image.
Prompt = TypeVar("Prompt")  # What `Policy.encode` returns; only that policy looks inside.
PromptIn = TypeVar("PromptIn", contravariant=True)
Describe = Callable[[Query], dict[str, Any]]  # a query -> columns that name it


@dataclass(frozen=True)
class Actions:
    """G candidates for each of B queries.

    Attributes:
        ids_BGT: chosen option at each step; anything where the mask is False.
        mask_BGT: True on real steps (the stop token included), False on padding.
        logp_BGT: log-probability under the policy that drew the candidate; None when a mechanism
            without one (beam search, retrieval, an old file) made it.
        truncated_BG: True where the length limit cut the candidate before it stopped.
        texts: the decoded candidates, `texts[b][g]`; empty for domains without text.
        spans: named parts of a candidate as masks BGT, e.g. `context` for the tokens up to the end
            of `</context>`; a reward may be confined to one.
        engine_logp_BGT: log-probability under the engine that drew the candidate in place of the
            policy, see `core_rl.objective.mismatch`; None = the policy drew it itself.
        share_BG: weight of each candidate, up to a factor a group, where candidates are no
            independent draws, see `core_rl.objective.inclusion`; None = all alike.
    """

    ids_BGT: Tensor
    mask_BGT: Tensor
    logp_BGT: Tensor | None = None
    truncated_BG: Tensor | None = None
    texts: tuple[tuple[str, ...], ...] = ()
    spans: dict[str, Tensor] = field(default_factory=dict)
    engine_logp_BGT: Tensor | None = None
    share_BG: Tensor | None = None

    @property
    def num_queries(self) -> int:
        return self.ids_BGT.shape[0]

    @property
    def num_candidates(self) -> int:
        return self.ids_BGT.shape[1]

    def to(self, device: torch.device) -> Actions:
        """Move every tensor."""
        return replace(
            self,
            ids_BGT=self.ids_BGT.to(device),
            mask_BGT=self.mask_BGT.to(device),
            logp_BGT=None if self.logp_BGT is None else self.logp_BGT.to(device),
            truncated_BG=None if self.truncated_BG is None else self.truncated_BG.to(device),
            spans={name: span.to(device) for name, span in self.spans.items()},
            engine_logp_BGT=None
            if self.engine_logp_BGT is None
            else self.engine_logp_BGT.to(device),
            share_BG=None if self.share_BG is None else self.share_BG.to(device),
        )


@dataclass(frozen=True)
class StepLogProbs:
    """Log-probabilities of candidates under a policy, with a graph where gradients are enabled.

    Attributes:
        logp_BGT: of the chosen option at each step; 0 where the mask is False.
        all_logp_BGTK: of every option, where the policy can afford it (exact KL, entropy).
    """

    logp_BGT: Tensor
    all_logp_BGTK: Tensor | None = None


class Reference(Protocol[Prompt]):
    """What the KL term compares with: a policy as it was at the start of a phase."""

    def encode(self, queries: Sequence[Query]) -> Prompt: ...

    def log_probs(
        self, prompt: Prompt, actions: Actions, temperature: float = 1.0
    ) -> StepLogProbs: ...

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(self, state_dict: dict[str, Tensor]) -> object: ...


class Policy(nn.Module, ABC, Generic[Prompt]):
    """The methods through which the loop uses a model.

    Attributes:
        is_language_model: True for a `core_rl.hf.policy.HFPolicy`; the doctor then checks more.
    """

    is_language_model: ClassVar[bool] = False

    @abstractmethod
    def encode(self, queries: Sequence[Query]) -> Prompt:
        """Encode each query once; may keep a cache and, with gradients enabled, its graph."""

    @abstractmethod
    def sample(self, prompt: Prompt, num_candidates: int, temperature: float = 1.0) -> Actions:
        """Draw candidates without gradient; temperature 0 takes the most probable option."""

    @abstractmethod
    def log_probs(self, prompt: Prompt, actions: Actions, temperature: float = 1.0) -> StepLogProbs:
        """Score candidates under logits / temperature, as `sample` would have drawn them."""

    def sometimes_unread(self) -> Sequence[nn.Parameter]:
        """Trained parameters that a batch may leave unread, such as those of a medium it lacks."""
        return ()

    def frozen_copy(self) -> Reference[Prompt]:
        """Return a copy that never trains: the reference of the KL term."""
        # Parameters apart: under ZeRO 3 they have attributes that cannot be copied.
        apart: dict[int, Any] = {id(p): nn.Parameter(p.detach().clone()) for p in self.parameters()}
        return copy.deepcopy(self, apart).requires_grad_(False).eval()


class Sampler(Protocol[PromptIn]):
    """Where candidates come from: the policy itself, an engine, or a store."""

    def __call__(
        self, policy: Policy, prompt: PromptIn, queries: Sequence[Query], temperature: float
    ) -> Actions: ...


@dataclass(frozen=True)
class RewardTable:
    """Values of the reward functions for a batch of candidates.

    Attributes:
        names: the R functions, in order.
        values_RBG: their values; NaN where a function could not judge.
        total_BG: the weighted sum; a missing judgement counts as the function's mean there.
    """

    names: tuple[str, ...]
    values_RBG: Tensor
    total_BG: Tensor


class Reward(Protocol):
    """Judge every candidate of every query: `values[b][g]`, None where it cannot judge.

    May be a coroutine function; the loop gathers those that are.
    """

    def __call__(
        self, queries: Sequence[Query], actions: Actions
    ) -> Sequence[Sequence[float | None]]: ...


@dataclass(frozen=True)
class Group:
    """B queries with their candidates, rewards and advantages: the unit of learning.

    Attributes:
        mixed_B: the group's rewards differ, so it carries a signal.
        temperature: at which the candidates were drawn and are scored; None = the loop's own.
        learned: the run that is resumed has learned from it before.
    """

    queries: Sequence[Query]
    actions: Actions
    rewards: RewardTable
    advantages_BGT: Tensor
    mixed_B: Tensor
    temperature: float | None = None
    learned: bool = False

    def to(self, device: torch.device) -> Group:
        """Move the tensors that the loss reads; the rewards are not moved."""
        return replace(
            self,
            actions=self.actions.to(device),
            advantages_BGT=self.advantages_BGT.to(device),
            mixed_B=self.mixed_B.to(device),
        )


Batch = Sequence[Query] | Group  # queries whose candidates are drawn in the step, or stored ones


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` where `mask` is True; 0 (with a graph) where nothing is."""
    weights = mask.to(values.dtype)
    return (torch.where(mask, values, 0.0) * weights).sum() / weights.sum().clamp(min=1)
