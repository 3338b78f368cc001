"""Check and write the files of an official VQA download."""

from __future__ import annotations

from pathlib import Path

from core_rl import prepared
from lever.data.prepare import prepare as prepare_files


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
    counts = prepare_files(dataset, Path(raw), Path(out), prepared.on_bad_record(on_bad_record))
    return prepared.told(dataset, out, counts)
