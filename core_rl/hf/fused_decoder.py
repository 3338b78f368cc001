"""A decoder of the Llama and Qwen2 family as a few dozen operations a layer and token.

Decoding a handful of rows on a CPU spends its time between the matrix products: modules, small
element-wise operations, weights that lie the wrong way round.  Here, with the weights as they are
at the start of a rollout,

* query, key and value are one product, gate and up another, over weights stored input by output;
* the weights of a norm are multiplied into the product that follows;
* the two halves of a rotary pair lie side by side, so that a rotation is one complex product.

The numbers are the model's up to rounding.  Weights are copied, so this is for models that are
small beside the memory; `FusedDecoder.fits` decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from core_rl.hf.decoding import GrowingCache

MAX_WEIGHTS = 2**28  # numbers copied at most: 1 GiB in float32
_FAMILY = ("LlamaModel", "Qwen2Model", "Qwen2_5OmniThinkerTextModel", "Qwen2_5_VLTextModel")
_FIXED_ROTARY = ("default", "linear", "llama3", "yarn")  # frequencies that length does not change
_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj")


@dataclass(frozen=True)
class _Layer:
    """Weights [in, out] of one layer, norms and their factor sqrt(in) multiplied in."""

    qkv: Tensor
    qkv_bias: Tensor | None
    out: Tensor
    gate_up: Tensor
    down: Tensor
    scale: float


def pairs_side_by_side(width: int) -> Tensor:
    """Order of a head's entries in which rotary partners i and i + width / 2 are neighbours."""
    return torch.arange(width).view(2, -1).T.flatten()


class FusedDecoder:
    """Decodes as `core_rl.hf.decoding.ModelDecoder` does, for the models that `fits` accepts.

    Args:
        decoder: the layers.
        head: hidden states to logits.
        cache: of the prompts, keys in the order of `pairs_side_by_side`.
        last_position_B: rotary position of the prompts' last token, on all axes.
        max_new: tokens a row at most.
    """

    def __init__(
        self,
        decoder: Any,
        head: nn.Linear,
        cache: GrowingCache,
        last_position_B: Tensor,
        max_new: int,
    ) -> None:
        self.cache = cache
        self.embedding = decoder.embed_tokens.weight
        self.layers = [_gather(layer) for layer in decoder.layers]
        size = self.embedding.shape[1]
        self.head = (head.weight * decoder.norm.weight * size**0.5).T.contiguous()
        self.head_bias = head.bias
        self.floor = torch.tensor((size * decoder.norm.variance_epsilon) ** 0.5)
        width = cache.layers[0][0].shape[-1]
        self.width, self.kv_heads = width, cache.layers[0][0].shape[1]
        self.heads = self.kv_heads * cache.group
        steps_T = torch.arange(max_new, device=last_position_B.device)
        cos, sin = decoder.rotary_emb(
            self.embedding, last_position_B.unsqueeze(1) + steps_T.unsqueeze(0)
        )
        # The same on all axes of a multimodal position, and the same in both halves.
        half = slice(0, width // 2)
        turns_BTD = torch.complex(cos[..., half].float(), sin[..., half].float())
        self.turns_NTD = turns_BTD[cache.question_N]

    @staticmethod
    def fits(decoder: Any, head: nn.Module) -> bool:
        """True for a float32 decoder on a CPU whose layers are the family's own, none adapted."""
        if type(decoder).__name__ not in _FAMILY:
            return False
        layer, config = decoder.layers[0], decoder.config.get_text_config()
        products = [
            module
            for each in decoder.layers
            for module in (
                *(getattr(each.self_attn, name) for name in _LINEAR),
                *(each.mlp.gate_proj, each.mlp.up_proj, each.mlp.down_proj),
            )
        ]
        weights = list(decoder.parameters())
        return (
            # Autocast would round the residual stream, which the model's own layers keep.
            not torch.is_autocast_enabled("cpu")
            and type(head) is nn.Linear
            and type(decoder.embed_tokens) is nn.Embedding
            and all(type(module) is nn.Linear for module in products)
            and layer.self_attn.o_proj.bias is None
            and layer.mlp.gate_proj.bias is None
            and config.hidden_act == "silu"
            and decoder.rotary_emb.rope_type in _FIXED_ROTARY
            and {(weight.dtype, weight.device.type) for weight in weights}
            == {(torch.float32, "cpu")}
            and sum(weight.numel() for weight in weights) <= MAX_WEIGHTS
        )

    def step(self, ids_N: Tensor, index: int) -> Tensor:
        self.cache.open_column()
        rows = len(ids_N)
        turns_N1D = self.turns_NTD[:, index].unsqueeze(1)
        turning = self.heads + self.kv_heads
        split = turning * self.width
        x_ND = self.embedding[ids_N]
        for index_of_layer, layer in enumerate(self.layers):
            qkv = self._product(self._norm(x_ND), layer.qkv, layer.qkv_bias)
            # In place: `qkv` holds the turned queries and keys afterwards.
            torch.view_as_complex(qkv[:, :split].view(rows, turning, -1, 2)).mul_(turns_N1D)
            heads_NHD = qkv.view(rows, -1, self.width)
            seen = self.cache.attend(
                index_of_layer,
                heads_NHD[:, : self.heads],
                heads_NHD[:, self.heads : turning],
                heads_NHD[:, turning:],
                layer.scale,
            )
            x_ND = torch.addmm(x_ND, seen.reshape(rows, -1), layer.out)
            gate, up = (self._norm(x_ND) @ layer.gate_up).chunk(2, dim=1)
            x_ND = torch.addmm(x_ND, silu(gate).mul_(up), layer.down)
        return self._product(self._norm(x_ND), self.head, self.head_bias)

    def keep(self, alive_N: Tensor) -> None:
        self.turns_NTD = self.turns_NTD[alive_N]
        self.cache.keep(alive_N)

    def _norm(self, x_ND: Tensor) -> Tensor:
        """Divide by sqrt(sum x^2 + D eps); the factor sqrt(D) is in the weights that follow."""
        return x_ND / torch.hypot(torch.linalg.vector_norm(x_ND, dim=1, keepdim=True), self.floor)

    @staticmethod
    def _product(x_ND: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return x_ND @ weight if bias is None else torch.addmm(bias, x_ND, weight)


def _gather(layer: Any) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    order = pairs_side_by_side(attention.head_dim)
    projections = [attention.q_proj, attention.k_proj, attention.v_proj]
    weights, biases = [], []
    for turned, module in zip((True, True, False), projections, strict=True):
        rows = torch.arange(module.out_features)
        if turned:
            rows = rows.view(-1, len(order))[:, order].flatten()
        weights.append(module.weight[rows])
        biases.append(None if module.bias is None else module.bias[rows])
    root = attention.q_proj.in_features**0.5  # what `_norm` leaves to the weights
    qkv = torch.cat(weights) * (layer.input_layernorm.weight * root)
    given = [bias for bias in biases if bias is not None]
    gate_up = torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight])
    return _Layer(
        qkv=qkv.T.contiguous(),
        qkv_bias=torch.cat(given) if given else None,
        out=attention.o_proj.weight.T.contiguous(),
        gate_up=(gate_up * (layer.post_attention_layernorm.weight * root)).T.contiguous(),
        down=mlp.down_proj.weight.T.contiguous(),
        scale=attention.scaling,
    )
