"""The reference of the KL term for a model with adapters; only the adapters are copied."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from core_rl.hf.encoded_prompt import EncodedPrompt
from core_rl.hf.shared_prompt import is_partitioned
from core_rl.types import Actions, Query, StepLogProbs

log = logging.getLogger(__name__)


class AdaptedPolicy(Protocol):
    """A policy whose model has adapters."""

    model: Any

    @property
    def device(self) -> torch.device: ...

    def encode(self, queries: Sequence[Query]) -> EncodedPrompt: ...

    def log_probs(
        self, prompt: EncodedPrompt, actions: Actions, temperature: float = 1.0
    ) -> StepLogProbs: ...


class AdapterReference:
    """The policy with its adapters as they were when this was made, at the start of a phase.

    During a pass the kept adapters replace the policy's own.  Fresh adapters, which change nothing
    yet, are switched off instead.  Under ZeRO-3, where no process holds whole weights, adapters are
    switched off in any case: the reference is then the base model.

    Args:
        policy: with adapters.

    Attributes:
        kept: adapters by their names in the model; empty where they are switched off.
    """

    def __init__(self, policy: AdaptedPolicy) -> None:
        self.policy = policy
        self.kept: dict[str, Tensor] = {}
        if is_partitioned(policy.model):
            log.info("ZeRO-3: the reference is the model without its adapters")
        elif _change_something(adapters := dict(self._adapters())):
            self.kept = {name: tensor.detach().clone() for name, tensor in adapters.items()}

    def encode(self, queries: Sequence[Query]) -> EncodedPrompt:
        with self._as_they_were():
            return self.policy.encode(queries)

    def log_probs(
        self, prompt: EncodedPrompt, actions: Actions, temperature: float = 1.0
    ) -> StepLogProbs:
        with self._as_they_were():
            return self.policy.log_probs(prompt, actions, temperature)

    def state_dict(self) -> dict[str, Tensor]:
        return self.kept

    def load_state_dict(self, state_dict: dict[str, Tensor]) -> None:
        device = self.policy.device
        self.kept = {name: tensor.to(device) for name, tensor in state_dict.items()}

    def _adapters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return (pair for pair in self.policy.model.named_parameters() if "lora_" in pair[0])

    @contextmanager
    def _as_they_were(self) -> Iterator[None]:
        if not self.kept:
            with self.policy.model.disable_adapter():
                yield
            return
        # Through `data`: the graph of the policy's own pass holds these parameters and must not see
        # a change of their version.
        own = [(parameter, parameter.data) for _, parameter in self._adapters()]
        try:
            for name, parameter in self._adapters():
                parameter.data = self.kept[name]
            yield
        finally:
            for parameter, now in own:
                parameter.data = now


def _change_something(adapters: Mapping[str, Tensor]) -> bool:
    """Tell whether any product B A is not 0; fresh adapters have B = 0, on embeddings A = 0."""
    products = (
        (b, adapters[name.replace("_B.", "_A.")]) for name, b in adapters.items() if "_B." in name
    )
    return any(bool(b.any()) and bool(a.any()) for b, a in products)
