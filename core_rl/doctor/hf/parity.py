"""Log-probabilities as decoding saw them against one plain forward.

The plain forward is the reference: one unpadded row, evaluation mode, no cache, positions left to
the model.  Whatever decoding or the training forward does differently (a lost cache, another
prompt, padding, warped scores, dropout, other weights) shows as a gap.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache
from transformers.modeling_layers import GradientCheckpointingLayer

from core_rl.doctor.agreement import Gap, gap_between
from core_rl.hf.encoded_prompt import PER_TOKEN, Inputs, followed_by
from core_rl.hf.generation import generation_mode, log_softmax_masked

ROUNDING_ROWS = 4  # whose rounding is measured


@dataclass(frozen=True)
class Drawn:
    """Completions of N rows, with the log-probabilities that decoding saw.

    Attributes:
        ids_NT: drawn tokens; anything where the mask is False.
        mask_NT: True on real tokens, the stop token included.
        logp_NT: under the distribution that each token was drawn from.
        cache_length: keys in the cache after the last token; None where there was no cache to see.
        prompt_length: P of the padded batch that was decoded.
    """

    ids_NT: Tensor
    mask_NT: Tensor
    logp_NT: Tensor
    cache_length: int | None = None
    prompt_length: int = 0


@dataclass(frozen=True)
class Scored:
    """Log-probs [N, T] of the same tokens by two training forwards."""

    logp_NT: Tensor
    again_NT: Tensor


class CacheWatch:
    """The cache of the latest calls of a model; inside `watch_cache` only."""

    def __init__(self) -> None:
        self._cache: Cache | None = None
        self._calls = 0

    def see(self, cache: Cache) -> None:
        """Note a call with a cache."""
        self._calls = self._calls + 1 if cache is self._cache else 1
        self._cache = cache

    @property
    def length(self) -> int | None:
        """Keys in it now; None where no cache served more than one call."""
        if self._cache is None or self._calls < 2:
            return None
        return int(self._cache.get_seq_length())


@contextmanager
def watch_cache(model: nn.Module) -> Iterator[CacheWatch]:
    """Note the cache of every call of a model, whatever draws with it."""
    watch = CacheWatch()

    def remember(_: nn.Module, args: object, kwargs: dict[str, Any]) -> None:
        for given in kwargs.values():  # by type: releases of transformers name it differently
            if isinstance(given, Cache):
                watch.see(given)

    handle = model.register_forward_pre_hook(remember, with_kwargs=True)
    try:
        yield watch
    finally:
        handle.remove()


@dataclass(frozen=True)
class Case:
    """Completions with what is needed to score them again, correctly or under a fault.

    Attributes:
        model: in any mode; it is put into evaluation mode for every forward here.
        rows: the prompt of each of N completions, alone and without padding.
        ids_NT: the completions.
        mask_NT: True on real tokens.
        temperature: at which they were meant to be drawn and scored.
        suppress: ids that were meant never to be drawn.
        batch: the padded prompts as decoding was given them, where known.
        row_in_batch: which row of `batch` each completion belongs to.
        per_token: see `core_rl.hf.encoded_prompt.PER_TOKEN`.
    """

    model: nn.Module
    rows: Sequence[Inputs]
    ids_NT: Tensor
    mask_NT: Tensor
    temperature: float = 1.0
    suppress: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    batch: Inputs | None = None
    row_in_batch: Sequence[int] = field(default_factory=list)
    per_token: Mapping[str, int] = field(default_factory=lambda: PER_TOKEN)

    @cached_property
    def logits(self) -> list[Tensor]:
        """Raw logits of every completion's tokens, [T_n, K] each, by the plain forward."""
        return [self.forward(n, row) for n, row in enumerate(self.rows)]

    def ids_of(self, n: int) -> Tensor:
        """Tokens of one completion, without what follows its end."""
        return self.ids_NT[n, : int(self.mask_NT[n].sum())]

    def forward(self, n: int, row: Inputs, positions: Tensor | None = None) -> Tensor:
        """Logits [T_n, K], float32, of completion n after one unpadded prompt.

        Args:
            n: the completion.
            row: the prompt; `rows[n]` is the right one.
            positions: of prompt and completion, [1, P + T_n]; None leaves them to the model.
        """
        ids_1T = self.ids_of(n).unsqueeze(0)
        inputs = followed_by(row, ids_1T, per_token=self.per_token)
        inputs.pop("position_ids", None)
        if positions is not None:
            inputs["position_ids"] = positions
        with generation_mode(self.model):
            logits = self.model(**inputs, use_cache=False).logits
        return logits[0, -ids_1T.shape[1] - 1 : -1].float()

    @cached_property
    def rounding(self) -> Gap:
        """What half precision alone does to log-probs of this model.

        The plain forward is compared with one in which the result of every layer is moved by half
        of the last bit, up or down at random, as rounding in another order of sums would.
        """
        count = min(len(self.rows), ROUNDING_ROWS)
        few = replace(self, ids_NT=self.ids_NT[:count], mask_NT=self.mask_NT[:count])
        with _last_bits_moved(self.model):
            moved = [self.forward(n, self.rows[n]) for n in range(count)]
        return gap_between(few.score(moved), few.score(self.logits[:count]), few.mask_NT)

    def score(
        self,
        logits: Sequence[Tensor] | None = None,
        temperature: float | None = None,
        suppress: bool = True,
    ) -> Tensor:
        """Log-probabilities [N, T] of the completions; by default the correct ones."""
        blocked = self.suppress if suppress else None
        out = torch.zeros(self.ids_NT.shape, device=self.ids_NT.device)
        for n, logits_TK in enumerate(self.logits if logits is None else logits):
            ids_T = self.ids_of(n)
            logp_TK = log_softmax_masked(logits_TK, temperature or self.temperature, blocked)
            out[n, : len(ids_T)] = logp_TK.gather(-1, ids_T.unsqueeze(-1)).squeeze(-1)
        return out


@contextmanager
def _last_bits_moved(model: nn.Module) -> Iterator[None]:
    """Inside, every layer's result has its last bit up or down by a half, at random."""
    generator = torch.Generator().manual_seed(0)

    def moved(hidden: Tensor) -> Tensor:
        signs = torch.randint(0, 2, hidden.shape, generator=generator) * 2 - 1
        half_a_bit = torch.finfo(torch.bfloat16).eps / 2
        if hidden.dtype == torch.float16:
            half_a_bit = torch.finfo(torch.float16).eps / 2
        return hidden * (1 + half_a_bit * signs.to(hidden.device)).to(torch.float32)

    def hook(_: nn.Module, __: object, out: Any) -> Any:
        first = out[0] if isinstance(out, tuple) else out
        changed = moved(first).to(first.dtype)
        return (changed, *out[1:]) if isinstance(out, tuple) else changed

    layers = [part for part in model.modules() if isinstance(part, GradientCheckpointingLayer)]
    handles = [layer.register_forward_hook(hook) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def unpadded_rows(inputs: Mapping[str, Any]) -> list[Inputs]:
    """Cut a padded batch of text into its rows.

    Raises:
        ValueError: it holds more than text; nobody but the processor knows what belongs to a row.
    """
    count = len(inputs["input_ids"])
    other = {
        name: value
        for name, value in inputs.items()
        if name not in ("input_ids", "position_ids", "cache_position", *PER_TOKEN)
    }
    if other and count > 1:
        raise ValueError(
            f"inputs hold {sorted(other)} for {count} prompts: pass rows=[...], the processor's "
            "output for each prompt alone"
        )
    mask = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"])).bool()
    laid_out = {"attention_mask": mask.long()} | {
        name: inputs[name] for name in ("input_ids", *PER_TOKEN) if name in inputs
    }
    return [
        other | {name: value[n][mask[n]].unsqueeze(0) for name, value in laid_out.items()}
        for n in range(count)
    ]
