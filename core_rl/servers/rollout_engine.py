"""Candidates drawn by an inference engine that receives the policy's weights when they change."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from core_rl.hardware import is_main_process, wait_for_all
from core_rl.hf.encoded_prompt import EncodedPrompt
from core_rl.hf.policy import HFPolicy
from core_rl.types import Actions, Policy, Query

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Chat:
    """One prompt as an engine takes it.

    Attributes:
        messages: turns in the form of the OpenAI chat API, media as data URLs.
        prompt_ids: the tokens this prompt has here; the engine's must be the same.
        options: more fields of the request, e.g. `mm_processor_kwargs`.
    """

    messages: Sequence[Mapping[str, Any]]
    prompt_ids: tuple[int, ...]
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Drawing:
    """How candidates are drawn.

    Attributes:
        count: candidates a prompt.
        temperature: above 0, or 0 for the most probable one.
        max_new: limit of new tokens.
        stop_ids: ids that end a candidate.
        suppress_ids: ids never drawn.
    """

    count: int
    temperature: float
    max_new: int
    stop_ids: tuple[int, ...]
    suppress_ids: tuple[int, ...]


@dataclass(frozen=True)
class Completion:
    """One candidate: its tokens, the stop token included, and their log-probs."""

    ids: tuple[int, ...]
    logp: tuple[float, ...]


class Engine(Protocol):
    """Draws candidates with the weights it was given.

    Each process of a run has its own client of one server.  `load_weights` and `load_adapter` are
    called on every process, before a barrier; only the main process sends the weights.
    """

    def complete(self, chats: Sequence[Chat], drawing: Drawing) -> list[list[Completion]]:
        """Return `drawing.count` candidates of each prompt."""
        ...

    def load_weights(self, folder: Path) -> None:
        """Load the weights of a checkpoint folder."""
        ...

    def load_adapter(self, folder: Path) -> None:
        """Draw with the adapters of a folder from now on."""
        ...


# Turns a query and the tokens of its prompt into a request.
WriteChat = Callable[[Query, tuple[int, ...]], Chat]


class EngineSampler:
    """A `core_rl.types.Sampler` that lets an engine draw.

    The policy then scores the candidates without gradient: `logp_BGT` are its own log-probs,
    `engine_logp_BGT` those of the engine.  The loss corrects for the difference
    (`core_rl.objective.mismatch`).

    Args:
        engine: draws.
        chat: writes a query as the engine's chat.
        num_candidates: G.
        folder: for weights on their way to the engine; both sides must be able to read it.
    """

    def __init__(
        self, engine: Engine, chat: WriteChat, num_candidates: int, folder: str | Path
    ) -> None:
        self.engine = engine
        self.chat = chat
        self.num_candidates = num_candidates
        self.folder = Path(folder)
        self._given: int | None = None

    def __call__(
        self, policy: Policy, prompt: EncodedPrompt, queries: Sequence[Query], temperature: float
    ) -> Actions:
        assert isinstance(policy, HFPolicy), "an engine serves language models"
        self._bring_up_to_date(policy)
        drawing = Drawing(
            self.num_candidates,
            temperature,
            policy.max_completion,
            tuple(policy.stop_ids.tolist()),
            tuple(policy.suppress_ids.tolist()),
        )
        ids_of = [tuple(ids) for ids in policy.prompt_ids(prompt)]
        chats = [self.chat(*pair) for pair in zip(queries, ids_of, strict=True)]
        actions = _actions(self.engine.complete(chats, drawing), drawing, policy.device)
        with torch.no_grad():
            scores = policy.log_probs(prompt, actions, temperature)
        actions = replace(actions, logp_BGT=scores.logp_BGT)
        return policy.annotate(queries, policy.with_texts(actions))

    def _bring_up_to_date(self, policy: HFPolicy) -> None:
        """Send the weights if they changed since the last draw."""
        version = _version(policy)
        if version == self._given:
            return
        target = self.folder / f"weights-{version}"
        if is_main_process():
            policy.model.save_pretrained(target)
        # On every process, because each requests the adapter by its new name.
        if policy.has_adapters:
            self.engine.load_adapter(target)
        else:
            self.engine.load_weights(target)
        if is_main_process():
            shutil.rmtree(target)
            log.debug("the engine took the weights of version %d", version)
        wait_for_all()
        self._given = version


def _version(policy: HFPolicy) -> int:
    """Count the writes to the weights; see the hook in `core_rl.loop.optim.build_optimizer`."""
    return sum(parameter._version for parameter in policy.model.parameters())


def _actions(
    completions: Sequence[Sequence[Completion]], drawing: Drawing, device: torch.device
) -> Actions:
    """Pad candidates to the longest."""
    rows = [one for group in completions for one in group]
    longest = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), longest), drawing.stop_ids[0])
    mask = torch.zeros(len(rows), longest, dtype=torch.bool)
    logp = torch.zeros(len(rows), longest)
    for index, row in enumerate(rows):
        ids[index, : len(row.ids)] = torch.tensor(row.ids)
        mask[index, : len(row.ids)] = True
        logp[index, : len(row.ids)] = torch.tensor(row.logp)
    cut = torch.tensor([row.ids[-1] not in drawing.stop_ids for row in rows])

    def grouped(values: Tensor) -> Tensor:
        return values.view(len(completions), drawing.count, *values.shape[1:]).to(device)

    return Actions(
        ids_BGT=grouped(ids),
        mask_BGT=grouped(mask),
        truncated_BG=grouped(cut),
        engine_logp_BGT=grouped(logp),
    )
