"""Log-probs from hidden states in portions: values, gradients, and what is never allocated."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from core_rl.hf.log_probs import chosen_log_probs
from tests.core_rl.hf.text_policy import QUERIES, build_model, build_policy

TOKENS, WIDTH, VOCABULARY = 13, 6, 29
SUPPRESSED = torch.tensor([3, 28])


class Wrapped(nn.Module):
    """A head that is more than a linear layer, as an adapted one."""

    def __init__(self, head: nn.Linear) -> None:
        super().__init__()
        self.head = head

    def forward(self, hidden: Tensor) -> Tensor:
        return self.head(hidden)


class Largest(TorchDispatchMode):
    """Note how many numbers the largest tensor held that any operation returned."""

    numbers = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        found = [leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        self.numbers = max([self.numbers, *found])
        return out


@pytest.mark.parametrize("chunk", [1, 4 * VOCABULARY, 10**6])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("suppress", [None, SUPPRESSED])
@pytest.mark.parametrize("kind", ["plain", "bias", "wrapped"])
def test_portions_give_the_log_softmax_and_its_gradients(
    chunk: int, temperature: float, suppress: Tensor | None, kind: str
) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(WIDTH, VOCABULARY, bias=kind == "bias").double()
    head = Wrapped(linear) if kind == "wrapped" else linear
    hidden = torch.randn(TOKENS, WIDTH, dtype=torch.float64, requires_grad=True)
    chosen = torch.arange(TOKENS) + 4
    inputs = [hidden, *linear.parameters()]
    got = chosen_log_probs(head, hidden, chosen, temperature, suppress, chunk)
    logits = linear(hidden) / temperature
    if suppress is not None:
        logits = logits.index_fill(1, suppress, float("-inf"))
    wanted = logits.log_softmax(-1).gather(1, chosen.unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(got.double(), wanted, atol=1e-5, rtol=0)
    weights = torch.linspace(-1, 1, TOKENS)
    both = [torch.autograd.grad((logp * weights).sum(), inputs) for logp in (got, wanted)]
    for mine, exact in zip(*both, strict=True):
        torch.testing.assert_close(mine, exact, atol=1e-5, rtol=1e-4)


def test_a_frozen_head_passes_the_gradient_on() -> None:
    head = nn.Linear(WIDTH, VOCABULARY).requires_grad_(False)
    hidden = torch.randn(TOKENS, WIDTH, requires_grad=True)
    chosen_log_probs(head, hidden, torch.arange(TOKENS), 1.0, None).sum().backward()
    assert hidden.grad is not None and hidden.grad.abs().sum() > 0
    assert head.weight.grad is None


def test_no_tensor_is_as_large_as_all_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw, score and differentiate with a vocabulary that outweighs everything else."""
    monkeypatch.setattr("core_rl.hf.log_probs.CHUNK", {"cpu": 3000})
    vocabulary, group, steps = 3000, 8, 12
    policy = build_policy(
        model=build_model(vocab_size=vocabulary),
        stop_ids=[256],
        suppress_ids=[],
        max_completion=steps,
    ).train()
    with Largest() as largest:
        prompt = policy.encode(QUERIES[:1])
        actions = policy.sample(prompt, group)
        policy.log_probs(prompt, actions).logp_BGT.sum().backward()
    weights = max(parameter.numel() for parameter in policy.parameters())
    assert actions.ids_BGT.shape == (1, group, steps)
    assert largest.numbers <= weights < group * steps * vocabulary


def test_the_measure_sees_all_logits_where_they_are() -> None:
    model = build_model(vocab_size=3000)
    with Largest() as largest:
        model(input_ids=torch.arange(96).view(8, 12))
    assert largest.numbers >= 8 * 12 * 3000
