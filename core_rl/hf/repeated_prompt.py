"""The usual way: a copy of the prompt, media and all, for every candidate.

It is what remains where a prompt cannot be encoded once, and what the other path is tested against.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from core_rl.hf.encoded_prompt import Inputs
from core_rl.hf.generation import (
    decode,
    hidden_states_only,
    last_logits_only,
    log_softmax_masked,
)
from core_rl.hf.log_probs import chosen_log_probs
from core_rl.hf.shared_prompt import has_plain_head, is_partitioned
from core_rl.types import Actions, Query

# Queries, their completions [N, T] and mask to a left-padded batch with `position_ids`.
Build = Callable[[Sequence[Query], Tensor, Tensor], Inputs]


def draw_with_copies(
    model: Any, inputs: Inputs, next_position: Tensor, limits: dict[str, Any]
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw one candidate of each row; see `core_rl.hf.generation.decode`."""
    with last_logits_only(model):
        out = model(**inputs, use_cache=True)
    mask = inputs["attention_mask"]
    return decode(model, out.past_key_values, out.logits[:, -1], mask, next_position, **limits)


def score_with_copies(
    model: Any,
    build: Build,
    queries: Sequence[Query],
    actions: Actions,
    temperature: float,
    suppress: Tensor | None,
    rows_per_pass: int,
) -> Tensor:
    """Forward prompt and completion of each candidate in full, a few rows at a time.

    Rows of like length go together and the longest first: what does not fit into memory shows at
    once.

    Returns:
        Log-probs BGT, 0 after the end of a candidate.
    """
    num_candidates, steps = actions.ids_BGT.shape[1:]
    copies = [query for query in queries for _ in range(num_candidates)]
    ids_NT = actions.ids_BGT.reshape(-1, steps)
    mask_NT = actions.mask_BGT.reshape(-1, steps)
    order_N = mask_NT.sum(-1).argsort(descending=True, stable=True)
    parts = []
    for rows in order_N.split(rows_per_pass):
        longest = max(1, int(mask_NT[rows].sum(-1).max()))
        ids, mask = ids_NT[rows, :longest], mask_NT[rows, :longest]
        inputs = build([copies[row] for row in rows.tolist()], ids, mask)
        logp = _full_pass(model, inputs, ids, mask, temperature, suppress)
        parts.append(pad(logp, (0, steps - longest)))
    return torch.cat(parts)[order_N.argsort()].view(actions.ids_BGT.shape)


def _full_pass(
    model: Any,
    inputs: Inputs,
    ids_NT: Tensor,
    mask_NT: Tensor,
    temperature: float,
    suppress: Tensor | None,
) -> Tensor:
    scored = slice(-ids_NT.shape[1] - 1, -1)
    if not has_plain_head(model) or is_partitioned(model):
        logits = model(**inputs, use_cache=False).logits[:, scored]
        logp = log_softmax_masked(logits, temperature, suppress)
        return torch.where(mask_NT, logp.gather(-1, ids_NT.unsqueeze(-1)).squeeze(-1), 0.0)
    with hidden_states_only(model):
        hidden = model(**inputs, use_cache=False).logits[:, scored]
    head = model.get_output_embeddings()
    logp = chosen_log_probs(head, hidden[mask_NT], ids_NT[mask_NT], temperature, suppress)
    return logp.new_zeros(mask_NT.shape).masked_scatter(mask_NT, logp)
