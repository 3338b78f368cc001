"""Fit a selector: supervision, RCE and GRPO are phases of the one loop of `core_rl`.

Which data a phase of the curriculum reads, its `data` says (`lever.model_config.PhaseData`).  Data
that were made before come through the stream as judged groups; their old log-probabilities are
those of the policy at the moment they are fetched, so the ratio starts at 1 in every phase and
round.  Where a rollout is used more than once, a round is one pass over all queries: fetch or draw
for all of them, learn `num_iterations` times, begin anew from where that led.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from lightning.pytorch.callbacks import Callback

from core_rl.config import CurriculumConfig, PhaseConfig, PhaseKind, TrainerConfig
from core_rl.loop.batches import shuffled_batches
from core_rl.loop.module import Batch, FreshSampler, GroupPolicyModule
from core_rl.objective.curriculum import CandidateSubset, Curriculum, Phase
from core_rl.objective.rewards import WeightedReward, rollout_stats
from core_rl.run.fit import fit, resume_point
from core_rl.types import Actions, Group
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

log = logging.getLogger(__name__)

VAL_BATCH = 64
# Folder of the checkpoint that each rule keeps.
KEPT = {Best.drawn: "best_drawn", Best.reward: "best", Best.kl: "lowest_kl", Best.last: "last"}


@dataclass(frozen=True)
class Lessons:
    """What a selector learns from.

    Attributes:
        train: queries.
        val: queries that the best checkpoint is chosen by.
        beams: beam data by query, for phases that read them.
        records: RL data by query, likewise.
    """

    train: Sequence[SlateQuery]
    val: Sequence[SlateQuery]
    beams: Mapping[int, BeamRecord] = field(default_factory=dict)
    records: Mapping[int, CandidateRecord] = field(default_factory=dict)


class SlateModule(GroupPolicyModule):
    """The loop, with groups made of stored candidates."""

    def judged_group(self, queries: Sequence[SlateQuery], actions: Actions) -> Group:
        """Judge candidates that were fetched, and note what the log says of drawn ones."""
        group = self.judge(queries, actions)
        self._note(rollout_stats(group.rewards, actions))
        return group


def learn(
    policy: SlatePolicy,
    lessons: Lessons,
    reward: WeightedReward,
    curriculum: CurriculumConfig,
    settings: Settings,
    folder: Path,
    seed: int,
    callbacks: Sequence[Callback] = (),
) -> SlatePolicy:
    """Train through the phases of a curriculum; the policy becomes the best checkpoint.

    Args:
        policy: to start from; it is changed.
        lessons: what to learn from.
        reward: judges stored, fresh and held-out slates.
        curriculum: the phases.
        settings: of the run.
        folder: checkpoints, samples and logs.
        seed: of the order of the queries.
        callbacks: more of them.

    Raises:
        ValueError: a phase reads data that `lessons` has not got for a query.
    """
    torch.manual_seed(seed)
    # Phases of data that are not there end the run before anything is learnt.
    trainer, resolved = _paced(curriculum, lessons, settings.trainer, policy.shots)
    module = SlateModule(
        policy,
        reward,
        resolved,
        settings.loss,
        trainer,
        FreshSampler(settings.rollout.num_generations),
        settings.rollout.temperature,
        policy.shots,
    )
    held_out = [lessons.val[at : at + VAL_BATCH] for at in range(0, len(lessons.val), VAL_BATCH)]

    def stream(phase: Phase) -> Iterator[Batch]:
        order = shuffled_batches(lessons.train, trainer.batch_size, seed + phase.index)
        return (_batch(module, phase.config, queries, lessons) for queries in order)

    best = kept_by(settings.learn.best, curriculum)
    watching = _watching(best, policy, lessons, settings, folder / "checkpoints", trainer)
    fit(
        module,
        stream,
        held_out,
        folder,
        trainer=trainer,
        hardware=settings.hardware,
        logger=settings.logger,
        describe=lambda query: {"query": query.query},
        save=lambda target, metrics: _save(policy, settings, target, metrics),
        callbacks=(*watching, *callbacks),
        doctor=settings.doctor,
    )
    _finish(best, policy, settings, folder)
    return policy


def _paced(
    curriculum: CurriculumConfig, lessons: Lessons, trainer: TrainerConfig, shots: int
) -> tuple[TrainerConfig, Curriculum]:
    """Measure phases, looks and checkpoints in passes over the queries.

    Raises:
        ValueError: see `learn`.
    """
    size = min(trainer.batch_size, len(lessons.train))
    passes = max(1, len(lessons.train) // (size * trainer.accumulation))
    phases = [_in_passes(phase, passes) for phase in curriculum.phases]
    for phase in phases:
        _check_data(phase, lessons, shots)
    steps = [passes * phase.num_iterations for phase in phases]
    resolved = Curriculum.resolve(CurriculumConfig(phases), steps, trainer.max_steps)
    # An epoch is a pass over the queries: a checkpoint and a look at held-out queries each.
    paced = replace(trainer, batch_size=size, checkpoint_every=passes, val_every=passes)
    return paced, resolved


def kept_by(best: Best, curriculum: CurriculumConfig) -> Best:
    """Say which rule keeps a checkpoint, where that is left to the curriculum."""
    if best is not Best.auto:
        return best
    return Best.drawn if curriculum.phases[-1].kind is PhaseKind.grpo else Best.reward


def _watching(
    best: Best,
    policy: SlatePolicy,
    lessons: Lessons,
    settings: Settings,
    checkpoints: Path,
    trainer: TrainerConfig,
) -> list[Callback]:
    """What logs published metrics, freezes, and keeps the checkpoint that a rule names."""

    def save(target: Path) -> None:
        _save(policy, settings, target, {})

    kept = Kept(checkpoints / KEPT[best], save, resume_point(trainer.resume))
    found: list[Callback] = [SourceMetrics(lessons.val, lessons.beams)]
    if settings.learn.freeze_backbone_in_grpo:
        found.append(FreezeBackbone())
    if best is Best.kl:
        found.append(LowestKL(trainer.val_every, kept))
    elif best is Best.drawn and lessons.val:
        found.append(HighestDrawn(lessons.val, settings.rollout.num_generations, kept))
    return found


def _finish(best: Best, policy: SlatePolicy, settings: Settings, folder: Path) -> None:
    """Leave the chosen checkpoint in the policy and under `final`."""
    chosen = folder / "checkpoints" / KEPT[best]
    if chosen.is_dir():
        load_weights(policy, settings.model, chosen)
    _save(policy, settings, folder / "checkpoints" / "final", {})
    policy.eval()
    log.info("selector saved under %s", folder / "checkpoints" / "final")


def _save(policy: SlatePolicy, settings: Settings, target: Path, metrics: dict[str, float]) -> None:
    shutil.rmtree(target, ignore_errors=True)
    save_policy(policy, settings.model, target, metrics)


def _in_passes(phase: PhaseConfig, passes: int) -> PhaseConfig:
    """Widen a phase that uses its rollouts again to rounds of one pass."""
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
    """Make what a phase learns from of some queries."""
    kind = PhaseData(phase.data)
    if kind is PhaseData.fresh:
        return queries
    if kind is not PhaseData.stored:
        return beam_group(queries, lessons.beams, weighed=kind is PhaseData.beam_scores)
    # The loader asks, outside the step: in another precision the ratio would not start at 1.
    with torch.no_grad(), module.trainer.precision_plugin.train_step_context():
        prompt = module.policy.encode(queries)
        fetch = StoredSampler(lessons.records[one.query] for one in queries)
        actions = fetch(module.policy, prompt, queries, module.temperature)
    subset = CandidateSubset.of_phase(phase)
    actions, _ = subset(actions, module.reward.score(queries, actions))
    return module.judged_group(queries, actions)
