"""Log-probabilities as decoding saw them against one plain forward.

The plain forward is the judge: one unpadded row, evaluation mode, no cache, positions left to the
model.  Whatever decoding or the training forward does differently (a lost cache, another prompt,
padding, warped scores, dropout, other weights) shows as a gap.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache

from core_rl.hf.encoded_prompt import PER_TOKEN, Inputs, followed_by
from core_rl.hf.generation import generation_mode, log_softmax_masked


@dataclass(frozen=True)
class Tolerance:
    """Largest gaps that a healthy run shows, in nats.

    Attributes:
        max_abs: of one token.
        mean_abs: over all tokens.
    """

    max_abs: float
    mean_abs: float


FULL = Tolerance(max_abs=1e-3, mean_abs=1e-3)  # float32; healthy: 1e-6 to 1e-5
HALF = Tolerance(max_abs=0.5, mean_abs=0.05)  # bfloat16 and float16; healthy: about 1e-2


def tolerance_of(model: nn.Module) -> Tolerance:
    """Tolerance for the precision that a model computes in, autocast included."""
    first = next(model.parameters())
    halved = first.dtype in (torch.bfloat16, torch.float16)
    return HALF if halved or torch.is_autocast_enabled(first.device.type) else FULL


@dataclass(frozen=True)
class Gap:
    """|difference| of two sets of log-probabilities over real tokens, in nats.

    Attributes:
        first: largest, at the first token of a completion.
        rest: largest, at the tokens after it; 0 where there are none.
        mean: over all tokens.
    """

    first: float
    rest: float
    mean: float

    @property
    def max(self) -> float:
        return max(self.first, self.rest)

    def within(self, tolerance: Tolerance) -> bool:
        """Tell whether both limits hold; a gap that is not a number is never within."""
        return self.max <= tolerance.max_abs and self.mean <= tolerance.mean_abs


def gap_between(one_NT: Tensor, other_NT: Tensor, mask_NT: Tensor) -> Gap:
    """Compare two scorings of the same tokens; what is not finite in either counts as infinite."""
    gap_NT = (one_NT.float() - other_NT.float()).abs()
    gap_NT = torch.where(gap_NT.isfinite(), gap_NT, math.inf)
    gap_NT = torch.where(mask_NT, gap_NT, 0.0)
    rest = float(gap_NT[:, 1:].max()) if gap_NT.shape[1] > 1 else 0.0
    mean = float(gap_NT.sum() / mask_NT.sum().clamp(min=1))
    return Gap(float(gap_NT[:, 0].max()), rest, mean)


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


class CacheWatch:
    """The cache that a model was called with again and again; inside `watch_cache` only."""

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
    """Look over a model's shoulder while anything generates with it."""
    watch = CacheWatch()

    def remember(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        given = kwargs.get("past_key_values")
        if isinstance(given, Cache):
            watch.see(given)

    handle = model.register_forward_pre_hook(remember, with_kwargs=True)
    try:
        yield watch
    finally:
        handle.remove()


@dataclass(frozen=True)
class Case:
    """Completions with all that is needed to score them anew, rightly or wrongly.

    Attributes:
        model: in any mode; it is put into evaluation mode for every forward here.
        rows: the prompt of each of N completions, alone and without padding.
        ids_NT: the completions.
        mask_NT: True on real tokens.
        temperature: at which they were meant to be drawn and scored.
        suppress: ids that were meant never to be drawn, or None.
        batch: the padded prompts as decoding was given them, where known.
        row_in_batch: which row of `batch` each completion belongs to.
        per_token: see `core_rl.hf.encoded_prompt.PER_TOKEN`.
    """

    model: nn.Module
    rows: Sequence[Inputs]
    ids_NT: Tensor
    mask_NT: Tensor
    temperature: float = 1.0
    suppress: Tensor | None = None
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

    def score(
        self,
        logits: Sequence[Tensor] | None = None,
        temperature: float | None = None,
        suppress: bool = True,
    ) -> Tensor:
        """Log-probabilities [N, T] of the completions; by default as they ought to be."""
        blocked = self.suppress if suppress else None
        out = torch.zeros(self.ids_NT.shape, device=self.ids_NT.device)
        for n, logits_TK in enumerate(self.logits if logits is None else logits):
            ids_T = self.ids_of(n)
            logp_TK = log_softmax_masked(logits_TK, temperature or self.temperature, blocked)
            out[n, : len(ids_T)] = logp_TK.gather(-1, ids_T.unsqueeze(-1)).squeeze(-1)
        return out


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


def takes(model: nn.Module, argument: str) -> bool:
    """Tell whether a model's forward knows an argument."""
    return argument in inspect.signature(model.forward).parameters
