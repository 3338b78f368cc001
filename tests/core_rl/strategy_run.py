"""One of the processes of `test_strategies.py`: stored candidates under each strategy."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch

from core_rl.config import HardwareConfig
from core_rl.hardware import draw_apart
from core_rl.loop.module import GroupPolicyModule
from core_rl.loss_config import KLConfig, LossConfig, Reduction
from tests.core_rl.toy import (
    PathReward,
    ToyPolicy,
    forever,
    grpo,
    module_of,
    one_query,
    phases,
    ragged,
    run,
    settings,
)

STEPS = 4
LOSS = LossConfig(reduction=Reduction.dapo, kl=KLConfig(weight=0.3))
STRATEGIES = {
    "ddp": {"strategy": "ddp"},
    "zero1": {"strategy": "deepspeed", "zero_stage": 1},
    "zero2": {"strategy": "deepspeed", "zero_stage": 2},
}


def policy() -> ToyPolicy:
    return ToyPolicy(queries=2, options=3, steps=3, stop=2)


def trained(folder: Path, shares: list[int], hardware: HardwareConfig) -> GroupPolicyModule:
    """Learn from the stored groups that are this process's share."""
    group = ragged(policy())
    reward = PathReward([float(i) for i in range(27)])
    trainer = settings(accumulation=len(shares))
    module = module_of(policy(), reward, phases(grpo(STEPS)), LOSS, trainer)
    run(module, forever(*(one_query(group, i) for i in shares)), folder, hardware=hardware)
    return module


def logits(module: GroupPolicyModule) -> list[float]:
    return [float(value) for value in module.policy.logits.detach().flatten()]


def main(folder: Path) -> None:
    rank = int(os.environ["RANK"])
    told: dict[str, object] = {}
    for name, chosen in STRATEGIES.items():
        hardware = HardwareConfig(devices=2, rehearse=True, **chosen)
        told[name] = logits(trained(folder / name, [rank], hardware))
    torch.manual_seed(0)
    draw_apart(rank)
    told["drawn"] = torch.rand(8).tolist()
    (folder / f"rank-{rank}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
