"""Callbacks of a training: published metrics, the choice of a checkpoint, a frozen backbone."""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from core_rl.config import PhaseKind
from core_rl.doctor.agreement import disagreement
from core_rl.files import write_json
from core_rl.hardware import own_randomness
from core_rl.loop.module import GroupPolicyModule
from core_rl.objective.rewards import WeightedReward
from core_rl.run.callbacks import SavePolicy, write_policy
from core_rl.types import Group, masked_mean
from lever.candidates.beam_groups import beam_group
from lever.candidates.beams import BeamRecord
from lever.features.slate_features import SlateQuery
from lever.policy.selectors import PointerSelector
from lever.policy.slate_policy import SlatePolicy

log = logging.getLogger(__name__)


class SourceMetrics(Callback):
    """Log metrics by their published names; check the ratio at the start of each GRPO phase.

    Each update: `lever/ppo_loss`, `lever/kl_loss` (weighted), `lever/mean_ratio`, and over the
    candidates of mixed groups `lever/mean_advantage` and its deviation `lever/advantage_spread`.
    Each validation, if the held-out queries have beams: `lever/val_loss`, the cross entropy of
    their beams in nats a slate.  First update of a GRPO phase: `lever/start_log_ratio`, the
    difference between sampler and training pass (the largest of a step; in half precision the
    mean), 0 up to rounding.
    """

    def __init__(self, val: Sequence[SlateQuery], beams: Mapping[int, BeamRecord]) -> None:
        self.val = [one for one in val if one.query in beams]
        self.beams = beams
        self._phase = -1

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, GroupPolicyModule)
        phase = pl_module.curriculum.phase_at(trainer.global_step)
        if trainer.global_step > phase.start:  # checked by the run that is resumed
            self._phase = phase.index

    def on_before_backward(
        self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor
    ) -> None:
        """Check all candidates of a phase's first update, including those of flat groups."""
        assert isinstance(pl_module, GroupPolicyModule)
        by_reward = pl_module.phase.config.kind is PhaseKind.grpo
        group = pl_module.last_group
        if not by_reward or group is None or self._phase == pl_module.phase.index:
            return
        self._phase = pl_module.phase.index
        self._check_start(pl_module, group)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        assert isinstance(pl_module, GroupPolicyModule)
        if pl_module.phase.config.kind is not PhaseKind.grpo or pl_module.last_group is None:
            return
        seen = trainer.callback_metrics
        group = pl_module.last_group
        steps_BGT = group.actions.mask_BGT
        real_BG = steps_BGT.any(dim=-1) & group.mixed_B.unsqueeze(-1)
        # All steps of a slate have the same advantage.
        total_BG = torch.where(steps_BGT, group.advantages_BGT, 0.0).sum(dim=-1)
        advantage_BG = total_BG / steps_BGT.sum(dim=-1).clamp(min=1)
        chosen = advantage_BG[real_BG]
        nothing = torch.zeros(())
        kl = seen.get("train/kl", nothing) * seen.get("train/kl_weight", nothing)
        values = {
            "ppo_loss": seen["train/loss"] - kl,
            "kl_loss": kl,
            "mean_ratio": seen["train/ratio_mean"],
            "mean_advantage": masked_mean(advantage_BG, real_BG),
            "advantage_spread": chosen.std() if chosen.numel() > 1 else nothing,
        }
        for name, value in values.items():
            pl_module.log(f"lever/{name}", value, batch_size=1)

    def _check_start(self, module: GroupPolicyModule, group: Group) -> None:
        actions = group.actions
        assert actions.logp_BGT is not None
        temperature = module.temperature_of(group)
        # This hook runs outside the step, and so outside its precision.
        with torch.no_grad(), module.trainer.precision_plugin.train_step_context():
            prompt = module.policy.encode(group.queries)
            now_BGT = module.policy.log_probs(prompt, actions, temperature).logp_BGT
            log_ratio, limit = disagreement(
                module.policy, now_BGT, actions.logp_BGT, actions.mask_BGT
            )
        module.log("lever/start_log_ratio", log_ratio, batch_size=1)
        name = f"phase {module.phase.index} ({module.phase.config.data})"
        if log_ratio > limit:
            raise RuntimeError(
                f"{name}: the sampler and the training pass differ by {log_ratio:.2g} nats at its "
                f"first update; expected at most {limit:g}: the ratio would be biased"
            )
        log.info("%s: sampler and training pass agree to %.1g nats", name, log_ratio)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self.val or trainer.sanity_checking:
            return
        assert isinstance(pl_module, GroupPolicyModule)
        group = beam_group(self.val, self.beams, weighed=False)
        actions = group.actions.to(pl_module.device)
        with torch.no_grad():
            scores = pl_module.policy.log_probs(pl_module.policy.encode(self.val), actions)
        loss_BG = -scores.logp_BGT.sum(dim=-1)
        loss = masked_mean(loss_BG, actions.mask_BGT.any(dim=-1))
        pl_module.log("lever/val_loss", loss, batch_size=len(self.val))


class Kept:
    """The best policy so far by some rule, and its figure.

    The policy is in `folder`, the figure in `<folder>.json`.  A run that resumes a checkpoint file,
    `resumed`, takes both from the run that it continues.
    """

    def __init__(self, folder: Path, save: SavePolicy, resumed: str | None = None) -> None:
        self.folder = folder
        self.save = save
        self.resumed = resumed
        self.figure: float | None = None

    def take_over(self, trainer: L.Trainer) -> None:
        """Read the policy and figure of the resumed run."""
        if self.resumed is None:
            return
        before = Path(self.resumed).parent / self.folder.name
        if not _figure_of(before).exists():
            return
        self.figure = json.loads(_figure_of(before).read_text(encoding="utf-8"))["figure"]
        if trainer.is_global_zero and before.resolve() != self.folder.resolve():
            shutil.copytree(before, self.folder, dirs_exist_ok=True)
            shutil.copyfile(_figure_of(before), _figure_of(self.folder))

    def keep(self, trainer: L.Trainer, figure: float) -> None:
        """Write the current policy."""
        self.figure = figure
        if trainer.is_global_zero:
            write_policy(self.save, self.folder, {})
            write_json(_figure_of(self.folder), {"figure": figure})


def _figure_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.json")


class LowestKL(Callback):
    """Keep the policy of the pass with the lowest mean KL: the published rule.

    It prefers the policy that has changed least.  A pass has `every` optimiser steps.
    """

    def __init__(self, every: int, kept: Kept) -> None:
        self.every = every
        self.kept = kept
        self._seen: list[float] = []
        self._step = 0

    def state_dict(self) -> dict[str, Any]:
        return {"seen": list(self._seen), "step": self._step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._seen, self._step = list(state_dict["seen"]), state_dict["step"]

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.kept.take_over(trainer)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        kl = trainer.callback_metrics.get("train/kl")
        if kl is None or trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        self._seen.append(float(kl))
        if self._step % self.every == 0:
            mean = sum(self._seen) / len(self._seen)
            self._seen.clear()
            if self.kept.figure is None or mean < self.kept.figure:
                self.kept.keep(trainer, mean)
                log.info("mean KL of the pass: %.4f, the lowest so far", mean)


@torch.no_grad()
def drawn_reward(
    policy: SlatePolicy, reward: WeightedReward, queries: Sequence[SlateQuery], draws: int
) -> float:
    """Return the mean reward of `draws` slates a query, sampled with a fixed seed."""
    with own_randomness(next(policy.parameters()).device):
        torch.manual_seed(0)
        actions = policy.sample(policy.encode(queries), draws)
    return float(reward.score(queries, actions).total_BG.nanmean())


class HighestDrawn(Callback):
    """Keep the policy whose sampled slates have the highest reward on held-out queries.

    Logs `lever/val_drawn` (see `drawn_reward`) with each validation.
    """

    def __init__(self, val: Sequence[SlateQuery], draws: int, kept: Kept) -> None:
        self.val = val
        self.draws = draws
        self.kept = kept

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.kept.take_over(trainer)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, GroupPolicyModule)
        policy = pl_module.policy
        assert isinstance(policy, SlatePolicy)
        drawn = drawn_reward(policy, pl_module.reward, self.val, self.draws)
        pl_module.log("lever/val_drawn", drawn, batch_size=len(self.val))
        # `drawn` is NaN if nothing was judged; the comparison is then False.
        best = -math.inf if self.kept.figure is None else self.kept.figure
        if drawn > best:
            self.kept.keep(trainer, drawn)
            log.info("reward of sampled slates, held-out: %.4f, the best so far", drawn)


class FreezeBackbone(Callback):
    """Freeze the projection and attention blocks of a pointer in GRPO phases: a published option.

    Raises:
        ValueError: the selector is not a pointer.
    """

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        _pointer(pl_module)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object
    ) -> None:
        assert isinstance(pl_module, GroupPolicyModule)
        learns = pl_module.phase.config.kind is not PhaseKind.grpo
        policy = _pointer(pl_module)
        for part in (policy.project, policy.blocks):
            part.requires_grad_(learns)


def _pointer(pl_module: L.LightningModule) -> PointerSelector:
    assert isinstance(pl_module, GroupPolicyModule)
    policy = pl_module.policy
    if not isinstance(policy, PointerSelector):
        raise ValueError(
            f"learn.freeze_backbone_in_grpo=true: {type(policy).__name__} has no backbone: "
            "expected model=lever_pointer"
        )
    return policy
