"""The reference of the KL term: a copy of the model, or of its adapters alone; it never trains.

A copy shares the frozen parameters, those of the media towers among them, with the original.  Under
ZeRO 3 each process keeps a part of every decoder layer and gathers a layer while it runs, so all
processes must run the copy equally often.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from core_rl.hf.encoded_prompt import EncodedPrompt
from core_rl.types import Actions, Query, StepLogProbs


def is_partitioned(model: nn.Module) -> bool:
    """True under DeepSpeed's ZeRO 3, which takes parameters apart."""
    return any(getattr(parameter, "ds_id", None) is not None for parameter in model.parameters())


def frozen_model(model: PreTrainedModel) -> PreTrainedModel:
    """Copy a model whose weights are whole; all processes must ask at once."""
    layers: list[nn.Module] = []
    if is_partitioned(model):
        decoder = model.get_decoder()
        layers = [
            part for part in decoder.modules() if isinstance(part, GradientCheckpointingLayer)
        ]
    in_parts = {id(p) for layer in layers for p in layer.parameters()}
    apart: dict[int, Any] = {}
    for parameter in model.parameters():
        values = parameter.detach()
        if id(parameter) in in_parts:
            apart[id(parameter)] = nn.Parameter(values.new_empty(0), requires_grad=False)
        elif parameter.requires_grad:
            apart[id(parameter)] = nn.Parameter(values.clone(), requires_grad=False)
        else:
            apart[id(parameter)] = parameter
    kept = [_LayerInParts(list(layer.parameters())) for layer in layers]
    # The copies of layers are found through the same table.
    copied = copy.deepcopy(model, apart)
    for layer, part in zip(layers, kept, strict=True):
        part.attach(apart[id(layer)])
    return copied


class _LayerInParts:
    """A layer of which each process keeps a part between its calls.

    Args:
        parameters: whole, of the layer that is copied.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.shapes = [parameter.shape for parameter in parameters]
        self.dtypes = [parameter.dtype for parameter in parameters]
        flat = torch.cat([parameter.detach().flatten() for parameter in parameters])
        self.numel, world = len(flat), dist.get_world_size()
        each = -(-self.numel // world)
        flat = nn.functional.pad(flat, (0, each * world - self.numel))
        self.part = flat.view(world, each)[dist.get_rank()].clone()

    def attach(self, layer: nn.Module) -> None:
        """Gather the weights of `layer`, the copy, whenever it is called."""
        # As a buffer it is in the checkpoint of the reference, and moves with the model.
        layer.register_buffer("part", self.part)
        layer.register_forward_pre_hook(self._gather)
        layer.register_forward_hook(self._free, always_call=True)  # a prompt's pass ends by raising

    def _gather(self, layer: nn.Module, _: object) -> None:
        part: Tensor = layer.get_buffer("part")
        flat = part.new_empty(dist.get_world_size(), len(part))
        dist.all_gather(list(flat.unbind()), part)
        pieces = flat.flatten()[: self.numel].split([shape.numel() for shape in self.shapes])
        for parameter, piece, shape, dtype in zip(
            layer.parameters(), pieces, self.shapes, self.dtypes, strict=True
        ):
            parameter.data = piece.view(shape).to(dtype)

    def _free(self, layer: nn.Module, *_: object) -> None:
        for parameter in layer.parameters():
            parameter.data = parameter.data.new_empty(0)


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
    yet, are switched off instead.

    Args:
        policy: with adapters.

    Attributes:
        kept: adapters by their names in the model; empty where they are switched off.
    """

    def __init__(self, policy: AdaptedPolicy) -> None:
        self.policy = policy
        self.kept: dict[str, Tensor] = {}
        if _change_something(adapters := dict(self._adapters())):
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
