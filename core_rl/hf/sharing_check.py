"""Does a prompt that is encoded once give what copies of it give?

Some models have structure in the mask, in the cache or in the positions that the shared path does
not see: bidirectional prefixes, small windows, learned prefixes.  They run without an error and
give other numbers.  So a policy compares both ways once, on its first prompt, before it relies on
sharing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from core_rl.types import Actions

Score = Callable[[Actions], Tensor]

# Mean gap of log-probs, nats, and relative gap of a gradient.  Models that share agree to 1e-5 in
# float32; healthy ones in half precision to .06, those that do not by 1.9 and more.
LIMITS = {torch.float64: (2e-4, 1e-2), torch.float32: (2e-4, 1e-2)}
HALF_LIMITS = (0.2, 0.5)
# Bytes that the graph of copies may take for a gradient to be compared, too: a larger one would be
# the peak of the whole run.
LIGHT = 2**25
KEPT = 24  # about as many numbers of the width does a layer keep for each token


def probe(words: Sequence[int], suppressed: Tensor, device: torch.device) -> Actions:
    """Two candidates of three tokens that may be drawn; no random number is used.

    Args:
        words: ids of some text, at least one that is not suppressed.
        suppressed: ids that are never drawn.
        device: of the model.
    """
    never = set(suppressed.tolist())
    allowed = [token for token in words if token not in never]
    chosen = [allowed[i % len(allowed)] for i in range(6)]
    ids_BGT = torch.tensor(chosen, device=device).view(1, 2, 3)
    return Actions(ids_BGT, torch.ones_like(ids_BGT, dtype=torch.bool))


def why_different(
    model: Any, shared: Score, copied: Score, actions: Actions, prompt: int
) -> str | None:
    """Compare both ways of scoring; None if they agree.

    Log-probs are compared always, a gradient where gradients are on and the copies' graph is small.

    Args:
        model: whose parameters the gradient is taken of.
        shared: log-probs of candidates after the prompt that was encoded once.
        copied: the same with a copy of the prompt for each.
        actions: what is scored.
        prompt: tokens of the prompt.
    """
    dtype = next(model.parameters()).dtype
    half = dtype not in LIMITS or torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled()
    values_limit, gradient_limit = HALF_LIMITS if half else LIMITS[dtype]
    rows, steps = actions.ids_BGT.shape[1:]
    light = _graph_bytes(model, rows * (prompt + steps)) <= LIGHT
    parameter = _first_trained(model) if light and torch.is_grad_enabled() else None
    with torch.set_grad_enabled(parameter is not None):
        ours, ours_slope = _scored(shared, actions, parameter)
        theirs, theirs_slope = _scored(copied, actions, parameter)
    gap = float((ours - theirs).abs().mean())
    if not gap <= values_limit:  # NaN, too
        return f"log-probs would differ by {gap:.2g} nats from those after copies of the prompt"
    if ours_slope is None or theirs_slope is None:
        return None
    apart = float((ours_slope - theirs_slope).norm() / theirs_slope.norm().clamp(min=1e-12))
    if not apart <= gradient_limit:
        return f"gradients would differ by {apart:.0%} from those through copies of the prompt"
    return None


def _scored(
    score: Score, actions: Actions, parameter: nn.Parameter | None
) -> tuple[Tensor, Tensor | None]:
    logp = score(actions).float()
    if parameter is None or not logp.requires_grad:
        return logp.detach(), None
    (slope,) = torch.autograd.grad(logp.sum(), [parameter], allow_unused=True)
    return logp.detach(), None if slope is None else slope.float()


def _graph_bytes(model: Any, tokens: int) -> int:
    config = model.config.get_text_config()
    numbers: int = KEPT * config.hidden_size * config.num_hidden_layers * tokens
    return numbers * next(model.parameters()).dtype.itemsize


def _first_trained(model: Any) -> nn.Parameter | None:
    """A parameter that the gradient of a whole pass reaches last."""
    layers = model.get_decoder().parameters()
    return next((p for p in layers if p.requires_grad and p.dim() == 2), None)


def length_limit(config: Any) -> int | None:
    """Tokens beyond which rotary positions change with the length of the sequence; None if never.

    Beyond it the keys of a prompt depend on how much follows, so drawing token by token and scoring
    in one pass are two distributions, whatever is shared.
    """
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = rope.values() if all(isinstance(one, dict) for one in rope.values()) else [rope]
    found = []
    for one in kinds:
        if one.get("rope_type") in ("dynamic", "longrope"):
            original = one.get("original_max_position_embeddings")
            original = original or getattr(config, "original_max_position_embeddings", None)
            found.append(int(original or config.max_position_embeddings))
    return min(found, default=None)


def attention_window(config: Any) -> int | None:
    """Tokens that a layer attends to at most; None where it is all of them."""
    names = ("sliding_window", "keep_window_size", "attention_window_size")
    found = [int(size) for name in names if (size := getattr(config, name, None))]
    return min(found, default=None)
