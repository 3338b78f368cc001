"""Attention in which many candidates share one prompt, for any decoder of transformers.

A decoder layer asks `AttentionInterface` for its attention function.  `attending` puts one of
three in its place, none of which copies the prompt's keys and values for each candidate:

* `PromptAttention` encodes a prompt and keeps the keys and values of every layer, with their graph;
* `PackedAttention` scores the tokens of all candidates, packed into one row without padding:
  attention to the prompt and to the candidate's own past are two softmaxes, merged exactly through
  their log-normalisers (as in FlashAttention, arXiv 2205.14135, section 3.1);
* `GrowingCache.attend` decodes: candidates of a question write into one buffer behind their prompt,
  and a mask keeps them apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from core_rl.hf.encoded_prompt import Layers

Parts = tuple[Tensor, Tensor, Tensor]  # query, key and value

NAME = "shared_prompt"
# Options of attention that are not computed here.
_UNKNOWN = ("softcap", "sliding_window", "s_aux", "position_bias", "block_indices")


class SharingUnsupported(Exception):  # noqa: N818 - an answer about the model, not a fault
    """The model's attention is not one that this file computes."""


class PromptEncoded(Exception):  # noqa: N818 - ends a pass early, where its last result is known
    """Ends the forward pass early: only keys and values are needed."""


class AttentionLayer(Protocol):
    """An attention module of a decoder."""

    layer_idx: int


class Attend(Protocol):
    """Stands in for the attention of a layer: [N, heads, Q, D] each -> [N, Q, heads, D]."""

    def __call__(
        self, module: AttentionLayer, query: Tensor, key: Tensor, value: Tensor, scale: float
    ) -> Tensor: ...


_ACTIVE: ContextVar[Attend] = ContextVar("attend")


def _attention(
    module: AttentionLayer,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Hand a layer's attention to the function that `attending` named; dropout is always 0."""
    asked = [name for name in _UNKNOWN if kwargs.get(name) is not None]
    if asked:
        raise SharingUnsupported(f"its attention uses {', '.join(asked)}")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return _ACTIVE.get()(module, query, key, value, scale), None


AttentionInterface.register(NAME, _attention)


@contextmanager
def attending(decoder: nn.Module, attend: Attend) -> Iterator[None]:
    """Let every layer of `decoder` call `attend`; its own attention is back afterwards."""
    # Layers may hold a copy of the model's config; towers have configs of their own.
    held: list[Any] = [m.config for m in decoder.modules() if "config" in vars(m)]
    configs = {id(config): config for config in held}
    before = {key: config._attn_implementation for key, config in configs.items()}
    token = _ACTIVE.set(attend)
    try:
        for config in configs.values():
            config._attn_implementation = NAME
        yield
    finally:
        _ACTIVE.reset(token)
        for key, config in configs.items():
            config._attn_implementation = before[key]


class PromptAttention:
    """Attend as the model would, keep keys and values, and end the pass in the last layer.

    Args:
        num_layers: of the decoder.
        implementation: name of the model's own attention.
    """

    def __init__(self, num_layers: int, implementation: str) -> None:
        self.layers: Layers = []
        self.num_layers = num_layers
        self.own = CausalAttention(implementation)

    def __call__(
        self, module: AttentionLayer, query: Tensor, key: Tensor, value: Tensor, scale: float
    ) -> Tensor:
        if module.layer_idx != len(self.layers):
            raise SharingUnsupported("its layers do not attend once each, in order")
        self.layers.append((key, value))
        if len(self.layers) == self.num_layers:
            raise PromptEncoded
        return self.own(module, query, key, value, scale)


class CausalAttention:
    """Attend as the model would to a prompt by itself.

    Args:
        implementation: name of the model's own attention.
    """

    def __init__(self, implementation: str) -> None:
        # The eager function is not causal without a mask; the prompt has no padding to mask.
        self.own = ALL_ATTENTION_FUNCTIONS["sdpa" if implementation == "eager" else implementation]

    def __call__(
        self, module: AttentionLayer, query: Tensor, key: Tensor, value: Tensor, scale: float
    ) -> Tensor:
        out: Tensor = self.own(module, query, key, value, None, scaling=scale, is_causal=True)[0]
        return out


class PackedAttention:
    """Attend from the packed tokens of candidates to their prompt and to their own past.

    Args:
        prompts: layers of each question's prompt, without its last token.
        mask_BGT: tokens of each candidate; a run of True from the first step on.
    """

    def __init__(self, prompts: Sequence[Layers], mask_BGT: Tensor) -> None:
        self.prompts = prompts
        self.rows = PackedRows(mask_BGT)

    def __call__(
        self, module: AttentionLayer, query: Tensor, key: Tensor, value: Tensor, scale: float
    ) -> Tensor:
        prompt = [part for layers in self.prompts for part in layers[module.layer_idx]]
        if query.device.type == "cpu":
            return merged_attention(query, key, value, scale, self.rows, *prompt)
        return joined_attention(query, key, value, scale, self.rows, *prompt)


class PackedRows:
    """Places of the tokens of N = B * G candidates of up to T tokens in one packed row of S."""

    def __init__(self, mask_BGT: Tensor) -> None:
        self.num_rows, self.steps = mask_BGT.shape[0] * mask_BGT.shape[1], mask_BGT.shape[2]
        self.slots_S = mask_BGT.flatten().nonzero().squeeze(-1)
        self.full = len(self.slots_S) == mask_BGT.numel()
        ends = mask_BGT.sum(dim=(1, 2)).cumsum(0).tolist()
        self.spans = list(zip([0, *ends[:-1]], ends, strict=True))  # of each question

    def pad(self, packed: Tensor) -> Tensor:
        """[S, ...] -> [N, T, ...], zeros after the end of a candidate."""
        shape = (self.num_rows, self.steps, *packed.shape[1:])
        if self.full:
            return packed.reshape(shape)
        grid = packed.new_zeros(self.num_rows * self.steps, *packed.shape[1:])
        return grid.index_copy(0, self.slots_S, packed).view(shape)

    def pack(self, padded: Tensor) -> Tensor:
        """[N, T, ...] -> [S, ...]."""
        flat = padded.reshape(-1, *padded.shape[2:])
        return flat if self.full else flat.index_select(0, self.slots_S)

    def own(self, packed: Tensor) -> Tensor:
        """[1, heads, S, D] -> [N, heads, T, D]."""
        return self.pad(packed[0].transpose(0, 1)).transpose(1, 2)


def _fold(query: Tensor, kv_heads: int) -> Tensor:
    """[heads, S, D] -> [1, kv_heads, group * S, D]: the heads that share keys become rows."""
    heads, steps, width = query.shape
    return query.reshape(1, kv_heads, heads // kv_heads * steps, width)


def _unfold(folded: Tensor, heads: int) -> Tensor:
    """[1, kv_heads, group * S, ...] -> [S, heads, ...]."""
    return folded.reshape(heads, -1, *folded.shape[3:]).transpose(0, 1)


def merged_attention(
    query: Tensor, key: Tensor, value: Tensor, scale: float, rows: PackedRows, *prompt: Tensor
) -> Tensor:
    """Attend by `_MergedAttention`, in one type: autocast's, else the query's."""
    # Autocast knows no kernel by its aten name, and rotary embeddings leave queries in float32.
    cast = torch.is_autocast_enabled("cpu") and query.dtype is not torch.float64
    dtype = torch.get_autocast_dtype("cpu") if cast else query.dtype
    query, key, value, *prompt_parts = (part.to(dtype) for part in (query, key, value, *prompt))
    out: Tensor = _MergedAttention.apply(query, key, value, scale, rows, *prompt_parts)
    return out


class _MergedAttention(torch.autograd.Function):
    """Two flash attentions of a CPU, merged.

    Forward: with o_i and l_i = log sum exp of part i, l = logaddexp(l_1, l_2) and
    o = sum_i exp(l_i - l) o_i.  Backward: the gradient of a part needs only the merged o and l,
    because exp(score - l) is already the probability in the whole.  All inputs are of one type,
    and so is the result; log-normalisers, and the merging with them, are float32 at least.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float,
        rows: PackedRows,
        *prompt: Tensor,
    ) -> Tensor:
        own, log_total = _flash((rows.own(query), rows.own(key), rows.own(value)), True, scale)
        out_SHD = rows.pack(own.transpose(1, 2))
        lse_SH = rows.pack(log_total.transpose(1, 2))
        heads, kv_heads = query.shape[1], key.shape[1]
        outs, totals = [], []
        for (start, stop), keys, values in zip(rows.spans, prompt[::2], prompt[1::2], strict=True):
            mine, mine_total = out_SHD[start:stop], lse_SH[start:stop]
            if keys.shape[2] == 0 or start == stop:
                outs.append(mine)
                totals.append(mine_total)
                continue
            folded = _fold(query[0, :, start:stop], kv_heads)
            seen, seen_total = _flash((folded, keys, values), False, scale)
            seen_total = _unfold(seen_total, heads)
            total = torch.logaddexp(mine_total, seen_total)
            merged = _unfold(seen, heads) * (seen_total - total).exp().unsqueeze(-1)
            mine = mine.to(merged.dtype)
            merged.addcmul_(mine, (mine_total - total).exp().unsqueeze(-1))
            outs.append(merged.to(query.dtype))
            totals.append(total)
        out_SHD, lse_SH = torch.cat(outs), torch.cat(totals)
        ctx.save_for_backward(query, key, value, out_SHD, lse_SH, *prompt)
        ctx.scale, ctx.rows = scale, rows
        return out_SHD.unsqueeze(0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out_SHD, lse_SH, *prompt = ctx.saved_tensors
        rows, scale, grad_SHD = ctx.rows, ctx.scale, grads[0][0]
        heads, kv_heads = query.shape[1], key.shape[1]
        own = _flash_backward(
            rows.pad(grad_SHD).transpose(1, 2),
            (rows.own(query), rows.own(key), rows.own(value)),
            rows.pad(out_SHD).transpose(1, 2),
            rows.pad(lse_SH).transpose(1, 2),
            True,
            scale,
        )
        grad_query, grad_key, grad_value = (rows.pack(part.transpose(1, 2)) for part in own)
        prompt_grads: list[Tensor] = []
        for (start, stop), keys, values in zip(rows.spans, prompt[::2], prompt[1::2], strict=True):
            if keys.shape[2] == 0 or start == stop:
                prompt_grads += [torch.zeros_like(keys), torch.zeros_like(values)]
                continue
            mine = slice(start, stop)
            folded, grad_keys, grad_values = _flash_backward(
                _fold(grad_SHD[mine].transpose(0, 1), kv_heads),
                (_fold(query[0, :, mine], kv_heads), keys, values),
                _fold(out_SHD[mine].transpose(0, 1), kv_heads),
                _fold(lse_SH[mine].T.unsqueeze(-1), kv_heads).squeeze(-1),
                False,
                scale,
            )
            grad_query[mine] += _unfold(folded, heads)
            prompt_grads += [grad_keys, grad_values]
        packed = (part.transpose(0, 1).unsqueeze(0) for part in (grad_query, grad_key, grad_value))
        return *packed, None, None, *prompt_grads


def _flash(parts: Parts, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    """Attention and its log-normaliser, [N, heads, Q, D] and [N, heads, Q]."""
    found: tuple[Tensor, Tensor] = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        *parts, 0.0, causal, scale=scale
    )
    return found


def _flash_backward(
    grad: Tensor, parts: Parts, out: Tensor, log_total: Tensor, causal: bool, scale: float
) -> Parts:
    """Gradients of `parts`."""
    # The kernel reads the log-normaliser as it wrote it: steps before heads.
    log_total = log_total.transpose(1, 2).contiguous().transpose(1, 2)
    found: Parts = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        grad, *parts, out, log_total, 0.0, causal, scale=scale
    )
    return found


def joined_attention(
    query: Tensor, key: Tensor, value: Tensor, scale: float, rows: PackedRows, *prompt: Tensor
) -> Tensor:
    """Compute what `_MergedAttention` does by public operations: prompts copied, one softmax."""
    own_query, own_key, own_value = (rows.own(part) for part in (query, key, value))
    steps, group = rows.steps, rows.num_rows // len(rows.spans)
    causal_TT = torch.ones(steps, steps, dtype=torch.bool, device=query.device).tril()
    outs = []
    for b, (keys, values) in enumerate(zip(prompt[::2], prompt[1::2], strict=True)):
        mine = slice(b * group, (b + 1) * group)
        mask = torch.cat([causal_TT.new_ones(steps, keys.shape[2]), causal_TT], dim=1)
        copies = (group, -1, -1, -1)
        outs.append(
            scaled_dot_product_attention(
                own_query[mine],
                torch.cat([keys.expand(copies), own_key[mine]], dim=2),
                torch.cat([values.expand(copies), own_value[mine]], dim=2),
                attn_mask=mask,
                scale=scale,
                enable_gqa=query.shape[1] != key.shape[1],
            )
        )
    return rows.pack(torch.cat(outs).transpose(1, 2)).unsqueeze(0)
