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

from core_rl.hf.generation import generation_mode, log_softmax_masked

Inputs = dict[str, Any]  # what the model's forward takes

LAYOUT = ("input_ids", "attention_mask", "position_ids", "cache_position")


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
    """

    model: nn.Module
    rows: Sequence[Inputs]
    ids_NT: Tensor
    mask_NT: Tensor
    temperature: float = 1.0
    suppress: Tensor | None = None
    batch: Inputs | None = None
    row_in_batch: Sequence[int] = field(default_factory=list)

    @cached_property
    def logits(self) -> list[Tensor]:
        """Raw logits of every completion's tokens, [T_n, K] each, by the plain forward."""
        return [self.forward(n, n) for n in range(len(self.rows))]

    def ids_of(self, n: int) -> Tensor:
        """Tokens of one completion, without what follows its end."""
        return self.ids_NT[n, : int(self.mask_NT[n].sum())]

    def forward(self, n: int, prompt_of: int, **changes: Any) -> Tensor:
        """Logits [T_n, K] of completion n after the prompt of completion `prompt_of`.

        Args:
            n: the completion.
            prompt_of: whose prompt; n for the right one.
            changes: arguments of the model's forward that replace or join the row's own.
        """
        return plain_logits(self.model, self.rows[prompt_of] | changes, self.ids_of(n))

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


@torch.no_grad()
def plain_logits(model: nn.Module, row: Mapping[str, Any], ids_T: Tensor) -> Tensor:
    """Logits [T, K], float32, of the tokens that follow one unpadded prompt.

    Args:
        model: any causal model.
        row: keyword arguments of its forward for one prompt; inputs of a number a token are
            lengthened, `position_ids` are left to the model unless they cover the completion.
        ids_T: the completion.
    """
    steps = len(ids_T)
    prompt = row["input_ids"].shape[-1]
    inputs = dict(row)
    inputs["input_ids"] = torch.cat([row["input_ids"], ids_T.unsqueeze(0)], dim=-1)
    for name, value in row.items():
        if name == "input_ids" or not isinstance(value, Tensor):
            continue
        if name == "position_ids" and value.shape[-1] == prompt:
            del inputs[name]
        elif value.ndim == 2 and value.shape == row["input_ids"].shape:
            fill = 1 if name == "attention_mask" else 0
            inputs[name] = torch.cat([value, value.new_full((1, steps), fill)], dim=-1)
    with generation_mode(model):
        logits = model(**inputs, use_cache=False).logits
    return logits[0, -steps - 1 : -1].float()


def unpadded_rows(inputs: Mapping[str, Any]) -> list[Inputs]:
    """Cut a padded batch of text into its rows.

    Raises:
        ValueError: it holds more than text; nobody but the processor knows what belongs to a row.
    """
    count = len(inputs["input_ids"])
    other = sorted(set(inputs) - set(LAYOUT) - {"token_type_ids"})
    if other and count > 1:
        raise ValueError(
            f"inputs hold {other} for {count} prompts: pass rows=[...], the processor's output for "
            "each prompt alone"
        )
    mask = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"])).bool()
    rows = []
    for n in range(count):
        row = {name: value for name, value in inputs.items() if name in other}
        row["input_ids"] = inputs["input_ids"][n][mask[n]].unsqueeze(0)
        row["attention_mask"] = torch.ones_like(row["input_ids"])
        rows.append(row)
    return rows


def takes(model: nn.Module, argument: str) -> bool:
    """Tell whether a model's forward knows an argument."""
    return argument in inspect.signature(model.forward).parameters
