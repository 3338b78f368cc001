"""Order, number and age of the batches that the loop reads."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from core_rl.config import PhaseConfig
from core_rl.loop.batches import PhaseBatches, shuffled_batches
from core_rl.loop.module import FreshSampler, GroupPolicyModule
from core_rl.objective.curriculum import Curriculum, Phase
from core_rl.types import Actions, Batch
from tests.core_rl.toy import (
    PathReward,
    Recorder,
    ToyPolicy,
    group_of,
    grpo,
    module_of,
    phases,
    rce,
    run,
    settings,
)

RAMP = PathReward([float(i) for i in range(9)])


# -- order ---------------------------------------------------------------------------------------


def test_a_pass_hands_out_every_query_once_and_the_next_in_another_order() -> None:
    batches = shuffled_batches(range(12), 3, seed=0)
    first, second = ([i for b in itertools.islice(batches, 4) for i in b] for _ in range(2))
    assert sorted(first) == sorted(second) == list(range(12))
    assert first != second


def test_order_depends_on_the_seed_alone() -> None:
    def start(seed: int) -> list[object]:
        return list(itertools.islice(shuffled_batches(range(20), 4, seed), 12))

    assert start(3) == start(3)
    assert start(3) != start(4)


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_a_pass_without_overlap(world: int) -> None:
    passes = 24 // (2 * world)
    shares = [
        [
            query
            for batch in itertools.islice(shuffled_batches(range(24), 2, 0, rank, world), passes)
            for query in batch
        ]
        for rank in range(world)
    ]
    assert sorted(itertools.chain(*shares)) == list(range(24))


def test_the_remainder_of_a_pass_is_dropped_on_every_rank_alike() -> None:
    shares = [
        list(itertools.islice(shuffled_batches(range(7), 2, 0, rank, 2), 5)) for rank in (0, 1)
    ]
    for mine, others in zip(*shares, strict=True):
        assert len(mine) == len(others) == 2
        assert not set(mine) & set(others)


def test_too_few_queries_name_the_cure() -> None:
    with pytest.raises(ValueError, match=r"3 queries .* batch of 2 on 2 devices.*batch_size"):
        next(shuffled_batches(range(3), 2, 0, world=2))


# -- number, and no reading ahead ----------------------------------------------------------------


@dataclass
class Asked:
    """A stream that notes, for every batch asked for, the phase and the steps made so far."""

    module: GroupPolicyModule | None = None
    notes: list[tuple[int, int]] = field(default_factory=list)

    def __call__(self, phase: Phase) -> Iterator[Batch]:
        for query in itertools.count():
            assert self.module is not None
            self.notes.append((phase.index, self.module.global_step))
            yield [query % 2]


@dataclass
class Drawn:
    """A sampler that notes the steps made before each draw."""

    at: list[int] = field(default_factory=list)
    module: GroupPolicyModule | None = None

    def __call__(self, policy, prompt, queries, temperature) -> Actions:
        assert self.module is not None
        self.at.append(self.module.global_step)
        return FreshSampler(4)(policy, prompt, queries, temperature)


def train(curriculum: Curriculum, folder: Path, accumulation: int = 1, **changes) -> tuple:
    asked, drawn, recorder = Asked(), Drawn(), Recorder()
    module = module_of(
        ToyPolicy(queries=2),
        RAMP,
        curriculum,
        trainer=settings(accumulation=accumulation),
        sampler=drawn,
        **changes,
    )
    asked.module = drawn.module = module
    run(module, asked, folder, callbacks=[recorder])
    return asked.notes, drawn.at, recorder, module


@pytest.mark.parametrize("accumulation", [1, 3])
def test_every_phase_gets_exactly_its_batches_none_of_them_early(
    accumulation: int, tmp_path: Path
) -> None:
    notes, drawn, recorder, module = train(phases(rce(2), grpo(3)), tmp_path, accumulation)
    steps = [step for step in range(5) for _ in range(accumulation)]
    assert notes == [(int(step >= 2), step) for step in steps]
    assert drawn == steps
    assert module.global_step == 5
    assert len(recorder.metrics) == 5 * accumulation


def test_the_length_is_what_is_left() -> None:
    module = module_of(ToyPolicy(), RAMP, phases(rce(2), grpo(3)))
    assert len(PhaseBatches(module, module.curriculum, Asked(), accumulation=4)) == 20


def test_reused_rollouts_are_drawn_together_and_only_when_due(tmp_path: Path) -> None:
    curriculum = phases(grpo(8, num_iterations=2, minibatches=2))
    notes, drawn, recorder, _ = train(curriculum, tmp_path)
    assert drawn == [0, 0, 4, 4]  # two minibatches, used twice each, then two new ones
    assert len(notes) == 4
    used = [tuple(queries) for queries in recorder.queries]
    for block in (used[:4], used[4:]):
        assert sorted(block[:2]) == sorted(block[2:])


def test_reuse_ends_with_its_phase(tmp_path: Path) -> None:
    curriculum = phases(grpo(3, num_iterations=2), grpo(2))
    notes, drawn, _, _ = train(curriculum, tmp_path)
    assert drawn == [0, 2, 3, 4]
    assert [phase for phase, _ in notes] == [0, 0, 1, 1]


def test_stored_groups_pass_through_unjudged(tmp_path: Path) -> None:
    reward = PathReward([0.0] * 9)
    policy = ToyPolicy()
    stored = group_of([[[0, 0], [1, 1]]], [[1.0, 0.0]], [[1.0, -1.0]], policy)
    module = module_of(policy, reward, phases(grpo(4, num_iterations=2)))
    recorder = Recorder()
    run(module, lambda phase: itertools.repeat(stored), tmp_path, callbacks=[recorder])
    assert reward.calls == 0
    assert len(recorder.metrics) == 4


# -- resuming ------------------------------------------------------------------------------------


class CrashError(Exception):
    """Ends a run on the way, as a crash would."""


class StopAt(Recorder):
    """Crash after so many optimiser steps."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def on_train_batch_end(self, trainer, pl_module, *rest) -> None:
        super().on_train_batch_end(trainer, pl_module, *rest)
        if trainer.global_step == self.step:
            raise CrashError


@pytest.mark.parametrize(
    ("phase", "accumulation", "every"),
    [
        (grpo(6), 1, 3),
        (grpo(6), 2, 3),
        (grpo(12, num_iterations=2, minibatches=2), 1, 4),  # between two rollouts
        (grpo(12, num_iterations=2, minibatches=2), 1, 6),  # amid one
        (grpo(8, num_iterations=2), 2, 4),
    ],
    ids=["fresh", "accumulated", "reused", "amid", "reused-accumulated"],
)
def test_a_resumed_run_reads_what_the_whole_run_would_have(
    phase: PhaseConfig, accumulation: int, every: int, tmp_path: Path
) -> None:
    curriculum = phases(rce(2), phase)

    def stream(phase: Phase) -> Iterator[Batch]:
        return shuffled_batches(range(16), 1, seed=phase.index)

    def learn(folder: Path, recorder: Recorder, resume: Path | None = None) -> GroupPolicyModule:
        trainer = settings(
            accumulation=accumulation,
            checkpoint_every=every,
            resume=str(resume) if resume else None,
        )
        module = module_of(ToyPolicy(queries=16), RAMP, curriculum, trainer=trainer)
        run(module, stream, folder, callbacks=[recorder])
        return module

    whole, cut, rest = Recorder(), StopAt(every + 1), Recorder()
    learn(tmp_path / "whole", whole)
    with pytest.raises(CrashError):
        learn(tmp_path / "cut", cut)
    module = learn(tmp_path / "rest", rest, resume=tmp_path / "cut")
    assert module.global_step == curriculum.total_steps
    assert rest.queries == whole.queries[every * accumulation :]
    assert rest.series("step") == whole.series("step")[every * accumulation :]
