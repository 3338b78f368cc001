"""Make the records of training and test from an official download."""

from __future__ import annotations

from pathlib import Path

from core_rl import prepared
from core_rl.config import require
from omni_rl.data.prepare import prepare as prepare_files


def prepare(
    folder: Path, dataset: str, raw: str, out: str, val_share: float, on_bad_record: str
) -> dict[str, float]:
    """Make the files of one data set; `omni_rl.data.prepare` describes them.

    Args:
        folder: of the run.
        dataset: social_iq, emer, video_r1 or intentbench.
        raw: folder of the download.
        out: folder to write to.
        val_share: share of the clips that are held out, from 0 to below 1.
        on_bad_record: skip or error.

    Returns:
        `prepare/records`, `prepare/clips`, `prepare/held_out` and `prepare/skipped`.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a setting or a record cannot be used.
    """
    require(0 <= val_share < 1, "val_share", val_share, "from 0 to below 1")
    counts = prepare_files(
        dataset, Path(raw), Path(out), val_share, prepared.on_bad_record(on_bad_record)
    )
    return prepared.told(dataset, out, counts)
