"""The doctor as a command: every check once, with a table of findings."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from core_rl.config import CurriculumConfig, EngineKind, OnFailure
from core_rl.doctor.findings import Finding, UnhealthyError, Verdict, failed
from core_rl.doctor.hf.checks import training_mode
from core_rl.doctor.report import page, read_rounds, write_findings
from core_rl.files import write_text
from core_rl.hardware import is_main_process, own_randomness
from core_rl.hf.generation import generation_mode
from core_rl.loop.module import FreshSampler, GroupPolicyModule
from core_rl.objective.curriculum import Curriculum, Phase
from core_rl.objective.rewards import WeightedReward
from core_rl.preflight.checks import preflight
from core_rl.run.fit import Hooks, fit
from core_rl.types import Batch
from omni_rl.data.record import Record
from omni_rl.data.record_files import keep_decodable
from omni_rl.data.sources import read_source
from omni_rl.data.splits import generated_split
from omni_rl.doctor.gate import gate, joined, media_findings, probe_records
from omni_rl.doctor.media_probes import Probe
from omni_rl.learning.warm_start import learning_policy
from omni_rl.policy.policy import OmniPolicy
from omni_rl.rewards.rules import judgeable
from omni_rl.settings import Settings

log = logging.getLogger(__name__)

RECORDS = 12  # checked, of all sources


def doctor(folder: Path, seed: int, side_by_side: bool, **groups: Any) -> dict[str, float]:
    """Check environment, media, drawing, scoring and one training step; nothing is saved.

    Args:
        folder: of the run; `health.json`, `doctor.txt` and `doctor.html` go there, and
            `side_by_side.txt` and `.html` where asked for.
        seed: of records, draws and noise.
        side_by_side: also complete some records by plain inference and as training draws them.
        groups: the fields of `omni_rl.settings.Settings`.

    Returns:
        `health/<check>` and the number of checks that failed.

    Raises:
        UnhealthyError: a check failed, unless `doctor.on_failure=warn`.
    """
    settings = Settings(**groups)
    policy = learning_policy(settings, seed)
    records = some_records(settings, seed)
    found = preflight(_plain(settings))
    found += _two_clips(policy, records, settings, seed)
    if side_by_side:
        write_side_by_side(folder, policy, records[:6], settings.rollout.temperature, seed)
    found += _one_step(policy, records, settings, folder, seed)
    if not is_main_process():
        return {}
    title = f"doctor: {settings.model.name} on {settings.data_mix.name}"
    metrics = write_findings(folder, found, title)
    if failed(found) and settings.doctor.on_failure is not OnFailure.warn:
        raise UnhealthyError(found)
    return metrics


def some_records(settings: Settings, seed: int) -> list[Record]:
    """Read or generate a few training records of every source, those with most media first."""
    data, base = settings.data_mix, settings.paths.data
    if data.generated:
        by_source = generated_split(data, "train", RECORDS, settings.paths, seed)
    else:
        root = Path(base) if base else None
        by_source = {
            name: read_source(name, source, root, seed, data.on_bad_record).records[:RECORDS]
            for name, source in data.sources.items()
        }
    records = [record for group in by_source.values() for record in group]
    records = keep_decodable(records, data.on_bad_record).records
    first = probe_records(records)
    return [*first, *(record for record in records if all(record is not one for one in first))]


def _plain(settings: Settings) -> dict[str, Any]:
    """Return the groups as plain values, for `core_rl.preflight.checks`."""
    return {name: asdict(group) for name, group in vars(settings).items()}


def _two_clips(
    policy: OmniPolicy, records: Sequence[Record], settings: Settings, seed: int
) -> list[Finding]:
    """Check a question about two clips, which data of single clips does not contain."""
    with_clips = [record for record in records if record.videos]
    check = "two_clips/ran"
    if len(with_clips) < 2:
        return [Finding(check, None, "fewer than two clips", Verdict.skipped)]
    pair = [joined(with_clips[0], with_clips[1]), with_clips[1]]
    probe = Probe(
        settings.rollout.temperature,
        max_new=settings.doctor.max_new,
        seed=seed,
        blank=settings.data_mix.blank,
    )
    try:
        found = media_findings(policy, pair, probe)
    except ValueError as error:  # two clips may exceed the longest prompt
        return [Finding(check, None, str(error)[:120], Verdict.skipped)]
    return [replace(one, check=one.check.replace("media/", "two_clips/")) for one in found]


def _one_step(
    policy: OmniPolicy, records: Sequence[Record], settings: Settings, folder: Path, seed: int
) -> list[Finding]:
    """Take one training step, with the checks before and during it."""
    trainer = replace(
        settings.trainer,
        max_steps=1,
        accumulation=1,
        checkpoint_every=0,
        progress=False,
        resume=None,
    )
    module = GroupPolicyModule(
        policy,
        WeightedReward.from_config(judgeable(settings.reward, records)),
        Curriculum.resolve(CurriculumConfig(), 1, 1),
        replace(
            settings,
            trainer=trainer,
            doctor=replace(settings.doctor, enabled=True, on_failure=OnFailure.warn),
        ),
        FreshSampler(settings.rollout.num_generations),
        settings.rollout.max_completion,
    )

    def stream(_: Phase) -> Iterator[Batch]:
        while True:
            yield list(records[: trainer.batch_size])

    hooks = Hooks(
        save=lambda target, metrics: None,
        describe=lambda record: {"id": record.id, "source": record.source},
        examine=gate(settings.data_mix.blank, settings.rollout.engine.kind is EngineKind.vllm),
    )
    fit(module, stream, [], folder, hooks)
    if not is_main_process():
        return []
    return read_rounds(folder)


# -- side by side ----------------------------------------------------------------------------------


def write_side_by_side(
    folder: Path, policy: OmniPolicy, records: Sequence[Record], temperature: float, seed: int
) -> pd.DataFrame:
    """Complete records by plain inference and by the sampling of training.

    The most probable completions of both must be equal.  If only the second is garbled, the cause
    is the sampling, not the model.

    Returns:
        A row a record: `record`, `question`, `plain inference`, `training rollout`, `same` and
        `training rollout, drawn`.
    """
    plain = [_plain_completion(policy, record) for record in records]
    with training_mode(policy), own_randomness(policy.device), torch.no_grad():
        torch.manual_seed(seed)
        rollout = policy.sample(policy.encode(records), 1, temperature=0.0).texts
        drawn = policy.sample(policy.encode(records), 1, temperature=temperature).texts
    table = pd.DataFrame(
        {
            "record": [record.id for record in records],
            "question": [policy.builder.question(record) for record in records],
            "plain inference": plain,
            "training rollout": [group[0] for group in rollout],
            "same": [one == group[0] for one, group in zip(plain, rollout, strict=True)],
            "training rollout, drawn": [group[0] for group in drawn],
        }
    )
    blocks = [
        "\n".join(f"{name}: {value}" for name, value in row.items())
        for row in table.to_dict("records")
    ]
    write_text(folder / "side_by_side.txt", "\n\n".join(blocks) + "\n")
    write_text(folder / "side_by_side.html", page("Completions side by side", {"": table}))
    log.info(
        "plain inference and training rollout agree on %d of %d", table["same"].sum(), len(table)
    )
    return table


@torch.no_grad()
def _plain_completion(policy: OmniPolicy, record: Record) -> str:
    """Complete one record by `generate`, in evaluation mode and without padding."""
    inputs = {
        name: value.to(policy.device) if isinstance(value, torch.Tensor) else value
        for name, value in policy.collate([record]).items()
    }
    with generation_mode(policy.model):
        ids = policy.model.generate(
            **inputs,
            do_sample=False,
            max_new_tokens=policy.max_completion,
            eos_token_id=policy.stop_ids.tolist(),
            pad_token_id=int(policy.stop_ids[0]),
            suppress_tokens=policy.suppress_ids.tolist(),
        )[0, inputs["input_ids"].shape[1] :]
    return str(policy.tokenizer.decode(ids, skip_special_tokens=True))
