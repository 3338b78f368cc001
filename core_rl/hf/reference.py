"""The reference of the KL term for a model with adapters, at the memory of the adapters alone."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from torch import Tensor, nn

from core_rl.hf.shared_prompt import is_partitioned
from core_rl.types import Actions, Query, StepLogProbs

if TYPE_CHECKING:
    from core_rl.hf.policy import EncodedPrompt, HFPolicy

log = logging.getLogger(__name__)


class AdapterReference:
    """The policy with its adapters as they were when this was made.

    For a pass the adapters of then change places with the policy's own.  Fresh ones, which change
    nothing yet, are switched off instead.  Under ZeRO-3, which holds no weights to keep, they are
    switched off in any case: the reference is then the model that the adapters were put on.

    Args:
        policy: with adapters.

    Attributes:
        kept: the adapters of then, by their names in the model; empty where they are switched off.
    """

    def __init__(self, policy: HFPolicy) -> None:
        self.policy = policy
        self.kept: dict[str, Tensor] = {}
        if is_partitioned(policy.model):
            log.info("ZeRO-3: the reference is the model without its adapters")
        elif any(bool(tensor.any()) for name, tensor in self._adapters() if "lora_B" in name):
            self.kept = {name: tensor.detach().clone() for name, tensor in self._adapters()}

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
        # By `data`: the graph of the policy's own pass holds the parameters and must not notice.
        own = [(parameter, parameter.data) for _, parameter in self._adapters()]
        try:
            for name, parameter in self._adapters():
                parameter.data = self.kept[name]
            yield
        finally:
            for parameter, now in own:
                parameter.data = now
