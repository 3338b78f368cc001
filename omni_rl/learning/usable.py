"""Records that the model can be asked, found before the first step.

A prompt that is too long, media that cannot be decoded or a sound without a token would else stop a
run when the record is drawn, hours later.  Every record's prompt is therefore built once; what was
found is kept in the cache, by the record, its files and the settings of the prompt.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from core_rl.bad_records import Skips
from core_rl.config import OnBadRecord
from core_rl.files import alone, write_json
from core_rl.fingerprint import fingerprint
from omni_rl.data.record import Record, media_of, record_json
from omni_rl.data.splits import Splits
from omni_rl.policy.prompts import PromptBuilder
from omni_rl.settings import Settings

log = logging.getLogger(__name__)

USABLE_VERSION = 1  # raise when other records are found usable
WINDOW = 64  # records whose media are decoded ahead, side by side
WORKERS = 4  # threads that decode


def askable_splits(builder: PromptBuilder, splits: Splits, settings: Settings) -> Splits:
    """Keep the records of real data that can be asked; generated ones always can.

    Raises:
        ValueError: a record cannot (unless skipped), or none of the training records can.
    """
    data = settings.data_mix
    if data.generated:
        return splits
    cache = Path(settings.paths.cache)
    parts = {
        name: askable(builder, getattr(splits, name), data.on_bad_record, cache)
        for name in ("train", "val", "test")
    }
    if not parts["train"]:
        raise ValueError(
            f"none of the {len(splits.train)} training records can be asked: see the log; raise "
            "model.max_prompt, or name other data"
        )
    return replace(splits, **parts)


def askable(
    builder: PromptBuilder, records: Sequence[Record], on_bad_record: OnBadRecord, cache: Path
) -> list[Record]:
    """Keep the records whose prompt can be built; a record that is drawn twice is tried once.

    Raises:
        ValueError: a record cannot be asked, unless such are skipped.
    """
    keys = {id(record): _key(record) for record in records}
    known = cache / "prompts" / f"{_about(builder)}.json"
    known.parent.mkdir(parents=True, exist_ok=True)
    with alone(known, known.with_suffix(".lock")):
        faults = _read(known)
        missing = {keys[id(one)]: one for one in records if keys[id(one)] not in faults}
        for key, fault in _tried(builder, list(missing.items())):
            faults[key] = fault
        if missing:
            write_json(known, faults)
    skips = Skips(on_bad_record)
    kept = []
    for record in records:
        if fault := faults[keys[id(record)]]:
            skips.add(ValueError(fault))
        else:
            kept.append(record)
    skips.report("prompts")
    return kept


def _tried(
    builder: PromptBuilder, records: Sequence[tuple[str, Record]]
) -> Iterator[tuple[str, str]]:
    """Yield each key with what is wrong with its record, or an empty text."""

    def decode(record: Record) -> None:
        with suppress(ValueError, FileNotFoundError):  # said below, where it is tried again
            builder.items(record)

    with ThreadPoolExecutor(WORKERS) as pool:
        for start in range(0, len(records), WINDOW):
            window = records[start : start + WINDOW]
            list(pool.map(decode, (record for _, record in window)))
            for key, record in window:
                yield key, _fault(builder, record)
            done = start + len(window)
            if len(records) > WINDOW:
                log.info("prompts measured: %d of %d", done, len(records))


def _fault(builder: PromptBuilder, record: Record) -> str:
    try:
        builder([record])
    except (ValueError, FileNotFoundError) as error:
        text = str(error)
        return text if record.where in text else f"{record.where}: {text}"
    return ""


def _key(record: Record) -> str:
    files = [path for paths in media_of(record).values() for path in paths]
    stats = [path.stat() for path in files if path.is_file()]
    return fingerprint(
        record_json(record, Path()), [(one.st_size, one.st_mtime_ns) for one in stats]
    )


def _about(builder: PromptBuilder) -> str:
    config = builder.config
    tokens = len(builder.tokenizer), str(builder.tokenizer.chat_template)
    return fingerprint(
        USABLE_VERSION, config.media, config.system_prompt, config.max_prompt, tokens
    )


def _read(path: Path) -> dict[str, str]:
    try:
        found: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return found
