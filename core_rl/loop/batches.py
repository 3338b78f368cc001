"""Batches of queries, and groups that are used for more than one update.

The order depends only on the seed and the position, so a resumed run continues where it stopped.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from core_rl.loop.continuation import Later, made
from core_rl.loop.module import GroupPolicyModule
from core_rl.objective.curriculum import Curriculum, Phase
from core_rl.types import Batch, Group, Query

Stream = Callable[[Phase], Iterator[Batch | Later]]


def shuffled_batches(
    queries: Sequence[Query], batch_size: int, seed: int, rank: int = 0, world: int = 1
) -> Iterator[Sequence[Query]]:
    """Yield batches without end, each pass in a new order; every rank gets its own share.

    A pass drops the remainder that does not fill a batch on every rank.

    Raises:
        ValueError: if there are fewer queries than one batch on every rank needs.
    """
    need = batch_size * world
    if len(queries) < need:
        raise ValueError(
            f"{len(queries)} queries cannot fill a batch of {batch_size} on {world} devices: "
            "lower trainer.batch_size or raise data_mix.size"
        )
    for turn in itertools.count():
        order = np.random.default_rng([seed, turn]).permutation(len(queries))
        for start in range(0, len(order) - need + 1, need):
            mine = order[start + rank * batch_size : start + (rank + 1) * batch_size]
            yield [queries[i] for i in mine]


class PhaseBatches:
    """Yield exactly what each phase of the curriculum needs, from the stream made for it.

    It has a length so that Lightning does not prefetch: a rollout that is drawn before the previous
    update comes from an outdated policy.

    Args:
        module: learns; draws the rollouts that are used more than once.
        curriculum: the phases.
        stream: makes the endless stream of a phase.
        accumulation: micro-batches an optimiser step.
    """

    def __init__(
        self,
        module: GroupPolicyModule,
        curriculum: Curriculum,
        stream: Stream,
        accumulation: int = 1,
    ) -> None:
        self.module = module
        self.curriculum = curriculum
        self.stream = stream
        self.accumulation = accumulation

    def __len__(self) -> int:
        """Micro-batches of the whole curriculum; Lightning counts those before a resume itself."""
        return self.curriculum.total_steps * self.accumulation

    def __iter__(self) -> Iterator[Batch]:
        self.module.continuation.start()
        batches = self._from(self.module.global_step)
        while True:
            self.module.continuation.mark()  # a checkpoint is written once the batch is here
            batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def _from(self, done: int) -> Iterator[Batch]:
        """Yield the batches after the first `done` optimiser steps."""
        for phase in self.curriculum.phases:
            if phase.end <= done:
                continue
            skip = max(0, done - phase.start) * self.accumulation
            count = (phase.end - phase.start) * self.accumulation
            if phase.config.num_iterations == phase.config.minibatches == 1:
                # Drawn inside the step.
                self._new_round([])
                yield from map(made, itertools.islice(self.stream(phase), skip, count))
            else:
                yield from itertools.islice(self._reused(phase, skip), count - skip)

    def _reused(self, phase: Phase, skip: int) -> Iterator[Batch]:
        """Draw the rollouts of several steps at once, then learn from each several times.

        The first `skip` batches were used before a resume.  Whole rounds of them are skipped in the
        stream; a round that was interrupted is continued with the rollouts of the checkpoint.
        """
        width = self.accumulation * phase.config.minibatches
        first, skip = divmod(skip, width * phase.config.num_iterations)
        stream = itertools.islice(self.stream(phase), first * width, None)
        for turn in itertools.count(first):
            rng = np.random.default_rng([phase.start, turn])
            batches = list(itertools.islice(stream, width))
            rollouts = self.module.continuation.resumed_round(batches, skip)
            if rollouts is None:
                rollouts = [self.module.draw_for_reuse(made(batch)) for batch in batches]
            self._new_round(rollouts)
            order = self._order(len(rollouts), phase.config.num_iterations, rng)
            for index in itertools.islice(order, skip, None):
                yield rollouts[index]
                self.module.continuation.learned.add(index)
            skip = 0

    def _new_round(self, rollouts: Sequence[Group]) -> None:
        self.module.continuation.rollouts = list(rollouts)
        self.module.continuation.learned.clear()

    def _order(self, width: int, num_iterations: int, rng: np.random.Generator) -> Iterator[int]:
        """Yield the rollouts' indices `num_iterations` times, each time in a new order."""
        for _ in range(num_iterations):
            yield from map(int, rng.permutation(width))
