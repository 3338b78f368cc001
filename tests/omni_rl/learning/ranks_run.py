"""One of the processes of `test_ranks.py`: each learns from a question with media of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from core_rl.config import DoctorConfig, HardwareConfig, PhaseConfig, PhaseKind
from core_rl.loop.module import FreshSampler, GroupPolicyModule
from core_rl.loss_config import KLConfig, LossConfig
from core_rl.objective.curriculum import Phase
from core_rl.objective.rewards import WeightedReward
from core_rl.run.fit import Hooks, fit
from core_rl.types import Actions, Group
from omni_rl.data.record import Record
from omni_rl.policy.policy import OmniPolicy, untrained_policy
from omni_rl.policy.prompts import PromptBuilder
from omni_rl.rewards.rules import Format
from tests.core_rl.toy import loop_settings, phases, settings
from tests.omni_rl.prompt_cases import clip, record
from tests.omni_rl.small_world import small_model

STEPS, HALF, LR = 4, 2, 1e-4
STRATEGIES = {
    "ddp": {"strategy": "ddp"},
    "zero2": {"strategy": "deepspeed", "zero_stage": 2},
    "zero3": {"strategy": "deepspeed", "zero_stage": 3},
}
# What the first and the second process are given.
MEDIA = {
    "alike": (("plain",), ("wide",)),
    "sound on one": (("plain",), ("silent",)),
    "picture on one, video on the other": ((), ("plain",)),
    "text on one": (("plain",), None),
}


def question(names: Sequence[str] | None, folder: Path) -> Record:
    """A question about clips, about a picture (no names), or about nothing (None)."""
    if names is None:
        return record(videos=())
    if names:
        return record(*names)
    picture = folder / f"picture-{os.environ.get('RANK', 0)}.png"
    Image.linear_gradient("L").resize((56, 56)).convert("RGB").save(picture)
    return record(videos=(), images=(picture,), data_type="image")


def start() -> OmniPolicy:
    """An untrained thinker whose completions are ragged."""
    config = replace(small_model(), freeze_towers=False, recompute="layers")
    policy = untrained_policy(config, seed=0)
    policy.builder = PromptBuilder(policy.processor, config, load=clip)
    policy.stop_ids = torch.cat([policy.stop_ids, torch.arange(0, 480, 4)])
    return policy


@torch.no_grad()
def stored(policy: OmniPolicy, asked: Record, seed: int) -> Group:
    """Candidates of a question with rewards, the same on every process."""
    torch.manual_seed(seed)
    actions = policy.sample(policy.encode([asked]), 4)
    reward = WeightedReward({"length": by_length}, {"length": 1.0})
    table = reward.score([asked], actions)
    score_BG = table.total_BG
    centred_BG1 = (score_BG - score_BG.mean()).unsqueeze(-1)
    mixed_B = (score_BG != score_BG[:, :1]).any(-1)
    return Group([asked], actions, table, centred_BG1 * actions.mask_BGT, mixed_B)


def by_length(queries: Sequence[Record], actions: Actions) -> list[list[float]]:
    return actions.mask_BGT.sum(-1).float().tolist()


def learned(
    folder: Path,
    media: str,
    kind: PhaseKind,
    hardware: HardwareConfig,
    shares: Sequence[int],
    steps: int = STEPS,
    resume: str | None = None,
) -> dict[str, Tensor]:
    """Weights after a few steps on these questions of the pair, accumulated; the towers train."""
    folder.mkdir(parents=True, exist_ok=True)
    policy = start()
    groups = [stored(policy, question(names, folder), i) for i, names in enumerate(MEDIA[media])]
    assert all(bool(group.mixed_B.all()) for group in groups)
    trainer = settings(
        lr=LR, accumulation=len(shares), grad_clip=1.0, checkpoint_every=HALF, resume=resume
    )
    run = replace(
        loop_settings(trainer, LossConfig(kl=KLConfig(weight=0.2))),
        hardware=hardware,
        doctor=DoctorConfig(enabled=False),
    )
    reward = WeightedReward({"format": Format()}, {"format": 1.0})
    curriculum = phases(PhaseConfig(kind, steps=steps))
    module = GroupPolicyModule(policy, reward, curriculum, run, FreshSampler(4))

    def stream(phase: Phase) -> Iterator[Group]:
        return cycle([groups[share] for share in shares])

    def save(target: Path, metrics: dict[str, float]) -> None:
        policy.save(target, "test", metrics)

    fit(module, stream, [], folder, Hooks(save, describe=lambda query: {"id": query.id}))
    return {name: p.detach().clone() for name, p in policy.model.named_parameters()}


def cases() -> Iterator[tuple[str, str, PhaseKind]]:
    """Media, strategy and objective of every run."""
    for media in MEDIA:
        for strategy in STRATEGIES:
            yield media, strategy, PhaseKind.grpo
            if media == "alike":
                yield media, strategy, PhaseKind.rce


def main(folder: Path) -> None:
    rank = int(os.environ["RANK"])
    for media, name, kind in cases():
        hardware = HardwareConfig(devices=2, rehearse=True, **STRATEGIES[name])
        where = folder / f"{media} {name} {kind.value}"
        save_file(learned(where, media, kind, hardware, [rank]), where / f"{rank}.safetensors")
    # Half the steps, and the rest in another run.
    whole = folder / "alike zero3 grpo"
    first, second = folder / "first", folder / "second"
    hardware = HardwareConfig(devices=2, rehearse=True, **STRATEGIES["zero3"])
    learned(first, "alike", PhaseKind.grpo, hardware, [rank], HALF)
    resumed = learned(second, "alike", PhaseKind.grpo, hardware, [rank], resume=str(first))
    save_file(resumed, whole / f"resumed {rank}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
