"""A Hugging Face causal model as a `core_rl.types.Policy`.

The prompt of a question is encoded once.  Its keys and values serve the decoding of all G
candidates and, with their graph, the log-probs, so that one backward pass reaches the prompt (and
any media tower) through all of them; see `core_rl.hf.shared_prompt`.  Where that is not possible,
e.g. under activation checkpointing, the prompt is encoded again for every candidate.  Tests hold
the two paths equal.
"""

from __future__ import annotations

import copy
import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from core_rl.hf.encoded_prompt import PER_TOKEN, EncodedPrompt, Inputs, Prefix, followed_by
from core_rl.hf.generation import Sampling, generation_mode
from core_rl.hf.loading import switch_dropout_off
from core_rl.hf.reference import AdapterReference, frozen_model
from core_rl.hf.repeated_prompt import draw_with_copies, score_with_copies
from core_rl.hf.shared_attention import SharingUnsupported
from core_rl.hf.shared_prompt import (
    draw_candidates,
    encode_prompt,
    score_candidates,
    why_not_shared,
)
from core_rl.hf.sharing_check import attention_window, length_limit, probe, why_different
from core_rl.types import Actions, Policy, Query, StepLogProbs

log = logging.getLogger(__name__)


class HFPolicy(Policy[EncodedPrompt]):
    """Encode, sample and score with any causal model; subclasses say how a query becomes inputs.

    Args:
        model: a model with an output head; its dropout is set to 0.
        tokenizer: decodes completions.
        stop_ids: ids that end a completion.
        suppress_ids: ids never drawn; masked in the log-probs as well, or the ratio is biased.
        max_completion: limit of new tokens.
        shared_prompt: encode a prompt once for all its candidates; off, everything is done with a
            copy of the prompt for each.
        rows_per_pass: sequences a forward on the path that encodes again.
        fused_decode: decode by `core_rl.hf.fused_decoder` where that fits the model.
        recompute: what a shared prompt's backward pass computes again instead of keeping it:
            `auto` = layers of the prompt, cheap operations of the completions; `layers` of both;
            `never`.  See `core_rl.hf.recompute`.
        compare: before sharing prompts, compare both ways once; see `core_rl.hf.sharing_check`.

    Attributes:
        per_token: names of the inputs, beside `input_ids`, that `collate` makes with one number a
            token; see `core_rl.hf.encoded_prompt.PER_TOKEN`.
        rounding: gap of log-probs, mean and largest, that half precision alone makes; 0 until the
            doctor has measured it.
    """

    is_language_model = True
    per_token: ClassVar[Mapping[str, int]] = PER_TOKEN
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
        fused_decode: bool = True,
        recompute: str = "auto",
        compare: bool = True,
    ) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.max_completion = max_completion
        self.shared_prompt = shared_prompt
        self.rows_per_pass = rows_per_pass
        self.fused_decode = fused_decode
        self.recompute = recompute
        self.compare = compare
        self.rounding = (0.0, 0.0)
        self._compared: set[bool] = set()  # with gradients, without
        self._reason = ""  # why prompts are not shared, as last logged
        self.register_buffer("stop_ids", torch.tensor(list(stop_ids)), persistent=False)
        self.register_buffer(
            "suppress_ids", torch.tensor(list(suppress_ids), dtype=torch.long), persistent=False
        )
        switch_dropout_off(model)

    @abstractmethod
    def collate(self, queries: Sequence[Query]) -> Inputs:
        """Turn queries into a left-padded batch for the model's forward.

        An input with one number a token that is not in `PER_TOKEN` must be named in `per_token`.
        """

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

    def frozen_copy(self) -> HFPolicy | AdapterReference:
        """Copy the policy for reference; it takes no gradient and does not follow training.

        With adapters, only those are copied; otherwise see `core_rl.hf.reference`.
        """
        if self.has_adapters:
            return AdapterReference(self)
        reference = copy.copy(self)
        reference._modules = dict(self._modules)
        reference.model = frozen_model(self.model)
        return reference.eval()

    # -- what the loop uses ------------------------------------------------------------------

    def encode(self, queries: Sequence[Query]) -> EncodedPrompt:
        """Encode each query by itself, without padding; with its graph where gradients are on."""
        if not self.shared_prompt or self._logs_why_not(why_not_shared(self.model)):
            return EncodedPrompt(queries)
        if self.compare and torch.is_grad_enabled() not in self._compared:
            self._compare_sharing(queries[:1])
        return EncodedPrompt(queries, self._prefixes(queries) if self.shared_prompt else None)

    def _compare_sharing(self, queries: Sequence[Query]) -> None:
        """Stop sharing prompts where that gives other numbers, or an error, for this model."""
        # What holds with gradients holds without.
        self._compared |= {torch.is_grad_enabled(), False}
        words = self.tokenizer("Two of them nod.", add_special_tokens=False)["input_ids"]
        actions = probe(words, self.suppress_ids, self.device)

        def score(shared: bool, actions: Actions) -> Tensor:
            prefixes = self._prefixes(queries) if shared else None
            return self.log_probs(EncodedPrompt(queries, prefixes), actions).logp_BGT

        try:
            prompt = self.inputs(queries)["input_ids"].shape[1]
            ways = partial(score, True), partial(score, False)
            reason = why_different(self.model, *ways, actions, prompt)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever a model's own code raises in the shared pass
            score(False, actions)  # a model that fails in both ways says so itself
            reason = f"it raises {type(error).__name__}: {str(error).splitlines()[0]}"
        if self._logs_why_not(reason):
            self.shared_prompt = False

    @torch.no_grad()
    def sample(
        self, prompt: EncodedPrompt, num_candidates: int, temperature: float = 1.0
    ) -> Actions:
        stops = self.stop_ids
        sampling = Sampling(
            self.max_completion, stops, int(stops[0]), self.suppress_ids, temperature
        )
        with generation_mode(self.model):
            prefixes = prompt.prefixes
            # Without checkpointing, which generation mode switches off, it may be possible now.
            if prefixes is None and self.shared_prompt and why_not_shared(self.model) is None:
                prefixes = self._prefixes(prompt.queries)
            if prefixes is None:
                copies = [query for query in prompt.queries for _ in range(num_candidates)]
                ids, mask, logp = draw_with_copies(self.model, *self._build(copies), sampling)
            else:
                ids, mask, logp = draw_candidates(
                    self.model, prefixes, num_candidates, sampling, self.fused_decode
                )
        num_queries = len(prompt.queries)
        shape = (num_queries, num_candidates, -1)
        stopped = (torch.isin(ids, stops) & mask).any(-1)
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
        how = temperature, self.suppress_ids
        if prompt.prefixes is not None:
            logp_BGT = score_candidates(self.model, prompt.prefixes, actions, *how, self.recompute)
        else:
            build = partial(self._build_whole, prompt.queries)
            logp_BGT = score_with_copies(self.model, build, actions, *how, self.rows_per_pass)
        return StepLogProbs(logp_BGT)

    def prompt_ids(self, prompt: EncodedPrompt) -> list[list[int]]:
        """Token ids of each prompt, without padding."""
        if prompt.prefixes is not None:
            return [prefix.ids.tolist() for prefix in prompt.prefixes]
        inputs = self.inputs(prompt.queries)
        rows = zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
        return [ids[mask.bool()].tolist() for ids, mask in rows]

    # -- how a prompt becomes inputs ---------------------------------------------------------

    def inputs(self, queries: Sequence[Query]) -> Inputs:
        """Collate queries on the model's device, in full precision also under autocast."""
        # Media are prepared in full precision: their front ends do not support bfloat16.
        with torch.autocast("cpu", enabled=False):
            inputs = self.collate(queries)
        return {
            name: value.to(self.device) if isinstance(value, Tensor) else value
            for name, value in inputs.items()
        }

    def _logs_why_not(self, reason: str | None) -> bool:
        """Log once why prompts are encoded again for every candidate."""
        if reason is not None and reason != self._reason:
            self._reason = reason
            log.info("prompts are encoded again for every candidate: %s", reason)
        return reason is not None

    def _prefixes(self, queries: Sequence[Query]) -> tuple[Prefix, ...] | None:
        found = []
        for query in queries:
            try:
                inputs, next_position = self._build([query])
                self._check_window(inputs["input_ids"].shape[1])
                found.append(encode_prompt(self.model, inputs, next_position, self.recompute))
            except SharingUnsupported as reason:
                self._logs_why_not(str(reason))
                self.shared_prompt = False
                return None
        return tuple(found)

    def _build(self, queries: Sequence[Query]) -> tuple[Inputs, Tensor]:
        """Inputs with their positions, and the position that follows each prompt."""
        inputs = self.inputs(queries)
        inputs["position_ids"], next_position = self.positions(inputs)
        self._check_length(inputs["input_ids"].shape[1])
        return inputs, next_position

    def _check_window(self, prompt: int) -> None:
        window = attention_window(self.model.config.get_text_config())
        if window is not None and prompt + self.max_completion > window:
            raise SharingUnsupported(f"its layers attend to the last {window} tokens only")

    def _check_length(self, prompt: int) -> None:
        limit = length_limit(self.model.config.get_text_config())
        if limit is not None and prompt + self.max_completion > limit:
            raise ValueError(
                f"a prompt of {prompt} tokens and a completion of up to {self.max_completion} go "
                f"beyond {limit}, where this model's rotary positions change with the length: what "
                "is drawn would not be what is scored; lower rollout.max_prompt or "
                "rollout.max_completion"
            )

    def _build_whole(
        self, queries: Sequence[Query], chosen: list[int], ids_NT: Tensor, mask_NT: Tensor
    ) -> Inputs:
        """Inputs of the chosen queries' prompts with a completion behind each."""
        inputs, next_position = self._build([queries[b] for b in chosen])
        ahead = next_position.unsqueeze(1) + torch.arange(ids_NT.shape[1], device=ids_NT.device)
        # Omni positions carry three rows (time, height, width) before the batch; text has one.
        places = inputs["position_ids"]
        places = torch.cat([places, ahead.expand(*places.shape[:-1], -1)], dim=-1)
        return followed_by(inputs, ids_NT, mask_NT, self.per_token) | {"position_ids": places}

    def with_texts(self, actions: Actions) -> Actions:
        """Add the decoded texts, special tokens left out."""
        rows = []
        for ids_GT, mask_GT in zip(actions.ids_BGT, actions.mask_BGT, strict=True):
            kept = [ids[mask].tolist() for ids, mask in zip(ids_GT, mask_GT, strict=True)]
            rows.append(tuple(self.tokenizer.batch_decode(kept, skip_special_tokens=True)))
        return replace(actions, texts=tuple(rows))

    @property
    def end_id(self) -> int:
        """The stop id that closes a given text: the tokenizer's own, else the first."""
        own = self.tokenizer.eos_token_id
        stops: list[int] = self.stop_ids.tolist()
        return own if own in stops else stops[0]

    def actions_from_texts(self, texts: Sequence[Sequence[str]]) -> Actions:
        """Tokenise given candidates (`texts[b][g]`), each closed as `end_id` says.

        All queries must have the same number of candidates.
        """
        stop = self.end_id
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
