"""A policy small enough to enumerate, its rewards, and short runs of the real loop over it.

A query is the number of a row.  The probability of an option depends on the row and on the option
before, so every candidate's probability and every gradient is exact.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from safetensors.torch import save_file
from torch import Tensor, nn

from core_rl.config import (
    CurriculumConfig,
    HardwareConfig,
    LoggerConfig,
    PathsConfig,
    PhaseConfig,
    PhaseKind,
    RolloutConfig,
    TrainerConfig,
)
from core_rl.loop.batches import Stream
from core_rl.loop.module import FreshSampler, GroupPolicyModule
from core_rl.loss_config import LossConfig
from core_rl.objective.curriculum import Curriculum, Phase
from core_rl.objective.rewards import WeightedReward
from core_rl.run.fit import Hooks, fit
from core_rl.settings import LoopSettings
from core_rl.types import Actions, Batch, Group, Policy, RewardTable, StepLogProbs


class ToyPolicy(Policy[Tensor]):
    """Logits by query, previous option (row K before the first) and option.

    Args:
        queries: rows.
        options: K.
        steps: T at most.
        stop: option that ends a candidate; None: every candidate has T steps.
        seed: of the logits.
    """

    def __init__(
        self,
        queries: int = 1,
        options: int = 3,
        steps: int = 2,
        stop: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.logits = nn.Parameter(torch.randn(queries, options + 1, options, generator=generator))
        self.steps = steps
        self.stop = stop

    @property
    def options(self) -> int:
        return self.logits.shape[-1]

    def encode(self, queries: Sequence[int]) -> Tensor:
        """Rows of the queries, [B, K + 1, K], with their graph."""
        return self.logits[list(queries)]

    @torch.no_grad()
    def sample(self, prompt: Tensor, num_candidates: int, temperature: float = 1.0) -> Actions:
        rows = prompt.detach().repeat_interleave(num_candidates, 0)
        before = torch.full((len(rows),), self.options)
        alive = torch.ones(len(rows), dtype=torch.bool)
        ids, masks, logps = [], [], []
        for _ in range(self.steps):
            logits = rows[torch.arange(len(rows)), before]
            logp = (logits / (temperature or 1.0)).log_softmax(-1)
            drawn = torch.multinomial(logp.exp(), 1)[:, 0] if temperature else logp.argmax(-1)
            ids.append(drawn)
            masks.append(alive)
            logps.append(torch.where(alive, logp.gather(1, drawn[:, None])[:, 0], 0.0))
            if self.stop is not None:
                alive = alive & (drawn != self.stop)
            before = drawn
        shape = (len(prompt), num_candidates, self.steps)
        return Actions(
            ids_BGT=torch.stack(ids, 1).view(shape),
            mask_BGT=torch.stack(masks, 1).view(shape),
            logp_BGT=torch.stack(logps, 1).view(shape),
            truncated_BG=None if self.stop is None else alive.view(shape[:2]),
        )

    def log_probs(self, prompt: Tensor, actions: Actions, temperature: float = 1.0) -> StepLogProbs:
        first = torch.full_like(actions.ids_BGT[..., :1], self.options)
        before_BGT = torch.cat([first, actions.ids_BGT[..., :-1]], -1)
        query_B11 = torch.arange(len(prompt)).view(-1, 1, 1)
        all_BGTK = (prompt[query_B11, before_BGT] / temperature).log_softmax(-1)
        logp_BGT = all_BGTK.gather(-1, actions.ids_BGT.unsqueeze(-1)).squeeze(-1)
        return StepLogProbs(torch.where(actions.mask_BGT, logp_BGT, 0.0), all_BGTK)


def paths(policy: ToyPolicy) -> Actions:
    """All K ** T candidates of one query, for a policy without a stop."""
    rows = list(itertools.product(range(policy.options), repeat=policy.steps))
    ids_BGT = torch.tensor(rows).unsqueeze(0)
    return Actions(ids_BGT, torch.ones_like(ids_BGT, dtype=torch.bool))


class PathReward:
    """A number for every path, the same for every query; counts its calls."""

    def __init__(self, values: Sequence[float], options: int = 3) -> None:
        self.values = list(values)
        self.options = options
        self.calls = 0

    def __call__(self, queries: Sequence[int], actions: Actions) -> list[list[float]]:
        self.calls += 1
        index_BG = torch.zeros(actions.ids_BGT.shape[:2], dtype=torch.long)
        for ids_BG in actions.ids_BGT.unbind(-1):
            index_BG = index_BG * self.options + ids_BG
        return [[self.values[i] for i in row] for row in index_BG.tolist()]


def expected_reward(policy: ToyPolicy, reward: PathReward) -> Tensor:
    """Exact expected reward of query 0, with its graph."""
    every = paths(policy)
    logp_BGT = policy.log_probs(policy.encode([0]), every).logp_BGT
    return (logp_BGT.sum(-1).exp()[0] * torch.tensor(reward([0], every)[0])).sum()


def group_of(
    ids: Sequence[Sequence[Sequence[int]]],
    scores: Sequence[Sequence[float]],
    advantages: Sequence[Sequence[float]] | None = None,
    policy: ToyPolicy | None = None,
    queries: Sequence[int] | None = None,
) -> Group:
    """Store candidates `ids[b][g]` of any length; `policy` says what they were drawn at."""
    longest = max(len(row) for group in ids for row in group)
    padded = [[[*row, *[0] * (longest - len(row))] for row in group] for group in ids]
    mask = [[[t < len(row) for t in range(longest)] for row in group] for group in ids]
    queries = [0] * len(ids) if queries is None else queries
    actions = Actions(torch.tensor(padded), torch.tensor(mask))
    if policy is not None:
        with torch.no_grad():
            logp_BGT = policy.log_probs(policy.encode(queries), actions).logp_BGT
        actions = replace(actions, logp_BGT=logp_BGT)
    total_BG = torch.tensor(scores)
    each_BG = torch.tensor(scores if advantages is None else advantages)
    return Group(
        queries=queries,
        actions=actions,
        rewards=RewardTable(("path",), total_BG.unsqueeze(0), total_BG),
        advantages_BGT=each_BG.unsqueeze(-1) * actions.mask_BGT,
        mixed_B=torch.tensor([max(row) > min(row) for row in scores]),
    )


def ragged(policy: ToyPolicy) -> Group:
    """Two stored groups of unlike lengths: 1 + 3 steps, and 3 + 3; option 2 stops."""
    return group_of(
        [[[2], [0, 1, 2]], [[0, 0, 2], [1, 1, 2]]],
        [[1.0, 0.0], [0.0, 1.0]],
        [[0.7, -0.7], [-1.5, 0.5]],
        policy,
        [0, 1],
    )


def uneven(policy: ToyPolicy) -> Group:
    """Four stored groups: two of unlike lengths, then two without contrast; option 2 stops."""
    return group_of(
        [[[2], [0, 1, 2]], [[0, 0, 2], [1, 1, 2]], [[1, 2], [2]], [[0, 1, 1], [1, 0, 2]]],
        [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.5, 0.5]],
        [[0.7, -0.7], [-1.5, 0.5], [0.0, 0.0], [0.0, 0.0]],
        policy,
        [0, 1, 2, 3],
    )


def one_query(group: Group, index: int) -> Group:
    """One of a stored group's queries."""
    return rows(group, [index])


def rows(group: Group, which: Sequence[int]) -> Group:
    """Some of a stored group's queries."""
    chosen = list(which)
    actions = group.actions
    assert actions.logp_BGT is not None
    return replace(
        group,
        queries=[group.queries[row] for row in chosen],
        actions=replace(
            actions,
            ids_BGT=actions.ids_BGT[chosen],
            mask_BGT=actions.mask_BGT[chosen],
            logp_BGT=actions.logp_BGT[chosen],
        ),
        rewards=replace(
            group.rewards,
            values_RBG=group.rewards.values_RBG[:, chosen],
            total_BG=group.rewards.total_BG[chosen],
        ),
        advantages_BGT=group.advantages_BGT[chosen],
        mixed_B=group.mixed_B[chosen],
    )


def phases(*configs: PhaseConfig) -> Curriculum:
    return Curriculum.resolve(CurriculumConfig(list(configs)), 1)


def grpo(steps: int, **changes: Any) -> PhaseConfig:
    return PhaseConfig(PhaseKind.grpo, steps=steps, **changes)


def rce(steps: int, **changes: Any) -> PhaseConfig:
    return PhaseConfig(PhaseKind.rce, steps=steps, **changes)


def module_of(
    policy: ToyPolicy,
    reward: Callable[..., Any],
    curriculum: Curriculum,
    loss: LossConfig | None = None,
    trainer: TrainerConfig | None = None,
    candidates: int = 8,
    **changes: Any,
) -> GroupPolicyModule:
    return GroupPolicyModule(
        policy,
        WeightedReward({"path": reward}, {"path": 1.0}),
        curriculum,
        loop_settings(trainer or settings(), loss, changes.pop("temperature", 1.0)),
        changes.pop("sampler", FreshSampler(candidates)),
        **changes,
    )


def loop_settings(
    trainer: TrainerConfig, loss: LossConfig | None = None, temperature: float = 1.0
) -> LoopSettings:
    """Settings of a run on this machine without a metric logger."""
    return LoopSettings(
        curriculum=CurriculumConfig(),
        loss=loss or LossConfig(),
        rollout=RolloutConfig(temperature=temperature),
        trainer=trainer,
        hardware=HardwareConfig(),
        logger=LoggerConfig(kind="none"),
        paths=PathsConfig(),
    )


def settings(**changes: Any) -> TrainerConfig:
    """A constant learning rate, no checkpoint on the way, nothing on the screen."""
    quiet: dict[str, Any] = {
        "lr": 0.05,
        "schedule": "constant",
        "warmup": 0.0,
        "val_every": 1000,
        "checkpoint_every": 0,
        "grad_clip": 1e3,
        "progress": False,
    }
    return TrainerConfig(**(quiet | changes))


class Recorder(Callback):
    """Keep what every micro-batch logged and the gradient of every optimiser step."""

    def __init__(self) -> None:
        self.metrics: list[dict[str, float]] = []
        self.gradients: list[Tensor] = []
        self.queries: list[list[int]] = []
        self.policies: list[Tensor] = []

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any
    ) -> None:
        self.policies.append(_logits(pl_module).detach().clone())

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any
    ) -> None:
        grad = _logits(pl_module).grad
        assert grad is not None
        self.gradients.append(grad.clone())

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        assert isinstance(pl_module, GroupPolicyModule) and pl_module.last_group is not None
        seen = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.metrics.append(seen | {"step": float(trainer.global_step)})
        self.queries.append(list(pl_module.last_group.queries))

    def series(self, name: str) -> list[float]:
        return [seen[name] for seen in self.metrics]


def _logits(pl_module: L.LightningModule) -> nn.Parameter:
    assert isinstance(pl_module, GroupPolicyModule)
    return pl_module.policy.logits


def forever(*batches: Batch) -> Stream:
    """The same batches again and again, in every phase."""

    def stream(phase: Phase) -> Iterator[Batch]:
        return itertools.cycle(batches)

    return stream


def run(
    module: GroupPolicyModule,
    stream: Stream,
    folder: Path,
    trainer: TrainerConfig | None = None,
    held_out: Sequence[Any] = (),
    callbacks: Sequence[Callback] = (),
    restore: Callable[[Path], object] | None = None,
    **changes: Any,
) -> L.Trainer:
    """Train through `core_rl.run.fit.fit`; checkpoints are safetensors of the logits.

    Args:
        module: what learns.
        stream: of batches.
        folder: of the run.
        trainer: None = that of the module's settings.
        held_out: batches of queries.
        callbacks: more of them.
        restore: reads a checkpoint back at the end; None = the policy stays as it is.
        changes: of the module's settings.
    """

    def save(target: Path, metrics: dict[str, float]) -> None:
        target.mkdir(parents=True)
        shown = {key: str(value) for key, value in metrics.items()}
        save_file({"logits": module.policy.logits.detach()}, target / "policy.safetensors", shown)

    module.settings = replace(
        module.settings, trainer=trainer or module.settings.trainer, **changes
    )
    module.guard.on_nan = module.settings.trainer.on_nan
    module.guard.scales_loss = module.settings.hardware.scales_loss
    hooks = Hooks(save, describe=lambda query: {"id": query}, restore=restore, callbacks=callbacks)
    return fit(module, stream, held_out, folder, hooks)
