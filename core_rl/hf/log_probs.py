"""Log-probs of chosen tokens from hidden states, without the logits of all positions at once.

Logits of G candidates with T tokens over a vocabulary of K are G * T * K numbers, and their
softmax and its gradient as many again: at K = 150 000 that is more than the model itself.  Here the
head runs over a portion of the positions at a time and only the normaliser is kept; the backward
pass computes the portion's logits again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

from core_rl.hf.generation import suppression

CHUNK = {"cpu": 2**21, "cuda": 2**26}  # logits at a time: 8 MiB stay in a CPU's cache; 256 MiB


@dataclass(frozen=True)
class _Softmax:
    """Logits * `inverse_temperature` + `bias_K`, `rows` positions at a time."""

    inverse_temperature: float
    bias_K: Tensor | None
    rows: int

    def scale(self, logits: Tensor) -> Tensor:
        """Scaled logits in float32, -inf at suppressed ids; in place where that is allowed."""
        scaled = logits.float()
        if self.inverse_temperature != 1:
            scaled = scaled.mul_(self.inverse_temperature)
        return scaled if self.bias_K is None else scaled.add_(self.bias_K)

    def parts(self, positions: int) -> list[slice]:
        return [slice(start, start + self.rows) for start in range(0, positions, self.rows)]


def chosen_log_probs(
    head: nn.Module,
    hidden_SD: Tensor,
    chosen_S: Tensor,
    temperature: float,
    suppress: Tensor | None,
    chunk: int | None = None,
) -> Tensor:
    """Return log softmax(head(hidden) / temperature) at the chosen ids, float32, [S].

    Args:
        head: turns hidden states into logits.
        hidden_SD: of the positions that predict.
        chosen_S: the id to score at each position.
        temperature: above 0.
        suppress: ids without probability.
        chunk: logits at a time; None takes what suits the device.
    """
    size = CHUNK.get(hidden_SD.device.type, 2**24) if chunk is None else chunk
    vocabulary = _width(head, hidden_SD)
    bias_K = suppression(suppress, vocabulary, hidden_SD.device)
    rows = max(1, size // vocabulary)
    if type(head) is nn.Linear:
        found: Tensor = _ChosenLogProbs.apply(
            hidden_SD, head.weight, head.bias, chosen_S, _Softmax(1 / temperature, bias_K, rows)
        )
        return found
    # An adapted or quantised head: whatever it computes is computed again in the backward pass.
    parts = [
        checkpoint(_portion, head, hidden, chosen, temperature, bias_K, use_reentrant=False)
        for hidden, chosen in zip(hidden_SD.split(rows), chosen_S.split(rows), strict=True)
    ]
    return torch.cat(parts)


def _width(head: nn.Module, hidden_SD: Tensor) -> int:
    if isinstance(head, nn.Linear):
        return head.out_features
    with torch.no_grad():
        return int(head(hidden_SD[:1]).shape[-1])


def _portion(
    head: nn.Module, hidden_SD: Tensor, chosen_S: Tensor, temperature: float, bias_K: Tensor | None
) -> Tensor:
    logits_SK = head(hidden_SD).float() / temperature
    if bias_K is not None:
        logits_SK = logits_SK + bias_K
    return logits_SK.log_softmax(-1).gather(-1, chosen_S.unsqueeze(-1)).squeeze(-1)


class _ChosenLogProbs(torch.autograd.Function):
    """The head and the softmax in one, `rows` positions at a time."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_SD: Tensor,
        weight_KD: Tensor,
        bias_of_head: Tensor | None,
        chosen_S: Tensor,
        softmax: _Softmax,
    ) -> Tensor:
        ctx.softmax = softmax
        found_S = hidden_SD.new_empty(len(hidden_SD), dtype=torch.float32)
        total_S = torch.empty_like(found_S)
        for part in softmax.parts(len(hidden_SD)):
            logits = linear(hidden_SD[part], weight_KD, bias_of_head)
            ctx.compute_dtype = logits.dtype  # another one than the weight's under autocast
            scaled = softmax.scale(logits)
            torch.logsumexp(scaled, dim=-1, out=total_S[part])
            torch.gather(scaled, 1, chosen_S[part].unsqueeze(1), out=found_S[part].unsqueeze(1))
        ctx.save_for_backward(hidden_SD, weight_KD, bias_of_head, chosen_S, total_S)
        return found_S.sub_(total_S)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden_SD, weight_KD, bias_of_head, chosen_S, total_S = ctx.saved_tensors
        softmax = ctx.softmax
        weight = weight_KD.to(ctx.compute_dtype)
        needs = ctx.needs_input_grad
        grad_hidden = torch.empty_like(hidden_SD) if needs[0] else None
        grad_weight = torch.zeros_like(weight_KD) if needs[1] else None
        grad_bias = torch.zeros_like(bias_of_head) if needs[2] else None
        for part in softmax.parts(len(hidden_SD)):
            hidden = hidden_SD[part].to(ctx.compute_dtype)
            bias = None if bias_of_head is None else bias_of_head.to(ctx.compute_dtype)
            slope = softmax.scale(linear(hidden, weight, bias))
            slope.sub_(total_S[part].unsqueeze(1)).exp_().neg_()  # -p, 0 at suppressed ids
            slope.scatter_add_(1, chosen_S[part].unsqueeze(1), torch.ones_like(slope[:, :1]))
            slope.mul_(grads[0][part].unsqueeze(1) * softmax.inverse_temperature)
            slope = slope.to(ctx.compute_dtype)
            if grad_hidden is not None:
                grad_hidden[part] = slope @ weight
            if grad_weight is not None:
                grad_weight.add_(slope.T @ hidden)
            if grad_bias is not None:
                grad_bias.add_(slope.sum(0))
        return grad_hidden, grad_weight, grad_bias, None, None
