"""Train a selector: supervision, RCE and GRPO are phases of the loop in `core_rl`.

The `data` of a phase names what it reads (`lever.model_config.PhaseData`).  Stored data come
through the stream as judged groups; their old log-probabilities are those of the policy when they
are fetched, so the ratio starts at 1 in every phase and round.  If a rollout is used more than
once, a round is one pass over all queries: fetch or sample for all of them, make `num_iterations`
passes of updates, start again with the new policy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from lightning.pytorch.callbacks import Callback

from core_rl.config import CurriculumConfig, PhaseConfig, PhaseKind, TrainerConfig
from core_rl.loop.batches import shuffled_batches
from core_rl.loop.continuation import Later
from core_rl.loop.module import FreshSampler, GroupPolicyModule
from core_rl.objective.curriculum import CandidateSubset, Curriculum, Phase
from core_rl.objective.rewards import WeightedReward, rollout_stats
from core_rl.run.fit import Hooks, fit
from core_rl.run.resume import resume_point
from core_rl.types import Actions, Batch, Group
from lever.candidates.beam_groups import beam_group
from lever.candidates.beams import BeamRecord
from lever.candidates.rl_records import CandidateRecord
from lever.candidates.stored_sampler import StoredSampler
from lever.features.slate_features import SlateQuery
from lever.learning.callbacks import FreezeBackbone, HighestDrawn, Kept, LowestKL, SourceMetrics
from lever.model_config import Best, PhaseData
from lever.policy.build import load_weights, save_policy
from lever.policy.slate_policy import SlatePolicy
from lever.settings import Settings

VAL_BATCH = 64
# The folder of each rule's checkpoint.
KEPT = {Best.drawn: "best_drawn", Best.reward: "best", Best.kl: "lowest_kl", Best.last: "last"}


@dataclass(frozen=True)
class Lessons:
    """The training data of a selector.

    Attributes:
        train: training queries.
        val: held-out queries, for the choice of the checkpoint.
        beams: beam data by query, for phases that read them.
        records: RL data by query, for phases that read them.
        seed: of the order of the queries.
    """

    train: Sequence[SlateQuery]
    val: Sequence[SlateQuery]
    beams: Mapping[int, BeamRecord] = field(default_factory=dict)
    records: Mapping[int, CandidateRecord] = field(default_factory=dict)
    seed: int = 0


class SlateModule(GroupPolicyModule):
    """The loop, with groups of stored candidates."""

    def judged_group(self, queries: Sequence[SlateQuery], actions: Actions) -> Group:
        """Judge stored candidates, and log the figures that are logged of samples."""
        group = self.judge(queries, actions)
        self._note(rollout_stats(group.rewards, actions))
        return group


def learn(
    policy: SlatePolicy,
    lessons: Lessons,
    reward: WeightedReward,
    settings: Settings,
    folder: Path,
    callbacks: Sequence[Callback] = (),
) -> None:
    """Train through the phases of `settings.curriculum`; the policy becomes the best checkpoint.

    Args:
        policy: to start from; it is changed.
        lessons: the training data.
        reward: judges stored, fresh and held-out slates.
        settings: of the run.
        folder: for samples, logs and checkpoints, the result as `checkpoints/final`.
        callbacks: further ones.

    Raises:
        ValueError: a phase reads data that `lessons` lack for a query.
    """
    torch.manual_seed(lessons.seed)
    trainer, curriculum = _paced(settings, lessons, policy.shots)
    module = SlateModule(
        policy,
        reward,
        curriculum,
        replace(settings, trainer=trainer),
        FreshSampler(settings.rollout.num_generations),
        policy.shots,
    )
    held_out = [lessons.val[at : at + VAL_BATCH] for at in range(0, len(lessons.val), VAL_BATCH)]

    def stream(phase: Phase) -> Iterator[Later]:
        order = shuffled_batches(lessons.train, trainer.batch_size, lessons.seed + phase.index)
        for queries in order:
            yield Later(queries, partial(_batch, module, phase.config, queries, lessons))

    def save(target: Path, metrics: dict[str, float]) -> None:
        save_policy(policy, settings.model, target, metrics)

    best = kept_by(settings.learn.best, settings.curriculum)
    kept = Kept(folder / "checkpoints" / KEPT[best], save, resume_point(trainer.resume))
    hooks = Hooks(
        save=save,
        restore=lambda chosen: load_weights(policy, settings.model, chosen),
        describe=lambda query: {"query": query.query},
        chosen=kept.folder.name,
        callbacks=(*_callbacks(best, kept, lessons, settings, trainer.val_every), *callbacks),
    )
    fit(module, stream, held_out, folder, hooks)
    policy.eval()


def _paced(settings: Settings, lessons: Lessons, shots: int) -> tuple[TrainerConfig, Curriculum]:
    """Set phases, validations and checkpoints in passes over the queries.

    Raises:
        ValueError: see `learn`.
    """
    trainer = settings.trainer
    size = min(trainer.batch_size, len(lessons.train))
    passes = max(1, len(lessons.train) // (size * trainer.accumulation))
    phases = [_in_passes(phase, passes) for phase in settings.curriculum.phases]
    for phase in phases:
        _check_data(phase, lessons, shots)
    steps = [passes * phase.num_iterations for phase in phases]
    resolved = Curriculum.resolve(CurriculumConfig(phases), steps, trainer.max_steps)
    # An epoch is a pass over the queries, followed by a checkpoint and a validation.
    paced = replace(trainer, batch_size=size, checkpoint_every=passes, val_every=passes)
    return paced, resolved


def kept_by(best: Best, curriculum: CurriculumConfig) -> Best:
    """Return the rule that keeps a checkpoint; `auto` depends on the curriculum."""
    if best is not Best.auto:
        return best
    return Best.drawn if curriculum.phases[-1].kind is PhaseKind.grpo else Best.reward


def _callbacks(
    best: Best, kept: Kept, lessons: Lessons, settings: Settings, steps: int
) -> list[Callback]:
    """Build the callbacks of a training; `steps` are the optimiser steps of a pass."""
    found: list[Callback] = [SourceMetrics(lessons.val, lessons.beams)]
    if settings.learn.freeze_backbone_in_grpo:
        found.append(FreezeBackbone())
    if best is Best.kl:
        found.append(LowestKL(steps, kept))
    elif best is Best.drawn and lessons.val:
        found.append(HighestDrawn(lessons.val, settings.rollout.num_generations, kept))
    return found


def _in_passes(phase: PhaseConfig, passes: int) -> PhaseConfig:
    """Make the rounds of a phase that reuses its rollouts as long as one pass."""
    if phase.num_iterations > 1 and phase.minibatches == 1:
        return replace(phase, minibatches=passes)
    return phase


def _check_data(phase: PhaseConfig, lessons: Lessons, shots: int) -> None:
    kinds = [kind.value for kind in PhaseData]
    if phase.data not in kinds:
        raise ValueError(f"curriculum.phases.data={phase.data!r}: expected one of {kinds}")
    kind = PhaseData(phase.data)
    have: Mapping[int, object] | None = None
    if kind in (PhaseData.beams, PhaseData.beam_scores):
        have = lessons.beams
    elif kind is PhaseData.stored:
        have = lessons.records
    missing = [one.query for one in lessons.train if have is not None and one.query not in have]
    if missing:
        raise ValueError(
            f"query {missing[0]}: curriculum.phases.data={phase.data}: no such data for "
            f"{len(missing)} of {len(lessons.train)} queries: generate them for the same queries, "
            "or lower learn.max_samples"
        )
    if kind in (PhaseData.beams, PhaseData.beam_scores):
        for one in lessons.train:
            held = len(lessons.beams[one.query].beams[0].shots)
            if held != shots:
                raise ValueError(
                    f"query {one.query}: its beams were made with beams.few_shot={held}, but "
                    f"model.shots={shots}: expected the same number; set one to the other"
                )


def _batch(
    module: SlateModule, phase: PhaseConfig, queries: Sequence[SlateQuery], lessons: Lessons
) -> Batch:
    """Make the batch of a phase from some queries."""
    kind = PhaseData(phase.data)
    if kind is PhaseData.fresh:
        return queries
    if kind is not PhaseData.stored:
        return beam_group(queries, lessons.beams, weighed=kind is PhaseData.beam_scores)
    # The loader runs outside the step; in another precision the ratio would not start at 1.
    with torch.no_grad(), module.trainer.precision_plugin.train_step_context():
        prompt = module.policy.encode(queries)
        fetch = StoredSampler(lessons.records[one.query] for one in queries)
        actions = fetch(module.policy, prompt, queries, module.temperature)
    subset = CandidateSubset.of_phase(phase)
    actions, _ = subset(actions, module.reward.score(queries, actions))
    return module.judged_group(queries, actions)
