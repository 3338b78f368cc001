"""The supervised start of the tiny thinker, before reinforcement learning.

First it learns perception from completions that name every fact, then the habit from completions
that describe scenery and often give the habitual answer, whatever the clip shows.  What GRPO then
gains is elicitation of what the start already perceives, not new perception.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from importlib import resources
from itertools import islice
from pathlib import Path

import numpy as np

from core_rl.config import CurriculumConfig, PhaseConfig, PhaseKind, TrainerConfig
from core_rl.files import alone
from core_rl.fingerprint import fingerprint
from core_rl.hardware import is_main_process, of_main, wait_for_all
from core_rl.hf.recompute import checkpoint_activations
from core_rl.loop.batches import shuffled_batches
from core_rl.objective.curriculum import Phase
from core_rl.run.callbacks import write_policy
from core_rl.sealed import is_whole
from omni_rl.config import TinyConfig, WarmStartConfig
from omni_rl.data import scenes
from omni_rl.data.record import Record
from omni_rl.data.splits import Splits, generated_split, with_instructions
from omni_rl.learning.fit_policy import Training
from omni_rl.learning.perception import perceived
from omni_rl.policy import tiny
from omni_rl.policy.policy import OmniPolicy, load_policy, placed, untrained_policy
from omni_rl.policy.rollout import greedy_texts
from omni_rl.rewards.scores import score_records
from omni_rl.settings import Settings

log = logging.getLogger(__name__)

STYLES = {"honest": scenes.HONEST, "weak": scenes.WEAK}
INSTRUCTION_SHARE = 0.08
PACKAGED = "assets/warm_start"
WARM_START_VERSION = 1  # raise when the policy that is trained here changes


def start_policy(settings: Settings, seed: int, spans: Sequence[str] = ()) -> OmniPolicy:
    """Load or make the policy that training starts from.

    Args:
        settings: of the run; without `model.path` the start is the tiny thinker.
        seed: of the warm start, if one is made.
        spans: parts of a completion on which rewards act.
    """
    return placed(_start_policy(settings, seed, spans), settings.hardware)


def _start_policy(settings: Settings, seed: int, spans: Sequence[str]) -> OmniPolicy:
    model = settings.limited_model()
    if model.path is not None:
        log.info("starting from %s", model.path)
        return load_policy(model, model.path, spans)
    if model.warm_start == "none":
        log.info("starting from an untrained thinker (model.warm_start=none)")
        return untrained_policy(model, seed, spans)
    default_sizes = model.tiny == TinyConfig()  # other sizes have to be trained
    if model.warm_start == "packaged" and default_sizes and not settings.trainer.reseed:
        with resources.as_file(resources.files("omni_rl") / PACKAGED) as folder:
            log.info("starting from the packaged warm start (made by +exp=omni_sft seed=0)")
            return load_policy(model, folder, spans)
    folder = cached_folder(settings, seed)
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = folder.with_name(f".{folder.name}.lock")
    # All processes of a run make it together; only the main one takes the lock.
    with alone(folder, lock) if is_main_process() else nullcontext():
        if of_main(is_main_process() and is_whole(folder)):
            log.info("starting from the cached warm start %s", folder)
        else:
            log.info("making a warm start (%s); later runs reuse it", folder)
            make_warm_start(settings, seed, folder)
    return load_policy(model, folder, spans)


def learning_policy(settings: Settings, seed: int) -> OmniPolicy:
    """Return the start, with the spans, blanked media and checkpointing of training."""
    policy = start_policy(settings, seed, sorted(set(settings.reward.spans.values())))
    policy.blank(settings.data_mix.blank)
    if settings.hardware.activation_checkpointing:
        checkpoint_activations(policy.model)
    return policy


def cached_folder(settings: Settings, seed: int) -> Path:
    """Folder of the warm start with these settings: another recipe or generator has another one."""
    model, data = settings.model, settings.data_mix
    recipe = [model.tiny, model.media, model.warm, model.system_prompt]
    versions = [scenes.SCENES_VERSION, tiny.TINY_VERSION, WARM_START_VERSION]
    digest = fingerprint(recipe, data.ratios, seed, versions)
    return Path(settings.paths.cache) / "warm_start" / digest


def make_warm_start(settings: Settings, seed: int, folder: Path) -> OmniPolicy:
    """Train the tiny thinker from random weights and save it under `folder`."""
    warm = settings.model.warm
    model = replace(settings.limited_model(), freeze_towers=False)
    train = _records(settings, "train", warm.clips, seed)
    val = _records(settings, "val", warm.gate_clips, seed)
    policy = untrained_policy(model, seed)
    policy.whiten_towers(train[: 4 * warm.batch_size])
    placed(policy, settings.hardware)
    draws = {name: np.random.default_rng([seed, 5, i]) for i, name in enumerate(STYLES)}

    def retold(name: str, records: Sequence[Record]) -> Sequence[Record]:
        return [_taught(record, STYLES[name], draws[name]) for record in records]

    def teach(phase: Phase, records: Sequence[Record]) -> Sequence[Record]:
        return retold(phase.config.data, records)

    quiet = _quiet(settings.trainer, warm)

    def learn(phase: PhaseConfig, turn: int) -> None:
        run = folder.with_name(f"{folder.name}-{phase.data}{turn}")
        made = run / "checkpoints" / "final"
        order = seed + 1000 * turn
        if of_main(is_main_process() and is_whole(made)):  # by a call that was interrupted
            policy.restore(made)
            for records in islice(shuffled_batches(train, warm.batch_size, order), phase.steps):
                retold(phase.data, records)  # later rounds then get the draws that they would have
            return
        own = replace(settings, curriculum=CurriculumConfig(phases=[phase]), trainer=quiet)
        training = Training(policy, own, Splits(train, [], []), run, order)
        training.by_example(teach)
        training.keep_best()

    for turn in range(1, warm.perception_rounds + 1):
        steps = warm.perception_steps
        learn(PhaseConfig(PhaseKind.rce, steps=steps, data="honest"), turn)
        shares = perceived(policy, val)
        log.info("after %d steps the start perceives %s", turn * steps, _rounded(shares))
        if min(shares.values()) >= warm.perception_goal:
            break
    habit = PhaseConfig(
        PhaseKind.rce, steps=warm.habit_steps, data="weak", lr_scale=warm.habit_lr_scale
    )
    for turn in range(1, warm.habit_rounds + 1):
        learn(habit, turn)
        accuracy = _accuracy(policy, val)
        log.info("after %d steps of habit its accuracy is %.2f", turn * warm.habit_steps, accuracy)
        if accuracy <= warm.habit_goal:
            break
    if is_main_process():
        write_policy(lambda new, _: policy.save(new, settings.model.name, {}), folder, {})
    wait_for_all()
    return policy


def _quiet(trainer: TrainerConfig, warm: WarmStartConfig) -> TrainerConfig:
    """Settings of one round of supervision: nothing is validated or kept on the way."""
    return replace(
        trainer,
        lr=warm.lr,
        batch_size=warm.batch_size,
        accumulation=1,
        max_steps=None,
        val_every=10**9,
        checkpoint_every=0,
        weight_decay=0.01,
        resume=None,
    )


def check_start(policy: OmniPolicy, settings: Settings, seed: int) -> dict[str, float]:
    """Measure the start and refuse one from which GRPO could not learn.

    From a start without perception, total reward rises while accuracy does not.

    Raises:
        ValueError: a fact is not perceived, or greedy accuracy is outside the band by more than the
            chance of the clips explains.
    """
    warm = settings.model.warm
    val = _records(settings, "val", warm.gate_clips, seed)
    shares = perceived(policy, val)
    accuracy = _accuracy(policy, val)
    check_gate(shares, accuracy, warm)
    return {f"start/perceived/{slot}": share for slot, share in shares.items()} | {
        "start/val_accuracy": accuracy
    }


def check_gate(shares: Mapping[str, float], accuracy: float, warm: WarmStartConfig) -> None:
    """Compare what a start does with what is asked of it.

    Args:
        shares: of the clips in which each fact is perceived.
        accuracy: greedy, of `warm.gate_clips` clips.
        warm: the limits.

    Raises:
        ValueError: which limit is missed, and what to change.
    """
    # Of so few clips the accuracy is known to a few points only.
    margin = 2 * (accuracy * (1 - accuracy) / warm.gate_clips) ** 0.5
    said = f"perceives {_rounded(shares)}, accuracy {accuracy:.2f} +- {margin:.2f}"
    if any(share < warm.perception_min for share in shares.values()):
        raise ValueError(
            f"warm start too weak: {said}; it must perceive each fact in at least "
            f"{warm.perception_min} of the clips (model.warm.perception_min); try "
            f"model.warm.perception_rounds={2 * warm.perception_rounds}"
        )
    if accuracy + margin < warm.accuracy_min:
        raise ValueError(
            f"warm start too weak: {said}; its accuracy must reach {warm.accuracy_min} "
            "(model.warm.accuracy_min); try model.warm.habit_steps="
            f"{max(1, warm.habit_steps // 2)}"
        )
    if accuracy - margin > warm.accuracy_max:
        raise ValueError(
            f"warm start leaves nothing to learn: {said}; its accuracy must not exceed "
            f"{warm.accuracy_max} (model.warm.accuracy_max); try "
            f"model.warm.habit_rounds={2 * warm.habit_rounds}"
        )


def _accuracy(policy: OmniPolicy, records: Sequence[Record]) -> float:
    return float(score_records(records, greedy_texts(policy, records))["accuracy"].mean())


def _records(settings: Settings, split: str, size: int, seed: int) -> list[Record]:
    by_source = generated_split(settings.data_mix, split, size, settings.paths, seed)
    records = [record for group in by_source.values() for record in group]
    if split != "train":
        return records
    order = np.random.default_rng([seed, 6]).permutation(len(records))
    shuffled = [records[i] for i in order]
    return with_instructions(shuffled, round(INSTRUCTION_SHARE * len(shuffled)))


def _taught(record: Record, style: scenes.Style, rng: np.random.Generator) -> Record:
    return record if record.problem_type == "instruction" else scenes.retell(record, style, rng)


def _rounded(shares: Mapping[str, float]) -> dict[str, float]:
    return {name: round(share, 2) for name, share in shares.items()}
