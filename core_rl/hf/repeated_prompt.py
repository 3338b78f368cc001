"""The usual way: a copy of the prompt, media included, for every candidate.

It is used where a prompt cannot be encoded once, and the shared path is tested against it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import PreTrainedModel

from core_rl.hf.encoded_prompt import Inputs
from core_rl.hf.generation import (
    Sampling,
    cache_name,
    decode,
    hidden_states_only,
    last_logits_only,
    log_softmax_masked,
)
from core_rl.hf.log_probs import chosen_log_probs
from core_rl.hf.shared_prompt import has_plain_head
from core_rl.types import Actions

# Indices of N queries, their completions [N, T] and mask -> a left-padded batch.
Build = Callable[[list[int], Tensor, Tensor], Inputs]


def draw_with_copies(
    model: PreTrainedModel, inputs: Inputs, next_position_N: Tensor, sampling: Sampling
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw one candidate of each row; see `core_rl.hf.generation.decode`."""
    with last_logits_only(model):
        out = model(**inputs, use_cache=True)
    name = cache_name(model)
    if name not in out:
        raise ValueError(
            f"{type(model).__name__} keeps a state instead of keys and values: only models that "
            "attend in every layer can be trained here"
        )
    cache, mask = out[name], inputs["attention_mask"]
    return decode(model, cache, out.logits[:, -1], mask, next_position_N, sampling)


def score_with_copies(
    model: PreTrainedModel,
    build: Build,
    actions: Actions,
    temperature: float,
    suppress: Tensor | None,
    rows_per_pass: int,
) -> Tensor:
    """Forward prompt and completion of each candidate in full, a few rows at a time.

    Rows of like length go together, the longest first: a lack of memory shows at once.

    Returns:
        Log-probs BGT, 0 after the end of a candidate.
    """
    num_candidates, steps = actions.ids_BGT.shape[1:]
    ids_NT = actions.ids_BGT.reshape(-1, steps)
    mask_NT = actions.mask_BGT.reshape(-1, steps)
    order_N = mask_NT.sum(-1).argsort(descending=True, stable=True)
    parts = []
    for rows in order_N.split(rows_per_pass):
        longest = max(1, int(mask_NT[rows].sum(-1).max()))
        ids, mask = ids_NT[rows, :longest], mask_NT[rows, :longest]
        inputs = build((rows // num_candidates).tolist(), ids, mask)
        logp = _full_pass(model, inputs, ids, mask, temperature, suppress)
        parts.append(pad(logp, (0, steps - longest)))
    return torch.cat(parts)[order_N.argsort()].view(actions.ids_BGT.shape)


def _full_pass(
    model: PreTrainedModel,
    inputs: Inputs,
    ids_NT: Tensor,
    mask_NT: Tensor,
    temperature: float,
    suppress: Tensor | None,
) -> Tensor:
    scored = slice(-ids_NT.shape[1] - 1, -1)
    if not has_plain_head(model):
        logits = model(**inputs, use_cache=False).logits[:, scored]
        logp = log_softmax_masked(logits, temperature, suppress)
        return torch.where(mask_NT, logp.gather(-1, ids_NT.unsqueeze(-1)).squeeze(-1), 0.0)
    with hidden_states_only(model):
        hidden = model(**inputs, use_cache=False).logits[:, scored]
    head = model.get_output_embeddings()
    logp = chosen_log_probs(head, hidden[mask_NT], ids_NT[mask_NT], temperature, suppress)
    return logp.new_zeros(mask_NT.shape).masked_scatter(mask_NT, logp)
