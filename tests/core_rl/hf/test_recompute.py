"""What is computed again in the backward pass: the same gradients from less that is kept."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.functional import gelu, linear, silu
from torch.utils._python_dispatch import TorchDispatchMode

from core_rl.hf.policy import HFPolicy
from core_rl.hf.recompute import checkpoint_activations, operations_again
from core_rl.types import Actions
from tests.core_rl.hf.text_policy import (
    QUERIES,
    build_model,
    build_policy,
    gradients,
    ragged,
    weighted_sum,
)


class Held(TorchDispatchMode):
    """Which of the tensors that operations make inside are still in memory.

    Args:
        given: tensors of before; views of them do not count.
    """

    def __init__(self, given: Iterable[Tensor]) -> None:
        super().__init__()
        self.given = {tensor.untyped_storage().data_ptr() for tensor in given}
        self.sizes: dict[StorageWeakRef, int] = {}

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        made = function(*args, **(kwargs or {}))
        for part in made if isinstance(made, tuple | list) else (made,):
            if isinstance(part, Tensor):
                storage = part.untyped_storage()
                if storage.data_ptr() not in self.given:
                    self.sizes[StorageWeakRef(storage)] = storage.nbytes()
        return made

    def bytes(self) -> int:
        return sum(size for ref, size in self.sizes.items() if not ref.expired())


def step(policy: HFPolicy, actions: Actions, recompute: str) -> tuple[Tensor, Tensor]:
    policy.recompute = recompute
    logp = policy.log_probs(policy.encode(QUERIES), actions).logp_BGT
    return logp.detach(), gradients(policy, weighted_sum(logp))


@pytest.mark.parametrize("recompute", ["auto", "layers"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"hidden_act": "gelu"}, {"hidden_act": "relu"}, {"tie_word_embeddings": True}],
    ids=["silu", "gelu", "relu", "tied"],
)
def test_the_same_log_probs_and_gradients(changes: dict[str, Any], recompute: str) -> None:
    policy = build_policy(model=build_model(**changes)).train()
    torch.manual_seed(1)
    actions = policy.sample(policy.encode(QUERIES), 4)
    assert ragged(actions)
    kept, again = (step(policy, actions, how) for how in ("never", recompute))
    assert torch.equal(kept[0], again[0])
    assert (kept[1] - again[1]).norm() <= 1e-6 * kept[1].norm()


def test_adapters_and_frozen_weights() -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "up_proj"], init_lora_weights=False)
    policy = build_policy(model=peft.get_peft_model(build_model(), config)).train()
    actions = policy.sample(policy.encode(QUERIES), 4)
    kept, *others = (step(policy, actions, how) for how in ("never", "auto", "layers"))
    for again in others:
        torch.testing.assert_close(again, kept, atol=1e-6, rtol=1e-5)


def test_less_is_held_and_nothing_for_longer() -> None:
    policy = build_policy().train()
    actions = policy.sample(policy.encode(QUERIES), 4)
    given = [*policy.parameters(), *policy.buffers(), actions.ids_BGT, actions.mask_BGT]
    sizes = {}
    for how in ("never", "auto", "layers"):
        policy.recompute = how
        gc.collect()
        gc.disable()  # what a cycle of references holds would be held for a while
        try:
            with Held(given) as held:
                logp = policy.log_probs(policy.encode(QUERIES), actions).logp_BGT
                sizes[how] = held.bytes()
            del logp
            assert held.bytes() == 0
        finally:
            gc.enable()
    assert sizes["layers"] < sizes["auto"] < 0.6 * sizes["never"]


@pytest.mark.parametrize(
    "compute",
    [
        lambda x, w: linear(silu(linear(x, w)) * linear(x, w), w.T),
        lambda x, w: linear(gelu(linear(x, w), approximate="tanh"), w.T),
        lambda x, w: (x * (x * 2.0)).view(-1, 2) * w.view(-1)[0],
        lambda x, w: torch.exp(linear(x, w) * linear(x, w)),
    ],
    ids=["gated", "gelu", "views", "own-result"],
)
def test_operations_have_their_gradients_to_the_bit(compute: Callable[..., Tensor]) -> None:
    torch.manual_seed(0)
    x, w = torch.randn(2, 3, 4, requires_grad=True), torch.randn(6, 4, requires_grad=True)
    plain = torch.autograd.grad(compute(x, w).cos().sum(), (x, w))
    with operations_again():
        out = compute(x, w).cos().sum()
    for _ in range(2):  # a graph that is kept can be gone through again
        found = torch.autograd.grad(out, (x, w), retain_graph=True)
        assert all(torch.equal(*pair) for pair in zip(plain, found, strict=True))


def test_layers_are_their_own_again() -> None:
    policy = build_policy(recompute="layers").train()
    layers = policy.model.get_decoder().layers
    with own_forward(layers[0]) as forward:
        policy.encode(QUERIES[:1])
        assert vars(layers[0])["forward"] is forward
    assert "forward" not in vars(layers[1])


@contextmanager
def own_forward(layer: Any) -> Iterator[Any]:
    """Set a forward on the layer itself, as hooks of other libraries do."""
    layer.forward = layer.forward
    yield layer.forward
    del layer.forward


class OldName:
    """As models of older releases are called."""

    asked: Any = None

    def gradient_checkpointing_enable(self, options: dict[str, bool]) -> None:
        self.asked = options


@pytest.mark.parametrize("reentrant", [False, True])
def test_every_layer_is_computed_again(reentrant: bool) -> None:
    model: Any = build_policy().model
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checkpoint_activations(model, reentrant)
    layers = [m for m in model.modules() if hasattr(m, "gradient_checkpointing")]
    assert layers and all(layer.gradient_checkpointing for layer in layers)
    options = [layer._gradient_checkpointing_func.keywords for layer in layers]
    assert options == [{"use_reentrant": reentrant}] * len(layers)


def test_releases_that_know_the_older_name_only() -> None:
    model = OldName()
    checkpoint_activations(model)
    assert model.asked == {"use_reentrant": False}
