"""Reading of one source: a published data YAML or one file, or a part of it.

Unlike in the published reader an unknown `sampling_strategy` is an error (there it means `all`),
`random` has a seed, and relative paths in a YAML may be relative to its folder.
"""

from __future__ import annotations

import logging
import math
import random
import re
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import yaml

from core_rl.config import OnBadRecord
from omni_rl.config import SourceConfig
from omni_rl.data.record import Record
from omni_rl.data.record_files import Reading, read_file

log = logging.getLogger(__name__)

STRATEGIES = "all, first:N, first:P%, end:N, end:P%, random:N, random:P%"
DATASET_KEYS = {"json_path", "data_root", "sampling_strategy"}


def choose(strategy: str, count: int, seed: int = 0) -> list[int]:
    """Return the indices that a sampling strategy keeps of `count` records.

    Args:
        strategy: `all`, or `first`, `end` or `random` with `:N` records or `:P%` of them (rounded
            up).  A number above `count` means all.
        count: number of records.
        seed: of `random`.

    Raises:
        ValueError: another strategy, or a number that is not above 0 (a percentage above 100).
    """
    if strategy == "all":
        return list(range(count))
    parts = re.fullmatch(r"(first|end|random):(\d+(?:\.\d+)?)(%?)", strategy.strip())
    if parts is None:
        hint = "; `start` is spelt `first`" if strategy.startswith("start") else ""
        raise ValueError(f"sampling_strategy={strategy!r}: expected one of {STRATEGIES}{hint}")
    where, number, percent = parts.group(1), Fraction(parts.group(2)), bool(parts.group(3))
    if number <= 0 or (percent and number > 100) or (not percent and number.denominator > 1):
        raise ValueError(
            f"sampling_strategy={strategy!r}: expected a whole number above 0, or a percentage "
            "above 0 and up to 100"
        )
    wanted = math.ceil(number * count / 100) if percent else int(number)
    if wanted > count:
        log.warning("sampling_strategy=%r asks for more than the %d there are", strategy, count)
    indices = list(range(count))
    if where == "random":
        random.Random(seed).shuffle(indices)
    return indices[-wanted:] if where == "end" else indices[:wanted]


def read_source(
    name: str,
    config: SourceConfig,
    base: Path | None = None,
    seed: int = 0,
    on_bad_record: OnBadRecord = OnBadRecord.error,
) -> Reading:
    """Read one source of a mix: a `.yaml` of the published layout, or a `.json`/`.jsonl` file.

    Args:
        name: given to its records as `source`.
        config: path, media folder and sampling; sampling of a YAML applies to all it lists.
        base: folder of the data, for relative paths; else they are relative to the working folder.
        seed: of `random` sampling.
        on_bad_record: whether a record that cannot be used raises or is skipped and counted.

    Raises:
        FileNotFoundError: a file or a media file is missing.
        ValueError: a bad strategy or record, or nothing left.
    """
    folders = [base] if base else []
    path = _locate(config.path, folders)
    root = _locate(config.data_root, folders) if config.data_root else None
    if path.suffix in (".yaml", ".yml"):
        reading = read_mix_yaml(path, base, root, seed, on_bad_record)
        kept = choose(config.sampling, len(reading.records), seed)
        records = [replace(reading.records[index], source=name) for index in kept]
        return Reading(records, reading.skipped)
    select = partial(_select, config.sampling, seed, path)
    return read_file(path, root, name, on_bad_record, select)


def read_mix_yaml(
    path: str | Path,
    base: Path | None = None,
    data_root: Path | None = None,
    seed: int = 0,
    on_bad_record: OnBadRecord = OnBadRecord.error,
) -> Reading:
    """Read `datasets: [{json_path, data_root, sampling_strategy}]`.

    The stem of a file becomes the `source` of its records and the prefix of their ids, because ids
    start at zero in each published file.

    Args:
        path: the YAML.
        base: folder for relative paths; else they are relative to that of the YAML, else to the
            working folder.
        data_root: of entries that name none; None for the folder of their JSON.
        seed: of `random` sampling.
        on_bad_record: whether a record that cannot be used raises or is skipped and counted.

    Raises:
        FileNotFoundError: a file or a media file is missing.
        ValueError: another layout, a bad strategy or record, or nothing left.
    """
    path = Path(path)
    folders = [*([base] if base else []), path.parent]
    records: dict[str, Record] = {}
    skipped: list[str] = []
    for entry in _datasets(path):
        file = _locate(str(entry["json_path"]), folders)
        named = entry.get("data_root")
        root = _locate(str(named), folders) if named else data_root
        strategy = str(entry.get("sampling_strategy") or "all")
        reading = read_file(
            file, root, file.stem, on_bad_record, partial(_select, strategy, seed, path)
        )
        skipped += reading.skipped
        for record in reading.records:
            full = replace(record, id=f"{file.stem}/{record.id}")
            if full.id in records:
                raise ValueError(
                    f"{path}: {full.where} is also {records[full.id].origin}; two entries overlap "
                    "or two files share a name: change a sampling_strategy or rename a file"
                )
            records[full.id] = full
    return Reading(list(records.values()), tuple(skipped))


def _select(strategy: str, seed: int, path: Path, count: int) -> Sequence[int]:
    try:
        return choose(strategy, count, seed)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _datasets(path: Path) -> list[dict[str, object]]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such data YAML; check the data paths")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not YAML ({error}); mend it") from error
    datasets = content.get("datasets") if isinstance(content, dict) else None
    if not isinstance(datasets, list) or not datasets:
        raise ValueError(f"{path}: expected `datasets:` with a list of {sorted(DATASET_KEYS)}")
    for number, entry in enumerate(datasets):
        if not isinstance(entry, dict) or not entry.get("json_path"):
            raise ValueError(f"{path}: datasets[{number}] = {entry!r}; it needs a json_path")
        unknown = sorted(set(entry) - DATASET_KEYS)
        if unknown:
            raise ValueError(
                f"{path}: datasets[{number}] has {unknown}; expected {sorted(DATASET_KEYS)}"
            )
    return datasets


def _locate(name: str, folders: Sequence[Path]) -> Path:
    """Return the first `folder / name` that exists, else `name`."""
    for folder in folders:
        if (folder / name).exists():
            return folder / name
    return Path(name)
