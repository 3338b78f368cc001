"""Score a checkpoint on held-out records, and compare it with the model it started from."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from core_rl.config import OnBadRecord
from core_rl.files import write_json, write_text
from omni_rl.config import OmniDataConfig
from omni_rl.data.record import Record
from omni_rl.data.splits import load_test
from omni_rl.learning.usable import askable
from omni_rl.learning.warm_start import start_policy
from omni_rl.policy.policy import OmniPolicy, known_checkpoint, load_policy, placed
from omni_rl.policy.rollout import greedy_texts
from omni_rl.results.metrics import before_after_table, compare, prefixed, summarise
from omni_rl.rewards.judge import Judge, api_wanted
from omni_rl.rewards.scores import score_records
from omni_rl.settings import Settings

log = logging.getLogger(__name__)


def evaluate(
    folder: Path, seed: int, checkpoint: str | None, judge: Mapping[str, Any], **groups: Any
) -> dict[str, float]:
    """Answer the test records greedily and score the answers.

    Args:
        folder: of the run; `answers.parquet` and `report.txt` go there.
        seed: of generated test records.
        checkpoint: folder or hub id to score against the start model of the configuration; None
            scores the start model alone.
        judge: arguments of `omni_rl.rewards.judge.Judge`; it scores people focus on 10 points and
        judges
            free-form answers where USE_API_REWARD, API and API_KEY say so.
        groups: the fields of `omni_rl.settings.Settings`.

    Returns:
        Metrics with 95 % intervals (`omni_rl.results.metrics.summarise`) and `skipped`, the number
        of records that the model cannot be asked; with a checkpoint, those
        of the start under `before/`, the checkpoint's under `after/`, and `diff/`.

    Raises:
        FileNotFoundError: there is no such checkpoint.
    """
    settings = Settings(**groups)
    data: OmniDataConfig = settings.data_mix
    if checkpoint is not None:  # looked for before the start answers everything
        known_checkpoint(checkpoint, "checkpoint")
    records = load_test(data, settings.trainer, settings.paths, seed)
    asked = Judge(**judge) if api_wanted() else None
    policy = start_policy(settings, seed)
    kept, skipped = records, 0
    if not data.generated:  # one record must not cost the answers to the others
        kept = askable(policy.builder, records, OnBadRecord.skip, Path(settings.paths.cache))
        skipped = len(records) - len(kept)
    records = kept
    start = _answered(policy, records, data)
    before = score_records(records, start, seed, asked)
    old = summarise(before, data.general) | {"skipped": float(skipped)}
    if checkpoint is None:
        before.to_parquet(folder / "answers.parquet")
        log.info("%s", "\n".join(f"{name} {value:.4f}" for name, value in old.items()))
        return old
    model = replace(settings.limited_model(), path=checkpoint)
    trained = placed(load_policy(model, checkpoint), settings.hardware)
    after = score_records(records, _answered(trained, records, data), seed, asked)
    new, diff = summarise(after, data.general), compare(before, after, data.general)
    after.to_parquet(folder / "answers.parquet")
    text = before_after_table(old, new, diff)
    log.info("start model and checkpoint on %d held-out records\n%s", len(records), text)
    write_text(folder / "report.txt", text + "\n")
    write_json(folder / "report.json", {"before": old, "after": new, "diff": diff})
    return prefixed("before", old) | prefixed("after", new) | diff


def _answered(policy: OmniPolicy, records: list[Record], data: OmniDataConfig) -> list[str]:
    policy.eval()
    policy.blank(data.blank)
    return greedy_texts(policy, records)
