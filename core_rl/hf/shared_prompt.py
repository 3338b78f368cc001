"""Encode a prompt once, for the drawing of its candidates and for their log-probs.

Of a prompt the keys and values of all tokens but the last are kept, with their graph.  The last
token is fed again in front of every candidate.  So the prompt's hidden states are not needed, and
its forward pass ends inside the last layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import Tensor
from transformers import PreTrainedModel

from core_rl.hf.decoding import GrowingCache, ModelDecoder, decode_rows
from core_rl.hf.encoded_prompt import Inputs, Prefix
from core_rl.hf.fused_decoder import FusedDecoder, pairs_side_by_side
from core_rl.hf.generation import Sampling
from core_rl.hf.log_probs import chosen_log_probs
from core_rl.hf.recompute import layers_again, operations_again
from core_rl.hf.shared_attention import (
    PackedAttention,
    PromptAttention,
    PromptEncoded,
    SharingUnsupported,
    attending,
)
from core_rl.types import Actions


def why_not_shared(model: PreTrainedModel) -> str | None:
    """Say why a prompt cannot be encoded once for this model as it stands; None if it can."""
    modules = model.modules()
    if any(getattr(module, "gradient_checkpointing", False) is True for module in modules):
        return "activations are checkpointed, so a layer keeps no keys and values"
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"}:
        return f"its layers attend in other ways: {', '.join(sorted(kinds))}"
    if not has_plain_head(model):
        return "its logits are more than its head's output"
    return None


def has_plain_head(model: PreTrainedModel) -> bool:
    """True where logits are what the output head makes of the last hidden states."""
    config = model.config.get_text_config()
    names = ("final_logit_softcapping", "logits_scaling", "logit_scale")
    return all(getattr(config, name, None) in (None, 1, 1.0) for name in names)


def encode_prompt(
    model: PreTrainedModel, inputs: Inputs, next_position: Tensor, recompute: str = "never"
) -> Prefix:
    """Run the model over one prompt, media and all.

    Args:
        model: with `why_not_shared` None.
        inputs: arguments of its forward for one query, `position_ids` among them.
        next_position: of the first completion token, [1].
        recompute: what the backward pass computes again, see `HFPolicy`.

    Raises:
        SharingUnsupported: the model attends in a way that is not computed here.
    """
    ids_1P = inputs["input_ids"]
    if len(ids_1P) != 1 or not inputs["attention_mask"].all():
        raise SharingUnsupported("a prompt by itself is padded")
    if (inputs["position_ids"][..., 0, -1] != next_position - 1).any():
        raise SharingUnsupported("positions do not go on from a prompt's last token, as text does")
    decoder = model.get_decoder()
    config = decoder.config.get_text_config()
    attend = PromptAttention(config.num_hidden_layers, config._attn_implementation)
    try:
        with ExitStack() as stack:
            stack.enter_context(attending(decoder, attend))
            if recompute != "never":
                stack.enter_context(operations_again())
                stack.enter_context(layers_again(decoder, attend.own, but_last=True))
            model(**inputs, use_cache=False)
    except PromptEncoded:
        layers = [(keys[:, :, :-1], values[:, :, :-1]) for keys, values in attend.layers]
        return Prefix(layers, ids_1P[0], next_position[0] - 1)
    raise SharingUnsupported("its layers do not use transformers' attention functions")


@torch.no_grad()
def draw_candidates(
    model: PreTrainedModel,
    prefixes: Sequence[Prefix],
    num_candidates: int,
    sampling: Sampling,
    fused: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw G candidates of each prompt; see `core_rl.hf.decoding.decode_rows`.

    Args:
        model: in generation mode.
        prefixes: of the questions.
        num_candidates: G.
        sampling: how to draw.
        fused: decode by `core_rl.hf.fused_decoder` where that fits the model.

    Returns:
        ids, mask and log-probs, [B * G, T].
    """
    prompts = [prefix.detached().layers for prefix in prefixes]
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    last_id_N = torch.stack([prefix.ids[-1] for prefix in prefixes])
    last_id_N = last_id_N.repeat_interleave(num_candidates)
    last_position_B = torch.stack([prefix.last_position for prefix in prefixes])
    kv_heads, width = prompts[0][0][0].shape[1::2]
    group = decoder.config.get_text_config().num_attention_heads // kv_heads
    sizes = (num_candidates, sampling.max_new, group)
    if fused and FusedDecoder.fits(decoder, head):
        cache = GrowingCache(prompts, *sizes, order=pairs_side_by_side(width))
        by_hand = FusedDecoder(decoder, head, cache, last_position_B, sampling.max_new)
        ids, mask, logp = decode_rows(by_hand, last_id_N, sampling)
    else:
        stepper = ModelDecoder(decoder, head, GrowingCache(prompts, *sizes), last_position_B)
        with attending(decoder, stepper.attend):
            ids, mask, logp = decode_rows(stepper, last_id_N, sampling)
    return ids.clone(), mask.clone(), logp.clone()


def score_candidates(
    model: PreTrainedModel,
    prefixes: Sequence[Prefix],
    actions: Actions,
    temperature: float,
    suppress: Tensor | None,
    recompute: str = "never",
) -> Tensor:
    """Log-probs of candidates, BGT, 0 after their end; only completion tokens are run.

    Args:
        model: that encoded the prompts, unchanged since.
        prefixes: of the questions, with a graph where gradients are enabled.
        actions: their candidates.
        temperature: logits are divided by it.
        suppress: ids without probability.
        recompute: what the backward pass computes again, see `HFPolicy`.
    """
    mask_BGT = actions.mask_BGT
    if not mask_BGT.any():  # nothing to score; the sum is 0 and holds the graph
        keys = prefixes[0].layers[0][0]
        return torch.zeros(mask_BGT.shape, device=keys.device) + 0.0 * keys.sum().float()
    group, steps = mask_BGT.shape[1:]
    ids_BGT = actions.ids_BGT
    last_B = torch.stack([prefix.ids[-1] for prefix in prefixes])
    first_BG1 = last_B.view(-1, 1, 1).expand(-1, group, 1)
    position_B = torch.stack([prefix.last_position for prefix in prefixes])
    positions_BGT = position_B.view(-1, 1, 1) + torch.arange(steps, device=ids_BGT.device)
    fed_S = torch.cat([first_BG1, ids_BGT[..., :-1]], dim=-1)[mask_BGT]
    positions_S = positions_BGT.expand(mask_BGT.shape)[mask_BGT]
    decoder = model.get_decoder()
    attend = PackedAttention([prefix.layers for prefix in prefixes], mask_BGT)
    with ExitStack() as stack:
        stack.enter_context(attending(decoder, attend))
        if recompute == "layers":
            stack.enter_context(layers_again(decoder, attend))
        elif recompute == "auto":
            stack.enter_context(operations_again())
        hidden_SD = decoder(
            input_ids=fed_S.unsqueeze(0), position_ids=positions_S.unsqueeze(0), use_cache=False
        ).last_hidden_state[0]
    head = model.get_output_embeddings()
    logp_S = chosen_log_probs(head, hidden_SD, ids_BGT[mask_BGT], temperature, suppress)
    return logp_S.new_zeros(mask_BGT.shape).masked_scatter(mask_BGT, logp_S)
