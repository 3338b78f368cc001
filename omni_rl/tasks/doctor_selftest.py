"""Prove the doctor: plant each known fault alone; then show it policies that are well."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from core_rl.doctor.findings import Finding, Verdict
from core_rl.doctor.report import page
from core_rl.files import write_text
from omni_rl.config import TinyConfig
from omni_rl.data.record_files import Record
from omni_rl.doctor.faults.media_faults import HEALTHY, MEDIA_FAULTS, Fault
from omni_rl.doctor.faults.signal_faults import SIGNAL_FAULTS
from omni_rl.doctor.gate import examine, joined, media_findings
from omni_rl.doctor.media_probes import Probe
from omni_rl.policy.policy import OmniPolicy, untrained_policy
from omni_rl.settings import Settings
from omni_rl.tasks.doctor import some_records

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bench:
    """What faults are planted in.

    Attributes:
        start: an untrained thinker.
        single: two records with a clip each.
        double: the same, the first with two clips.
    """

    start: OmniPolicy
    single: list[Record]
    double: list[Record]

    def policy(self, together: bool = False) -> OmniPolicy:
        """A copy that a fault may ruin."""
        config = self.start.config
        media = replace(config.media, use_audio_in_video=together)
        model = copy.deepcopy(self.start.model)
        return OmniPolicy(model, self.start.processor, replace(config, media=media))


def selftest(
    folder: Path, seed: int, seeds: int, max_new: int, tiny: Mapping[str, int], **groups: Any
) -> dict[str, float]:
    """Print the matrix of faults, and what is said of healthy policies of many seeds.

    Args:
        folder: of the run; `matrix.txt` and `matrix.html` go there.
        seed: of the faults' policy.
        seeds: healthy policies to look at.
        max_new: tokens a draw.
        tiny: sizes of the thinker, as `omni_rl.config.TinyConfig` has them.
        groups: the fields of `omni_rl.settings.Settings`.

    Returns:
        `selftest/faults`, `selftest/named` (the right cause stood first) and
        `selftest/false_alarms` over the healthy seeds.

    Raises:
        ValueError: a fault was missed or misnamed, or a healthy policy was called sick.
    """
    settings = Settings(**groups)
    settings = replace(settings, model=replace(settings.model, tiny=TinyConfig(**tiny)))
    records = some_records(settings, seed)[:2]
    pair = [joined(*records), records[1]]
    bench = Bench(untrained_policy(settings.limited_model(), seed), records, pair)
    rows = [_media_row(fault, bench, max_new) for fault in MEDIA_FAULTS]
    rows += [_row(name, says, find(bench.policy(), records)) for name, says, find in SIGNAL_FAULTS]
    matrix = pd.DataFrame(rows)
    log.info("faults\n%s", matrix.drop(columns="cure").to_string(index=False))
    alarms = [
        f"seed {number}, {name}: {one.check}: {one.cause}"
        for number in range(seed, seed + seeds)
        for name, one in _alarms(settings, number, pair, max_new)
    ]
    log.info("%d false alarms of %d healthy seeds\n%s", len(alarms), seeds, "\n".join(alarms))
    write_text(folder / "matrix.txt", matrix.to_string(index=False) + "\n")
    write_text(folder / "matrix.html", page("Planted faults", {"": matrix}))
    missed = matrix.loc[~matrix["named"], "fault"].tolist()
    if missed or alarms:
        raise ValueError(f"the doctor missed or misnamed {missed}; false alarms: {alarms}")
    return {
        "selftest/faults": float(len(matrix)),
        "selftest/named": float(matrix["named"].sum()),
        "selftest/healthy_seeds": float(seeds),
        "selftest/false_alarms": float(len(alarms)),
    }


def _media_row(fault: Fault, bench: Bench, max_new: int) -> dict[str, Any]:
    policy = fault.spoil(bench.policy(fault.together))
    records = bench.double if fault.clips == 2 else bench.single
    found = media_findings(policy, records, Probe(max_new=max_new))
    if not _failures(found):
        found = examine(policy, records, Probe(max_new=max_new))
    return _row(fault.name, fault.says, found)


def _row(name: str, says: str, found: Sequence[Finding]) -> dict[str, Any]:
    bad = _failures(found)
    first = bad[0] if bad else Finding("", None, "", Verdict.ok)
    return {
        "fault": name,
        "verdict": first.verdict.value,
        "named": bool(bad) and says in first.cause,
        "check": first.check,
        "figure": first.figure,
        "cause": first.cause,
        "cure": first.cure,
    }


def _alarms(
    settings: Settings, seed: int, records: list[Record], max_new: int
) -> list[tuple[str, Finding]]:
    """Everything that is said against healthy policies of one seed."""
    start = untrained_policy(settings.limited_model(), seed)
    bench = Bench(start, records, records)
    return [
        (name, one)
        for name, spoil in HEALTHY.items()
        for one in examine(
            spoil(bench.policy(together=bool(seed % 2))), records, Probe(max_new=max_new, seed=seed)
        )
        if one.verdict in (Verdict.fail, Verdict.warn)
    ]


def _failures(found: Sequence[Finding]) -> list[Finding]:
    return [one for one in found if one.verdict is Verdict.fail]
