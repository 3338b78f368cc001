"""Policies that draw or score as other trainers do, and ways to plant a fault in a healthy one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from core_rl.hf.encoded_prompt import EncodedPrompt, Inputs
from core_rl.hf.generation import log_softmax_masked
from core_rl.types import Actions, Query, StepLogProbs
from omni_rl.doctor.media_calls import thinker_of
from omni_rl.policy.policy import OmniPolicy
from tests.core_rl.hf.lost_cache import checkpointed

Spoil = Callable[[OmniPolicy], OmniPolicy]


def after_collate(change: Callable[[Inputs], Inputs]) -> Spoil:
    """Change every batch that the policy makes."""

    def spoil(policy: OmniPolicy) -> OmniPolicy:
        collate = policy.collate
        policy.collate = lambda queries: change(dict(collate(queries)))  # type: ignore[method-assign]
        return policy

    return spoil


def for_many(change: Callable[[Inputs, int], Inputs]) -> Spoil:
    """Change batches of two records or more; `change` is told how many."""

    def spoil(policy: OmniPolicy) -> OmniPolicy:
        collate = policy.collate

        def collated(queries: Sequence[Query]) -> Inputs:
            inputs = dict(collate(queries))
            return change(inputs, len(queries)) if len(queries) > 1 else inputs

        policy.collate = collated  # type: ignore[method-assign]
        policy.shared_prompt = False  # or each prompt would be encoded by itself
        return policy

    return spoil


def inside_forward(change: Callable[[Inputs], Inputs]) -> Spoil:
    """Change the arguments inside the model, as a wrapped forward does."""

    def spoil(policy: OmniPolicy) -> OmniPolicy:
        thinker = thinker_of(policy.model)
        forward = thinker.forward
        thinker.forward = lambda **inputs: forward(**change(inputs))
        return policy

    return spoil


def without(*names: str) -> Callable[[Inputs], Inputs]:
    return lambda inputs: {name: value for name, value in inputs.items() if name not in names}


class Generates(OmniPolicy):
    """Draws with the library's `generate`, as most trainers do; nothing is switched for it."""

    expands = False  # num_return_sequences instead of repeated prompts
    warps = False  # log-probs from the warped scores

    def collated_for_drawing(self, queries: Sequence[Query], num_candidates: int) -> Inputs:
        times = 1 if self.expands else num_candidates
        return self.inputs([query for query in queries for _ in range(times)])

    @torch.no_grad()
    def sample(
        self, prompt: EncodedPrompt, num_candidates: int, temperature: float = 1.0
    ) -> Actions:
        inputs = self.collated_for_drawing(prompt.queries, num_candidates)
        out: Any = self.model.generate(
            **inputs,
            num_return_sequences=num_candidates if self.expands else 1,
            do_sample=True,
            temperature=temperature,
            top_k=5 if self.warps else 0,
            top_p=1.0,
            max_new_tokens=self.max_completion,
            suppress_tokens=self.suppress_ids.tolist() or None,
            eos_token_id=self.stop_ids.tolist(),
            pad_token_id=int(self.stop_ids[0]),
            output_logits=True,
            output_scores=True,
            return_dict_in_generate=True,
        )
        ids = out.sequences[:, inputs["input_ids"].shape[1] :]
        logits_NTK = torch.stack(out.scores if self.warps else out.logits, dim=1)
        logp = log_softmax_masked(logits_NTK, 1.0 if self.warps else temperature, self.suppress_ids)
        logp = logp.gather(-1, ids.unsqueeze(-1)).squeeze(-1)
        ended = torch.isin(ids, self.stop_ids)
        mask = (ended.int().cumsum(-1) - ended.int()) == 0
        shape = (len(prompt.queries), num_candidates, -1)
        return self.with_texts(
            Actions(
                ids.view(shape),
                mask.view(shape),
                torch.where(mask, logp, 0.0).view(shape),
                ~(ended & mask).any(-1).view(shape[:2]),
            )
        )


class Expands(Generates):
    """Asks `generate` for several sequences of one prompt."""

    expands = True


class Warps(Generates):
    """Takes log-probs after top-k."""

    warps = True


def turned_into(kind: type[OmniPolicy]) -> Spoil:
    def spoil(policy: OmniPolicy) -> OmniPolicy:
        other = kind(policy.model, policy.processor, policy.config, policy.spans)
        other.shared_prompt = policy.shared_prompt
        return other

    return spoil


def forgetful(reentrant: bool) -> Spoil:
    """Draw by `generate` in train mode with activation checkpointing."""

    def spoil(policy: OmniPolicy) -> OmniPolicy:
        other = turned_into(Generates)(policy)
        checkpointed(other.model, reentrant)
        return other

    return spoil


class ForwardLosesFlag(OmniPolicy):
    """Draws with the flag and scores without it."""

    def log_probs(
        self, prompt: EncodedPrompt, actions: Actions, temperature: float = 1.0
    ) -> StepLogProbs:
        collate = self.collate
        self.collate = lambda queries: collate(queries) | {"use_audio_in_video": False}  # type: ignore[method-assign]
        shared, self.shared_prompt = self.shared_prompt, False
        try:
            return super().log_probs(self.encode(prompt.queries), actions, temperature)
        finally:
            self.collate = collate  # type: ignore[method-assign]
            self.shared_prompt = shared


class PositionsLoseFlag(OmniPolicy):
    """Derives rotary positions as though sound stood beside the video."""

    def positions(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        return super().positions(inputs | {"use_audio_in_video": False})
