"""A Hugging Face causal model as a `core_rl.types.Policy`.

The prompt of a question is encoded once.  Its cache serves the decoding of all G candidates and,
with its graph, their log-probs, so that one backward pass reaches the prompt (and any media tower)
through all of them.  Where that cannot hold, under activation checkpointing, the prompt is encoded
again for every candidate; the two paths are tested equal.
"""

from __future__ import annotations

import copy
import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from core_rl.hf.generation import (
    Layers,
    cache_layers,
    decode,
    expand_cache,
    generation_mode,
    last_logits_only,
    log_softmax_masked,
)
from core_rl.types import Actions, Query, StepLogProbs

log = logging.getLogger(__name__)

Inputs = dict[str, Any]  # what the model's forward takes


@dataclass(frozen=True)
class EncodedPrompt:
    """B encoded prompts, left-padded to P.

    Attributes:
        queries: the records, kept for the path that encodes again.
        inputs: arguments of the model's forward.
        mask_BP: attention mask.
        next_position_B: rotary position of the first completion token.
        layers: keys and values of each layer; None on the path that encodes again.
        last_logits_BK: logits of the first completion token, or None likewise.
    """

    queries: Sequence[Query]
    inputs: Inputs
    mask_BP: Tensor
    next_position_B: Tensor
    layers: Layers | None = None
    last_logits_BK: Tensor | None = None


class HFPolicy(nn.Module, ABC):
    """Encode, sample and score with any causal model; subclasses say how a query becomes inputs.

    Args:
        model: a model with an output head; its dropout is set to 0.
        tokenizer: decodes completions.
        stop_ids: ids that end a completion.
        suppress_ids: ids never drawn; masked in the log-probs as well, or the ratio is biased.
        max_completion: limit of new tokens.
        shared_prompt: encode a prompt once for all its candidates.
        rows_per_pass: sequences a forward on the path that encodes again.
    """

    model: Any
    stop_ids: Tensor
    suppress_ids: Tensor

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        stop_ids: Sequence[int],
        suppress_ids: Sequence[int] = (),
        max_completion: int = 64,
        shared_prompt: bool = True,
        rows_per_pass: int = 8,
    ) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.max_completion = max_completion
        self.shared_prompt = shared_prompt
        self.rows_per_pass = rows_per_pass
        self.register_buffer("stop_ids", torch.tensor(list(stop_ids)), persistent=False)
        self.register_buffer(
            "suppress_ids", torch.tensor(list(suppress_ids), dtype=torch.long), persistent=False
        )
        switch_dropout_off(model)

    @abstractmethod
    def collate(self, queries: Sequence[Query]) -> Inputs:
        """Turn queries into a left-padded batch for the model's forward."""

    def positions(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Return position ids of the prompt and the position that follows it, [B]."""
        mask = inputs["attention_mask"]
        position_ids = (mask.cumsum(-1) - 1).clamp(min=0)
        return position_ids, mask.sum(-1)

    def annotate(self, queries: Sequence[Query], actions: Actions) -> Actions:
        """Hook for subclasses: add spans to fresh candidates."""
        return actions

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def checkpoints_activations(self) -> bool:
        return any(
            getattr(module, "gradient_checkpointing", False) is True
            for module in self.model.modules()
        )

    @property
    def has_adapters(self) -> bool:
        """True for a model wrapped by peft."""
        return any("lora_" in name for name, _ in self.model.named_parameters())

    def train(self, mode: bool = True) -> HFPolicy:
        """Keep the model in eval mode, except where activation checkpointing needs train mode."""
        super().train(mode)
        if not self.checkpoints_activations:
            self.model.eval()
        return self

    def frozen_copy(self) -> HFPolicy | AdaptersOff:
        """Copy the policy for reference; it takes no gradient and does not follow training.

        With adapters the reference is the model without them, at no memory.
        """
        if self.has_adapters:
            return AdaptersOff(self)
        reference = copy.copy(self)
        reference._modules = dict(self._modules)
        reference.model = copy.deepcopy(self.model)
        reference.model.requires_grad_(False)
        return reference.eval()

    # -- the three seams ---------------------------------------------------------------------

    def encode(self, queries: Sequence[Query]) -> EncodedPrompt:
        inputs = self._inputs(queries)
        position_ids, next_position = self.positions(inputs)
        inputs["position_ids"] = position_ids
        prompt = EncodedPrompt(queries, inputs, inputs["attention_mask"], next_position)
        if not self.shared_prompt or self.checkpoints_activations:
            return prompt
        return self._prefill(prompt)

    def _prefill(self, prompt: EncodedPrompt) -> EncodedPrompt:
        with last_logits_only(self.model):
            out = self.model(**prompt.inputs, use_cache=True)
        return replace(
            prompt, layers=cache_layers(out.past_key_values), last_logits_BK=out.logits[:, -1]
        )

    @torch.no_grad()
    def sample(
        self, prompt: EncodedPrompt, num_candidates: int, temperature: float = 1.0
    ) -> Actions:
        with generation_mode(self.model):
            if prompt.layers is None:
                prompt = self._prefill(prompt)
            assert prompt.layers is not None and prompt.last_logits_BK is not None
            num_queries = len(prompt.mask_BP)
            detached = [(keys.detach(), values.detach()) for keys, values in prompt.layers]
            ids, mask, logp = decode(
                self.model,
                expand_cache(detached, num_candidates),
                prompt.last_logits_BK.detach().repeat_interleave(num_candidates, 0),
                prompt.mask_BP.repeat_interleave(num_candidates, 0),
                prompt.next_position_B.repeat_interleave(num_candidates, 0),
                max_new=self.max_completion,
                stop_ids=self.stop_ids,
                pad_id=int(self.stop_ids[0]),
                suppress=self.suppress_ids,
                temperature=temperature,
            )
        shape = (num_queries, num_candidates, -1)
        stopped = (torch.isin(ids, self.stop_ids) & mask).any(-1)
        actions = Actions(
            ids_BGT=ids.view(shape),
            mask_BGT=mask.view(shape),
            logp_BGT=logp.view(shape),
            truncated_BG=~stopped.view(num_queries, num_candidates),
        )
        return self.annotate(prompt.queries, self.with_texts(actions))

    def log_probs(
        self, prompt: EncodedPrompt, actions: Actions, temperature: float = 1.0
    ) -> StepLogProbs:
        if prompt.layers is None:
            logp = self._log_probs_encoding_again(prompt, actions, temperature)
        else:
            logp = self._log_probs_shared(prompt, actions, temperature)
        return StepLogProbs(torch.where(actions.mask_BGT, logp, 0.0))

    # -- inside ------------------------------------------------------------------------------

    def _inputs(self, queries: Sequence[Query]) -> Inputs:
        return {
            name: value.to(self.device) if isinstance(value, Tensor) else value
            for name, value in self.collate(queries).items()
        }

    def _log_probs_shared(
        self, prompt: EncodedPrompt, actions: Actions, temperature: float
    ) -> Tensor:
        """Forward the completion tokens alone, against the prompt's cache."""
        assert prompt.layers is not None and prompt.last_logits_BK is not None
        num_queries, num_candidates, steps = actions.ids_BGT.shape
        ids = actions.ids_BGT.reshape(-1, steps)
        mask = actions.mask_BGT.reshape(-1, steps)
        first = prompt.last_logits_BK.repeat_interleave(num_candidates, 0).unsqueeze(1)
        logits = first
        if steps > 1:
            start = prompt.next_position_B.repeat_interleave(num_candidates, 0)
            steps_ids = torch.arange(steps - 1, device=ids.device)
            attention = torch.cat(
                [prompt.mask_BP.repeat_interleave(num_candidates, 0), mask[:, :-1].long()], dim=1
            )
            rest = self.model(
                input_ids=ids[:, :-1],
                attention_mask=attention,
                position_ids=start.unsqueeze(1) + steps_ids,
                past_key_values=expand_cache(prompt.layers, num_candidates),
                use_cache=True,
            ).logits
            logits = torch.cat([first, rest], dim=1)
        logp = log_softmax_masked(logits, temperature, self.suppress_ids)
        chosen = logp.gather(-1, ids.unsqueeze(-1)).squeeze(-1)
        return chosen.view(num_queries, num_candidates, steps)

    def _log_probs_encoding_again(
        self, prompt: EncodedPrompt, actions: Actions, temperature: float
    ) -> Tensor:
        """Forward prompt and completion of each candidate in full, a few rows at a time."""
        num_queries, num_candidates, steps = actions.ids_BGT.shape
        queries = [query for query in prompt.queries for _ in range(num_candidates)]
        ids = actions.ids_BGT.reshape(-1, steps)
        mask = actions.mask_BGT.reshape(-1, steps)
        chunks = [
            self._full_pass(queries[i:j], ids[i:j], mask[i:j], temperature)
            for i in range(0, len(queries), self.rows_per_pass)
            for j in [i + self.rows_per_pass]
        ]
        return torch.cat(chunks).view(num_queries, num_candidates, steps)

    def _full_pass(
        self, queries: Sequence[Query], ids_NT: Tensor, mask_NT: Tensor, temperature: float
    ) -> Tensor:
        inputs = self._inputs(queries)
        position_ids, next_position = self.positions(inputs)
        steps = ids_NT.shape[1]
        ahead = next_position.unsqueeze(1) + torch.arange(steps, device=ids_NT.device)
        # Omni positions carry three rows (time, height, width) before the batch; text has one.
        ahead = ahead.expand(*position_ids.shape[:-1], steps)
        inputs["position_ids"] = torch.cat([position_ids, ahead], dim=-1)
        inputs["input_ids"] = torch.cat([inputs["input_ids"], ids_NT], dim=1)
        inputs["attention_mask"] = torch.cat([inputs["attention_mask"], mask_NT.long()], dim=1)
        logits = self.model(**inputs, use_cache=False).logits[:, -steps - 1 : -1]
        logp = log_softmax_masked(logits, temperature, self.suppress_ids)
        return logp.gather(-1, ids_NT.unsqueeze(-1)).squeeze(-1)

    def with_texts(self, actions: Actions) -> Actions:
        """Add the decoded texts, special tokens left out."""
        rows = []
        for ids_GT, mask_GT in zip(actions.ids_BGT, actions.mask_BGT, strict=True):
            kept = [ids[mask].tolist() for ids, mask in zip(ids_GT, mask_GT, strict=True)]
            rows.append(tuple(self.tokenizer.batch_decode(kept, skip_special_tokens=True)))
        return replace(actions, texts=tuple(rows))

    def actions_from_texts(self, texts: Sequence[Sequence[str]]) -> Actions:
        """Tokenise given candidates (`texts[b][g]`), each closed with the first stop id.

        All queries must have the same number of candidates.
        """
        stop = int(self.stop_ids[0])
        rows = [
            [*self.tokenizer(text, add_special_tokens=False)["input_ids"], stop]
            for group in texts
            for text in group
        ]
        longest = max(map(len, rows))
        ids = torch.full((len(rows), longest), stop)
        mask = torch.zeros((len(rows), longest), dtype=torch.bool)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row)
            mask[index, : len(row)] = True
        shape = (len(texts), len(texts[0]), longest)
        return Actions(
            ids_BGT=ids.view(shape).to(self.device),
            mask_BGT=mask.view(shape).to(self.device),
            truncated_BG=torch.zeros(shape[:2], dtype=torch.bool, device=self.device),
            texts=tuple(tuple(group) for group in texts),
        )


def switch_dropout_off(model: nn.Module) -> None:
    """Set every rate of dropout to 0: activation checkpointing needs train mode."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        # Layers that call the function keep its rate in an attribute of their own.
        for name, value in list(vars(module).items()):
            if "dropout" in name and isinstance(value, float):
                setattr(module, name, 0.0)


class AdaptersOff:
    """The policy with its adapters switched off: the reference of a run with LoRA.

    It is the model that the adapters were put on, whatever phase it is asked in.
    """

    def __init__(self, policy: HFPolicy) -> None:
        self.policy = policy

    def encode(self, queries: Sequence[Query]) -> EncodedPrompt:
        with self.policy.model.disable_adapter():
            return self.policy.encode(queries)

    def log_probs(
        self, prompt: EncodedPrompt, actions: Actions, temperature: float = 1.0
    ) -> StepLogProbs:
        with self.policy.model.disable_adapter():
            return self.policy.log_probs(prompt, actions, temperature)

    def state_dict(self) -> dict[str, Tensor]:
        """Nothing to keep: the base model is never changed."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        assert not state
