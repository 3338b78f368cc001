"""ZeRO 3 for a loop that draws, scores and checks with whole weights.

DeepSpeed's own hooks gather a layer's weights when it is called.  Here candidates are decoded by
hand, a prompt's pass ends inside the last layer, and processes call different modules: one has a
clip with sound, another one has none.  So the weights are gathered at once, on every process, after
each optimiser step, and are in parts only during that step and in checkpoints.  Gradients, fp32
masters, moments and the reference of the KL term stay in parts all the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lightning.pytorch.strategies import DeepSpeedStrategy

if TYPE_CHECKING:
    from torch import nn


class GatheredZero3(DeepSpeedStrategy):
    """DeepSpeed's ZeRO 3 with whole weights between the optimiser's steps."""

    _attributes: dict[nn.Parameter, dict[str, Any]] | None = None  # before DeepSpeed adds its own

    def setup(self, trainer: Any) -> None:
        assert self.lightning_module is not None
        module = self.lightning_module
        self._attributes = {p: dict(vars(p)) for p in module.parameters()}
        super().setup(trainer)
        offload = self.deepspeed_engine.optimizer.parameter_offload
        for hook in (*offload.forward_hooks, *offload.backward_hooks):
            hook.remove()
        gather(module)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> Any:
        result = super().optimizer_step(*args, **kwargs)
        assert self.lightning_module is not None
        gather(self.lightning_module)  # nothing to do where micro-batches are still accumulated
        return result

    def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        with self._in_parts():
            super().save_checkpoint(*args, **kwargs)

    def load_checkpoint(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        with self._in_parts():
            return super().load_checkpoint(*args, **kwargs)

    def teardown(self) -> None:
        """Leave plain parameters; their weights are whole, unless the step itself failed."""
        if self.lightning_module is not None and self._attributes is not None:
            for parameter, before in self._attributes.items():
                vars(parameter).clear()
                vars(parameter).update(before)
            for part in self.lightning_module.modules():
                part._parameters = dict(part._parameters)
            self._attributes = None
        super().teardown()

    @contextmanager
    def _in_parts(self) -> Iterator[None]:
        assert self.lightning_module is not None
        parameters: Iterable[Any] = self.lightning_module.parameters()
        for parameter in parameters:
            parameter.partition()
        try:
            yield
        finally:
            gather(self.lightning_module)


def gather(module: nn.Module) -> None:
    """Make partitioned weights whole, a submodule at a time; all processes must call this."""
    for part in module.modules():
        own: list[Any] = list(part.parameters(recurse=False))
        if own:
            own[0].all_gather(own)
