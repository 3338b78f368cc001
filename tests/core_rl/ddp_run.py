"""One of the processes of `test_distributed.py`: a short run over stored, then fresh candidates."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from core_rl.config import DoctorConfig, HardwareConfig
from core_rl.loop.batches import shuffled_batches
from core_rl.loss_config import KLConfig, LossConfig, Reduction
from core_rl.objective.curriculum import Phase
from core_rl.types import Batch
from tests.core_rl.toy import (
    PathReward,
    Recorder,
    ToyPolicy,
    forever,
    grpo,
    module_of,
    one_query,
    phases,
    ragged,
    rows,
    run,
    settings,
    uneven,
)

KL = KLConfig(weight=0.3, adaptive=True, low=1e-6, high=1e-5, every=1, ema=0.0)
REWARD = PathReward([float(i) for i in range(27)])
STORED_STEPS = 2


def policy() -> ToyPolicy:
    return ToyPolicy(queries=2, options=3, steps=3, stop=2)


def alone(reduction: Reduction, folder: Path) -> Recorder:
    """What one process makes of the same stored groups, accumulated."""
    group, recorder = ragged(policy()), Recorder()
    loss, trainer = LossConfig(reduction=reduction, kl=KL), settings(accumulation=2)
    module = module_of(policy(), REWARD, phases(grpo(STORED_STEPS)), loss, trainer)
    run(module, forever(one_query(group, 0), one_query(group, 1)), folder, callbacks=[recorder])
    return recorder


def uneven_gradients(
    reduction: Reduction, cut: list[list[int]], folder: Path, **changes: Any
) -> list[Any]:
    """Gradients of two steps over the groups of `uneven`, in this process's micro-batches."""
    four, recorder = ToyPolicy(4, 3, 3, stop=2), Recorder()
    group = uneven(four)
    loss = LossConfig(reduction=reduction, kl=KLConfig(weight=0.3))
    trainer = settings(accumulation=len(cut))
    module = module_of(four, REWARD, phases(grpo(2)), loss, trainer, max_completion=3)
    stream = forever(*(rows(group, part) for part in cut))
    # Each query has logits of its own here, so the doctor is right that a flat one never moves.
    changes["doctor"] = DoctorConfig(enabled=False)
    run(module, stream, folder, callbacks=[recorder], **changes)
    return torch.stack(recorder.gradients).tolist()


def main(folder: Path) -> None:
    rank = int(os.environ["RANK"])
    stored = one_query(ragged(policy()), rank)
    told: dict[str, Any] = {"uneven": {}}
    hardware = HardwareConfig(devices=2, strategy="ddp")
    for reduction in Reduction:
        # The second process holds the two groups without contrast.
        cut = [[[0], [1]], [[2], [3]]][rank]
        told["uneven"][reduction.value] = uneven_gradients(
            reduction, cut, folder / "uneven", hardware=hardware
        )
    for reduction in (Reduction.dapo, Reduction.bnpo):
        recorder = Recorder()
        curriculum = phases(grpo(STORED_STEPS), grpo(4), grpo(2, num_iterations=2))
        trainer = settings(val_every=2, checkpoint_every=1, keep_checkpoints=1)
        module = module_of(
            policy(), REWARD, curriculum, LossConfig(reduction=reduction, kl=KL), trainer
        )

        def stream(phase: Phase) -> Iterator[Batch]:
            while phase.index == 0:
                yield stored
            yield from shuffled_batches([0, 1, 0, 1], 1, phase.index, rank, 2)

        torch.manual_seed(0)
        run(module, stream, folder, callbacks=[recorder], hardware=hardware, held_out=[[0, 1]])
        told[reduction.value] = {
            "gradients": torch.stack(recorder.gradients).tolist(),
            "kl_weights": recorder.series("train/kl_weight"),
            "rewards": [seen.get("reward/total") for seen in recorder.metrics],
            "policies": torch.stack(recorder.policies).tolist(),
        }
    (folder / f"rank-{rank}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
