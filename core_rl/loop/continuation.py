"""What a checkpoint holds so that a resumed run takes the very steps of an uninterrupted one.

Beside weights and optimiser these are, for every process, the random states of torch, NumPy and
Python as they were before the next batch was fetched, the rollouts of a round that is under way,
and what the KL controller has seen of the last step.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core_rl.hardware import from_all
from core_rl.types import Actions, Batch, Group, Query, RewardTable

log = logging.getLogger(__name__)

KEY = "continuation"
_TENSORS = ("ids_BGT", "mask_BGT", "logp_BGT", "truncated_BG", "engine_logp_BGT", "share_BG")


@dataclass(frozen=True)
class Later:
    """A batch that is made when it is its turn: batches before a resume are passed over unmade.

    Attributes:
        queries: of the batch.
        make: makes it.
    """

    queries: Sequence[Query]
    make: Callable[[], Batch]


def made(batch: Batch | Later) -> Batch:
    """The batch itself."""
    return batch.make() if isinstance(batch, Later) else batch


class Continuation:
    """The place of one process between two optimiser steps.

    Attributes:
        rollouts: of the round under way, where rollouts are used more than once.
        learned: indices of those that a step has learned from.
    """

    def __init__(self) -> None:
        self.rollouts: list[Group] = []
        self.learned: set[int] = set()
        self._random: dict[str, Any] | None = None
        self._loaded: dict[str, Any] | None = None

    def mark(self) -> None:
        """Note the random states; the next batch is about to be fetched."""
        self._random = random_states()

    def start(self) -> None:
        """Put the random states of a loaded checkpoint back, if there is one."""
        if self._loaded is not None and self._loaded["random"] is not None:
            restore_random_states(self._loaded.pop("random"))

    def resumed_round(self, batches: Sequence[Batch | Later], done: int) -> list[Group] | None:
        """Return the rollouts of the round that the checkpoint was written in, if it has them.

        Args:
            batches: what the rollouts were made of.
            done: updates of the round that were made; each used one rollout.
        """
        kept = self._loaded.pop("rollouts", []) if self._loaded is not None else []
        if len(kept) != len(batches) or not done:
            return None
        return [_group(state, _queries(batch)) for state, batch in zip(kept, batches, strict=True)]

    def save(self, checkpoint: dict[str, Any], kl_seen: Tensor) -> None:
        """Add the state of every process to a checkpoint; all of them must call this."""
        mine = {
            "random": self._random,
            "rollouts": [
                _plain(group) | {"learned": group.learned or index in self.learned}
                for index, group in enumerate(self.rollouts)
            ],
            "kl_seen": kl_seen.cpu(),
        }
        checkpoint[KEY] = from_all(mine)

    def load(self, checkpoint: Mapping[str, Any], rank: int, world: int) -> Tensor | None:
        """Take this process's state from a checkpoint; return what the KL controller had seen."""
        every = checkpoint.get(KEY, [])
        if len(every) != world:
            log.warning(
                "the checkpoint is of %d processes, this run has %d: the steps from here on are "
                "other draws than those of the run it continues",
                len(every),
                world,
            )
            return None
        self._loaded = dict(every[rank])
        kl_seen: Tensor = self._loaded["kl_seen"]
        return kl_seen


def random_states() -> dict[str, Any]:
    """The states of all random generators, in types that a checkpoint may hold without pickle."""
    name, keys, place, has_gauss, gauss = np.random.get_state(legacy=True)
    states: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": (name, torch.from_numpy(np.array(keys, dtype=np.int64)), place, has_gauss, gauss),
        "python": random.getstate(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore_random_states(states: Mapping[str, Any]) -> None:
    """Put back what `random_states` returned."""
    torch.set_rng_state(states["torch"].cpu())
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), *rest))
    version, inner, gauss = states["python"]
    random.setstate((version, tuple(inner), gauss))
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"].cpu())


def at_a_boundary(loops: dict[str, Any], micro_batches: int) -> None:
    """Write Lightning's counters as they stand between two steps, in the one pass of a run.

    Args:
        loops: `checkpoint["loops"]`, changed in place.
        micro_batches: done so far.
    """
    fit = loops["fit_loop"]
    for part in ("total", "current"):
        fit["epoch_progress"][part] |= {"ready": 1, "started": 1, "processed": 0, "completed": 0}
        batches = fit["epoch_loop.batch_progress"][part]
        batches |= dict.fromkeys(("ready", "started", "processed", "completed"), micro_batches)
    # A run that had ended and now gets more steps has not seen its last batch yet.
    fit["epoch_loop.batch_progress"]["is_last_batch"] = False


def _queries(batch: Batch | Later) -> Sequence[Query]:
    return batch.queries if isinstance(batch, Later | Group) else batch


def _plain(group: Group) -> dict[str, Any]:
    """A group without its queries."""
    actions, rewards = group.actions, group.rewards
    kept: dict[str, Tensor | None] = {name: getattr(actions, name) for name in _TENSORS}
    return {
        "actions": {name: None if one is None else one.cpu() for name, one in kept.items()},
        "spans": {name: span.cpu() for name, span in actions.spans.items()},
        "texts": actions.texts,
        "names": rewards.names,
        "values_RBG": rewards.values_RBG.cpu(),
        "total_BG": rewards.total_BG.cpu(),
        "advantages_BGT": group.advantages_BGT.cpu(),
        "mixed_B": group.mixed_B.cpu(),
        "temperature": group.temperature,
    }


def _group(state: Mapping[str, Any], queries: Sequence[Query]) -> Group:
    texts = tuple(tuple(row) for row in state["texts"])
    return Group(
        queries=queries,
        actions=replace(Actions(**state["actions"]), spans=dict(state["spans"]), texts=texts),
        rewards=RewardTable(tuple(state["names"]), state["values_RBG"], state["total_BG"]),
        advantages_BGT=state["advantages_BGT"],
        mixed_B=state["mixed_B"],
        temperature=state["temperature"],
        learned=state["learned"],
    )
