"""Draw completions from a Hugging Face causal model, with the log-probs the learner will need.

`generate()` in train mode with activation checkpointing silently loses its cache from the second
token on (transformers 4.53 to 5.23), and its top-k and top-p bias the importance ratio.  The loop
here decodes under `generation_mode`, from logits / temperature with the suppressed ids masked, and
returns exactly those log-probs.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn.

    Attributes:
        max_new: limit of new tokens.
        stop_ids: ids that end a row.
        pad_id: fills rows after their end.
        suppress: ids never drawn; None for none.
        temperature: 0 takes the most probable token.
    """

    max_new: int
    stop_ids: Tensor
    pad_id: int
    suppress: Tensor | None = None
    temperature: float = 1.0


def takes(model: nn.Module, argument: str) -> bool:
    """Tell whether a model's forward, under any adapters, has an argument of that name."""
    base = getattr(model, "get_base_model", None)  # of peft, whose own forward takes anything
    forward = model.forward if base is None else base().forward
    return argument in inspect.signature(forward).parameters


def cache_name(model: nn.Module) -> str:
    """Name of a model's cache among its arguments and outputs; transformers 5.24 renamed it."""
    return "cache" if takes(model, "cache") else "past_key_values"


@contextmanager
def generation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluate without gradients or activation checkpointing, then restore every flag exactly."""
    modules = list(model.modules())
    training = [module.training for module in modules]
    checkpointing = [
        module for module in modules if getattr(module, "gradient_checkpointing", False) is True
    ]
    try:
        model.eval()
        for module in checkpointing:
            module.gradient_checkpointing = False  # type: ignore[assignment]
        with torch.no_grad():
            yield
    finally:
        # Set flags directly: `train()` would recurse into children that had another mode.
        for module, mode in zip(modules, training, strict=True):
            module.training = mode
        for module in checkpointing:
            module.gradient_checkpointing = True  # type: ignore[assignment]


@contextmanager
def last_logits_only(model: PreTrainedModel) -> Iterator[None]:
    """Run the output head on the last position only: a prompt's other logits are not needed."""
    head = model.get_output_embeddings()
    assert isinstance(head, nn.Module)
    handle = head.register_forward_pre_hook(lambda _, args: (args[0][:, -1:], *args[1:]))
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def hidden_states_only(model: PreTrainedModel) -> Iterator[None]:
    """Let the model's `logits` be the hidden states that its output head would have read."""
    head = model.get_output_embeddings()
    assert isinstance(head, nn.Module)
    head.forward = lambda hidden: hidden
    try:
        yield
    finally:
        del head.forward  # the class's own shows again


def suppression(suppress: Tensor | None, size: int, device: torch.device) -> Tensor | None:
    """What is added to logits [..., K]: -inf at suppressed ids, 0 elsewhere; None for nothing."""
    if suppress is None or not suppress.numel():
        return None
    return torch.zeros(size, device=device).index_fill_(0, suppress, float("-inf"))


def log_softmax_masked(logits: Tensor, temperature: float, suppress: Tensor | None) -> Tensor:
    """Return log-probs of logits / temperature in float32, suppressed ids at -inf.

    Args:
        logits: [..., K].
        temperature: above 0.
        suppress: LongTensor of ids that may not be drawn, or None.
    """
    scaled = logits.float() / temperature
    bias_K = suppression(suppress, scaled.shape[-1], scaled.device)
    return torch.log_softmax(scaled if bias_K is None else scaled + bias_K, dim=-1)


def draw(logp_NK: Tensor) -> Tensor:
    """Draw one option a row: the first at which the summed probability passes a random number.

    One random number a row, where `torch.multinomial` takes one an option: on a CPU that was half
    the time of a token.  In double precision, in which 150 000 options add up exactly enough.
    """
    summed_NK = logp_NK.double().exp().cumsum(dim=-1)
    bar_N1 = torch.rand_like(summed_NK[:, :1]) * summed_NK[:, -1:]
    # An option without probability adds nothing, so the sum never passes the bar there.
    chosen_N = torch.searchsorted(summed_NK, bar_N1, right=True).squeeze(-1)
    return chosen_N.clamp_(max=logp_NK.shape[-1] - 1)  # past the end where sums are NaN


def refuse_not_finite(logp_NT: Tensor) -> None:
    """Look at what was drawn, once a rollout.

    Raises:
        ValueError: a drawn token has a log-prob that is NaN or infinite.
    """
    if not bool(logp_NT.isfinite().all()):
        raise ValueError(
            "log-probs of drawn tokens are NaN or infinite: weights are not finite, or activations "
            "overflow; start from a checkpoint that is whole, lower trainer.lr, or compute in bf16 "
            "or fp32 instead of fp16"
        )


@torch.no_grad()
def decode(
    model: PreTrainedModel,
    cache: DynamicCache,
    first_logits_NK: Tensor,
    prompt_mask_NP: Tensor,
    next_position_N: Tensor,
    sampling: Sampling,
) -> tuple[Tensor, Tensor, Tensor]:
    """Continue N rows until each stops or the limit is reached.

    Args:
        model: in generation mode.
        cache: holds the prompts; grows by the tokens fed.
        first_logits_NK: logits of the first new token.
        prompt_mask_NP: attention mask of the (left-padded) prompts.
        next_position_N: rotary position of the first new token.
        sampling: how to draw.

    Returns:
        ids_NT, mask_NT (the stop token included) and logp_NT (0 after the end).
    """
    attention, logits, temperature = prompt_mask_NP, first_logits_NK, sampling.temperature
    kept = {cache_name(model): cache}
    alive = torch.ones(len(logits), dtype=torch.bool, device=logits.device)
    ids, masks, logps = [], [], []
    for step in range(sampling.max_new):
        logp_NK = log_softmax_masked(logits, temperature or 1.0, sampling.suppress)
        chosen = logp_NK.argmax(dim=-1) if temperature == 0 else draw(logp_NK)
        logp = logp_NK.gather(-1, chosen.unsqueeze(-1)).squeeze(-1)
        chosen = torch.where(alive, chosen, sampling.pad_id)
        ids.append(chosen)
        masks.append(alive)
        logps.append(torch.where(alive, logp, 0.0))
        alive = alive & ~torch.isin(chosen, sampling.stop_ids)
        if step + 1 == sampling.max_new or not alive.any():
            break
        attention = torch.cat([attention, attention.new_ones(len(attention), 1)], dim=1)
        logits = model(
            input_ids=chosen.unsqueeze(1),
            attention_mask=attention,
            position_ids=(next_position_N + step).unsqueeze(1),
            use_cache=True,
            **kept,
        ).logits[:, -1]
    logp_NT = torch.stack(logps, 1)
    refuse_not_finite(logp_NT)
    return torch.stack(ids, 1), torch.stack(masks, 1), logp_NT
