"""A selector in the shared loop, rewarded live by the answers of a generated world."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback
from safetensors.torch import save_file

from core_rl.config import CurriculumConfig, PhaseConfig
from core_rl.loop.batches import shuffled_batches
from core_rl.loop.module import FreshSampler, GroupPolicyModule
from core_rl.loss_config import LossConfig, RatioLevel
from core_rl.objective.curriculum import Curriculum, Phase
from core_rl.objective.rewards import WeightedReward
from core_rl.run.fit import Hooks, fit
from core_rl.types import Batch
from lever.answerers.protocol import KernelICLAnswerer
from lever.data.world import World
from lever.features.slate_features import SlateQuery
from lever.policy.slate_policy import SlatePolicy
from lever.rewards.functions import Soft
from lever.rewards.judges import Judge
from tests.core_rl import toy


def train(
    model: SlatePolicy,
    world: World,
    queries: Sequence[SlateQuery],
    plan: Sequence[PhaseConfig],
    folder: Path,
    held_out: Sequence[Any] = (),
    callbacks: Sequence[Callback] = (),
    **changes: Any,
) -> None:
    """Train on six queries a step, eight fresh candidates each; `changes` are the trainer's."""
    settings = toy.settings(batch_size=6, **changes)
    judge = Judge(
        answerer=KernelICLAnswerer(world),
        answers={one.query: world.answers_of(one.query) for one in queries},
    )
    module = GroupPolicyModule(
        model,
        WeightedReward({"soft": Soft(judge)}, {"soft": 1.0}),
        Curriculum.resolve(CurriculumConfig(list(plan)), 1),
        toy.loop_settings(settings, LossConfig(ratio_level=RatioLevel.sequence_sum)),
        FreshSampler(8),
    )

    def stream(phase: Phase) -> Iterator[Batch]:
        return shuffled_batches(queries, 6, seed=phase.index)

    def save(target: Path, metrics: dict[str, float]) -> None:
        target.mkdir(parents=True)
        kept = {name: str(value) for name, value in metrics.items()}
        save_file(model.state_dict(), target / "policy.safetensors", kept)

    hooks = Hooks(save, describe=lambda query: {"query": query.query}, callbacks=callbacks)
    fit(module, stream, held_out, folder, hooks)
