"""Recording of a thinker's inputs: each batch of prompts and each forward over one.

All is taken from hooks on the model, not from the policy: arguments of the forward, embeddings at
the input of the language model, and outputs of the towers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Qwen2_5OmniThinkerForConditionalGeneration as Thinker
from transformers.modeling_outputs import BaseModelOutput, BaseModelOutputWithPooling

from core_rl.hf.encoded_prompt import Inputs
from core_rl.hf.generation import cache_name
from core_rl.types import Query
from omni_rl.policy.policy import OmniPolicy


@dataclass(frozen=True, eq=False)
class Encoded:
    """Input and output of the vision tower for one video or picture.

    Attributes:
        rows: patches.
        grid: of them, (t, h, w).
        said_FD: output, one row for each token.
    """

    rows: Tensor
    grid: tuple[int, int, int]
    said_FD: Tensor


@dataclass(eq=False)
class Call:
    """One forward over prompts.

    Attributes:
        stage: what the policy was doing.
        queries: one for each row.
        inputs: keyword arguments of the thinker's forward.
        embeds_NPD: input of the language model; None where the forward ended before it.
        towers: outputs of the vision ("video") and audio tower, one after another, [F, D].
        encoded: calls of the vision tower so far, in this forward or before it.
    """

    stage: str
    queries: list[Query]
    inputs: dict[str, Any]
    embeds_NPD: Tensor | None = None
    towers: dict[str, list[Tensor]] = field(default_factory=dict)
    encoded: list[Encoded] = field(default_factory=list)

    @property
    def ids(self) -> Tensor:
        """Token ids [N, P]."""
        ids: Tensor = self.inputs["input_ids"]
        return ids

    @property
    def mask(self) -> Tensor:
        """True on real tokens [N, P]; all True without an attention mask."""
        mask = self.inputs.get("attention_mask")
        if mask is None:
            return torch.ones_like(self.ids, dtype=torch.bool)
        return mask[:, -self.ids.shape[1] :].bool()

    def get(self, name: str) -> Tensor | None:
        """Return an argument if it is a tensor."""
        value = self.inputs.get(name)
        return value if isinstance(value, Tensor) else None

    def encoded_before(self, kind: str) -> list[Tensor]:
        """List tower outputs of `video` or `image` that generate() computed before the call."""
        said = (self.inputs.get("mm_encoder_outputs") or {}).get(kind)
        return [] if said is None else list(said.pooler_output)


def thinker_of(model: nn.Module) -> Any:
    """Find the thinker inside adapters and other wrappers.

    Raises:
        ValueError: there is none.
    """
    for module in model.modules():
        if isinstance(module, Thinker):
            return module
    raise ValueError(f"{type(model).__name__} holds no Qwen2.5-Omni thinker: media checks need one")


MAKING = "making prompts"  # stage of a batch that no forward has read yet


class Recorder:
    """Collects calls; `stage` is that of the next ones."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.stage = ""
        self.encoded: list[Encoded] = []
        self._queries: list[Query] = []  # of the batch that was made last
        self._open: Call | None = None

    def collated(self, queries: Sequence[Query], inputs: Inputs) -> None:
        self._queries = list(queries)
        self.calls.append(Call(MAKING, self._queries, dict(inputs)))

    def forward_begins(
        self, module: nn.Module, args: tuple[Any, ...], inputs: dict[str, Any]
    ) -> None:
        self._open = None
        ids, cache = inputs.get("input_ids"), inputs.get(cache_name(module))
        fresh = cache is None or cache.get_seq_length() == 0
        if isinstance(ids, Tensor) and ids.shape[1] > 1 and fresh:
            times = max(1, len(ids) // max(1, len(self._queries)))
            queries = [query for query in self._queries for _ in range(times)]
            self._open = Call(self.stage, queries, dict(inputs), encoded=self.encoded)
            self.calls.append(self._open)

    def vision_ends(
        self,
        module: nn.Module,
        args: tuple[Any, ...],
        inputs: dict[str, Any],
        output: BaseModelOutputWithPooling,
    ) -> None:
        assert output.pooler_output is not None
        said, grids = output.pooler_output.detach(), inputs["grid_thw"]
        sizes = grids.prod(-1).tolist()
        per_token = sum(sizes) // max(1, len(said))
        self.encoded += [
            Encoded(rows, tuple(grid), tokens)
            for rows, grid, tokens in zip(
                args[0].split(sizes),
                grids.tolist(),
                said.split([size // per_token for size in sizes]),
                strict=True,
            )
        ]
        if self._open is not None:
            self._open.towers.setdefault("video", []).append(said)

    def audio_ends(self, module: nn.Module, args: object, output: BaseModelOutput) -> None:
        if self._open is not None:
            assert output.last_hidden_state is not None
            said = output.last_hidden_state.detach()
            self._open.towers.setdefault("audio", []).append(said)

    def decoder_begins(
        self, module: nn.Module, args: tuple[Any, ...], inputs: dict[str, Any]
    ) -> None:
        if self._open is not None and inputs.get("inputs_embeds") is not None:
            self._open.embeds_NPD = inputs["inputs_embeds"].detach()
        self._open = None  # later calls of the towers belong to no forward


@contextmanager
def recorded(policy: OmniPolicy) -> Iterator[Recorder]:
    """Record the batches and forwards made inside the block, also of a forward that raises."""
    recorder, thinker = Recorder(), thinker_of(policy.model)
    inner, collate = thinker.model, policy.collate

    def noted(queries: Sequence[Query]) -> dict[str, Any]:
        inputs = collate(queries)
        recorder.collated(queries, inputs)
        return inputs

    handles = [
        thinker.register_forward_pre_hook(recorder.forward_begins, with_kwargs=True),
        inner.language_model.register_forward_pre_hook(recorder.decoder_begins, with_kwargs=True),
        inner.visual.register_forward_hook(recorder.vision_ends, with_kwargs=True),
        inner.audio_tower.register_forward_hook(recorder.audio_ends),
    ]
    policy.collate = noted  # type: ignore[method-assign]
    try:
        yield recorder
    finally:
        policy.collate = collate  # type: ignore[method-assign]
        for handle in handles:
            handle.remove()
