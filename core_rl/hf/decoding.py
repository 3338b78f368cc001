"""Decode many candidates against prompts that are kept once.

The candidates of a question write their keys and values, token by token, into one buffer behind
the question's prompt; all their queries read that buffer in one attention, under a mask that shows
each candidate the prompt and its own tokens.  Nothing is copied when a token is added, and a
candidate that has ended is removed by dropping its query.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from core_rl.hf.encoded_prompt import Layers
from core_rl.hf.generation import Sampling, draw, refuse_not_finite, suppression
from core_rl.hf.shared_attention import AttentionLayer


class GrowingCache:
    """Keys and values of B prompts and of the tokens that G candidates of each add.

    Candidates are rows, ordered by question.  Their queries fill a grid of B * W cells, W being
    the most candidates that any question still has; it is full, and no copy is made, while all
    questions have equally many.

    Args:
        prompts: layers of each prompt, [1, heads, P, D]; lengths may differ.
        num_candidates: G.
        max_new: tokens a candidate at most.
        group: heads of a query that share the keys of one head.
        order: order in which the D entries of a key are kept; None = as they are.
    """

    def __init__(
        self,
        prompts: Sequence[Layers],
        num_candidates: int,
        max_new: int,
        group: int,
        order: Tensor | None = None,
    ) -> None:
        lengths = [layers[0][0].shape[2] for layers in prompts]
        first = prompts[0][0][0]
        self.start = self.end = max(lengths)  # of the newest column
        self.width, self.group = num_candidates, group
        size = self.end + num_candidates * max_new
        shape = (len(prompts), first.shape[1], size, first.shape[3])
        self.layers: Layers = []
        for index in range(len(prompts[0])):
            keys, values = first.new_zeros(shape), first.new_zeros(shape)
            for b, (layers, length) in enumerate(zip(prompts, lengths, strict=True)):
                key, value = layers[index]
                keys[b, :, :length] = key[0] if order is None else key[0, ..., order]
                values[b, :, :length] = value[0]
            self.layers.append((keys, values))
        seen_BS = torch.arange(size) < torch.tensor(lengths).unsqueeze(1)
        bias_BS = torch.zeros(seen_BS.shape).masked_fill_(~seen_BS, -torch.inf).to(first)
        # One row of the mask for each cell and each head of its group.
        self.bias_BUWS = bias_BS[:, None, None].repeat(1, group, num_candidates, 1)
        self.question_N = torch.arange(len(prompts)).repeat_interleave(num_candidates)
        self.question_N = self.question_N.to(first.device)
        self.cells_N: Tensor | None = None  # of each row in the grid; None = the grid is full

    def open_column(self) -> None:
        """Make room for one more token of every cell, visible only to that cell."""
        self.start, self.end = self.end, self.end + self.width
        self.bias_BUWS[..., self.start : self.end].diagonal(dim1=2, dim2=3).zero_()
        self.mask = self.bias_BUWS.flatten(1, 2).unsqueeze(1)[..., : self.end]

    def attend(
        self, layer: int, query_NHD: Tensor, key_NHD: Tensor, value_NHD: Tensor, scale: float
    ) -> Tensor:
        """Add a token's key and value of every row; attend to prompt and own tokens, [N, H, D]."""
        keys, values = self.layers[layer]
        keys[:, :, self.start : self.end] = self._grid(key_NHD)
        values[:, :, self.start : self.end] = self._grid(value_NHD)
        num_questions, kv_heads, _, width = keys.shape
        grouped = (num_questions, self.width, kv_heads, self.group, width)
        query = self._cells(query_NHD).view(grouped).permute(0, 2, 3, 1, 4)
        out = scaled_dot_product_attention(
            query.reshape(num_questions, kv_heads, -1, width),
            keys[:, :, : self.end],
            values[:, :, : self.end],
            attn_mask=self.mask,
            scale=scale,
        )
        out = out.view(query.shape).permute(0, 3, 1, 2, 4).reshape(-1, *query_NHD.shape[1:])
        return out if self.cells_N is None else out.index_select(0, self.cells_N)

    def _cells(self, rows_NHD: Tensor) -> Tensor:
        if self.cells_N is None:
            return rows_NHD
        cells = rows_NHD.new_zeros(len(self.bias_BUWS) * self.width, *rows_NHD.shape[1:])
        return cells.index_copy_(0, self.cells_N, rows_NHD)

    def _grid(self, rows_NHD: Tensor) -> Tensor:
        """[N, heads, D] -> [B, heads, W, D]."""
        cells = self._cells(rows_NHD)
        return cells.view(-1, self.width, *cells.shape[1:]).transpose(1, 2)

    def keep(self, alive_N: Tensor) -> None:
        """Drop the rows where `alive_N` is False.

        Finished questions are removed once at least half are finished.
        """
        num_questions = len(self.bias_BUWS)
        cells_N = alive_N.nonzero().squeeze(-1) if self.cells_N is None else self.cells_N[alive_N]
        place_N = cells_N % self.width
        question_N = self.question_N[alive_N]
        live = question_N.unique()
        if len(live) <= num_questions // 2:
            self.layers = [
                (keys.index_select(0, live), values.index_select(0, live))
                for keys, values in self.layers
            ]
            self.bias_BUWS = self.bias_BUWS.index_select(0, live)
            question_N = torch.searchsorted(live, question_N)
            num_questions = len(live)
        counts_B = question_N.bincount(minlength=num_questions)
        width = int(counts_B.max())
        first_B = counts_B.cumsum(0) - counts_B
        rank_N = torch.arange(len(question_N), device=first_B.device) - first_B[question_N]
        source_BW = question_N.new_zeros(num_questions, width)
        source_BW[question_N, rank_N] = place_N
        shape = (-1, self.group, -1, self.bias_BUWS.shape[-1])
        self.bias_BUWS = self.bias_BUWS.gather(2, source_BW[:, None, :, None].expand(shape))
        full = len(question_N) == num_questions * width
        self.cells_N = None if full else question_N * width + rank_N
        self.question_N, self.width = question_N, width


class Decoder(Protocol):
    """Feed one token of every row that is still open; return logits of the next, [N, K]."""

    def step(self, ids_N: Tensor, index: int) -> Tensor: ...

    def keep(self, alive_N: Tensor) -> None: ...


class ModelDecoder:
    """Any model, through its own layers; inside `attending(decoder, self.attend)`.

    Args:
        decoder: the layers, from ids to hidden states.
        head: hidden states to logits.
        cache: of the prompts without their last token.
        last_position_B: rotary position of the prompts' last token, on all axes.
    """

    def __init__(
        self, decoder: nn.Module, head: nn.Module, cache: GrowingCache, last_position_B: Tensor
    ) -> None:
        self.decoder, self.head, self.cache = decoder, head, cache
        self.position_N = last_position_B[cache.question_N]

    def attend(
        self, module: AttentionLayer, query: Tensor, key: Tensor, value: Tensor, scale: float
    ) -> Tensor:
        out = self.cache.attend(
            module.layer_idx, query.squeeze(2), key.squeeze(2), value.squeeze(2), scale
        )
        return out.unsqueeze(1)

    def step(self, ids_N: Tensor, index: int) -> Tensor:
        self.cache.open_column()
        hidden = self.decoder(
            input_ids=ids_N.unsqueeze(1),
            position_ids=(self.position_N + index).unsqueeze(1),
            use_cache=False,
        ).last_hidden_state
        logits: Tensor = self.head(hidden[:, 0])
        return logits

    def keep(self, alive_N: Tensor) -> None:
        self.position_N = self.position_N[alive_N]
        self.cache.keep(alive_N)


@torch.inference_mode()  # a tenth cheaper than `no_grad`: a token is hundreds of small operations
def decode_rows(
    decoder: Decoder, last_ids_N: Tensor, sampling: Sampling
) -> tuple[Tensor, Tensor, Tensor]:
    """Continue N rows until each stops or the limit is reached.

    Args:
        decoder: holds the prompts without their last token.
        last_ids_N: that token.
        sampling: how to draw.

    Returns:
        ids_NT, mask_NT (the stop token included) and logp_NT (0 after the end): tensors of
        inference mode, to be cloned before a graph may keep them.
    """
    max_new, temperature = sampling.max_new, sampling.temperature
    shape = (len(last_ids_N), max_new)
    ids_NT = last_ids_N.new_full(shape, sampling.pad_id)
    logp_NT = torch.zeros(shape, device=last_ids_N.device)
    lengths_N = last_ids_N.new_full(shape[:1], max_new)
    rows_N = torch.arange(shape[0], device=last_ids_N.device)
    chosen_N, taken = last_ids_N, 0
    bias_K = stops_K = None
    for step in range(max_new):
        logits_NK = decoder.step(chosen_N, step).float()
        if stops_K is None:
            size = logits_NK.shape[-1]
            bias_K = suppression(sampling.suppress, size, logits_NK.device)
            stops_K = torch.zeros(size, dtype=torch.bool, device=logits_NK.device)
            stops_K[sampling.stop_ids] = True
        if temperature not in (0, 1):
            logits_NK = logits_NK / temperature
        logp_NK = torch.log_softmax(logits_NK if bias_K is None else logits_NK + bias_K, dim=-1)
        chosen_N = logp_NK.argmax(dim=-1) if temperature == 0 else draw(logp_NK)
        ids_NT[rows_N, step] = chosen_N
        logp_NT[rows_N, step] = logp_NK.gather(-1, chosen_N.unsqueeze(-1)).squeeze(-1)
        taken = step + 1
        stopped_N = stops_K[chosen_N]
        if stopped_N.any():
            lengths_N[rows_N[stopped_N]] = taken
            alive_N = ~stopped_N
            rows_N, chosen_N = rows_N[alive_N], chosen_N[alive_N]
            if not len(rows_N):
                break
            if taken < max_new:
                decoder.keep(alive_N)
    refuse_not_finite(logp_NT[:, :taken])
    mask_NT = torch.arange(taken, device=ids_NT.device) < lengths_N.unsqueeze(1)
    return ids_NT[:, :taken], mask_NT, logp_NT[:, :taken]
