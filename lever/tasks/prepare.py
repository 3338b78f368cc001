"""Check and write the files of an official VQA download."""

from __future__ import annotations

import logging
from pathlib import Path

from core_rl.config import OnBadRecord, require
from lever.data.prepare import prepare as prepare_files

log = logging.getLogger(__name__)


def prepare(
    folder: Path, dataset: str, raw: str, out: str, val_share: float, on_bad_record: str
) -> dict[str, float]:
    """Make the files of one data set; `lever.data.prepare` describes them.

    Args:
        folder: of the run.
        dataset: okvqa or vqav2.
        raw: folder of the download.
        out: folder to write to.
        val_share: not used: `data_mix.split.val_share` splits by picture when a run reads the data.
        on_bad_record: skip or error.

    Returns:
        `prepare/<count>` of `lever.data.prepare.prepare`.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a setting or a file cannot be used.
    """
    policies = [one.value for one in OnBadRecord]
    require(on_bad_record in policies, "on_bad_record", on_bad_record, " or ".join(policies))
    counts = prepare_files(dataset, Path(raw), Path(out), OnBadRecord(on_bad_record))
    lines = "\n".join(f"  {name:<16}{count:>9,}" for name, count in counts.items())
    log.info("%s is in %s\n%s", dataset, out, lines)
    return {f"prepare/{name}": float(count) for name, count in counts.items()}
