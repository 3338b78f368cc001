"""Official downloads made into a folder that `data_mix=stage4_people_focus` reads.

    OUT/social_iq.jsonl, OUT/social_iq.yaml   records for training, and the list that names them
    OUT/held_out/social_iq.jsonl              records whose clips are held out
    OUT/val.json                              the held-out records of all prepared data sets
    OUT/intentbench/qa.json                   the test

Clips stay where they are: records name them by absolute path.  A part that was finished with the
same files and settings is not made again.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from core_rl.config import OnBadRecord
from core_rl.files import write_json, write_text
from core_rl.fingerprint import fingerprint
from omni_rl.data.converters import RawKind, read_raw
from omni_rl.data.record import Record, media_of
from omni_rl.data.record_files import Reading, read_file, read_records, write_records

log = logging.getLogger(__name__)

PREPARE_VERSION = 1  # raise when the files made here change
HELD_OUT, DONE = "held_out", "prepared"


@dataclass(frozen=True)
class Layout:
    """A published download.

    Attributes:
        questions: names of its files, from the folder of the download or its parent; those that are
            there are read, at least one must be.
        media: folders of its clips, from the same place; the first that is there.
        published: where questions and clips are published.
    """

    questions: tuple[str, ...]
    media: tuple[str, ...]
    published: str


LAYOUTS = {
    "social_iq": Layout(
        ("siq2/qa/qa_train.json", "qa/qa_train.json", "qa_train.json"),
        ("siq2", ""),
        "https://github.com/abwilf/Social-IQ-2.0-Challenge (its download script fetches the clips)",
    ),
    "emer": Layout(
        ("emer_rewrite.json", "EMER.json", "emer.json", "*emer*.json", "*EMER*.json"),
        ("",),
        "https://huggingface.co/datasets/PhilipC/IntentTrain (questions); the clips are those of "
        "MER, given out under an agreement: https://github.com/zeroQiaoba/AffectGPT",
    ),
    "video_r1": Layout(
        ("Video-R1-260k.json", "Video-R1-data/Video-R1-260k.json"),
        ("Video-R1-data", ""),
        "https://huggingface.co/datasets/Video-R1/Video-R1-data (unpack its archives)",
    ),
    "intentbench": Layout(
        ("IntentBench/qa.json", "qa.json"),
        ("IntentBench", ""),
        "https://huggingface.co/datasets/PhilipC/IntentBench (unpack its archives)",
    ),
}


def prepare(
    dataset: str, raw: Path, out: Path, val_share: float, on_bad_record: OnBadRecord
) -> dict[str, int]:
    """Make the files of one data set.

    Args:
        dataset: one of `LAYOUTS`.
        raw: folder of the download.
        out: folder to write to, the `paths.data` of later runs.
        val_share: share of the clips whose questions are held out; IntentBench is a test as it is.
        on_bad_record: whether a record that cannot be used, be it for a missing clip, stops this or
            is left out and counted.

    Returns:
        Numbers of `records`, `clips`, `held_out` records and `skipped` ones.

    Raises:
        FileNotFoundError: the questions are missing, or a clip (unless skipped).
        ValueError: a record cannot be used (unless skipped), or none can.
    """
    layout = LAYOUTS[dataset]
    source, root = _found(raw, layout)
    stat = source.stat()
    about = (str(source.resolve()), stat.st_size, stat.st_mtime_ns, val_share, on_bad_record)
    key = fingerprint(PREPARE_VERSION, dataset, about)
    done = out / DONE / f"{dataset}.json"
    made = out / dataset / "qa.json" if dataset == "intentbench" else out / f"{dataset}.jsonl"
    if done.is_file() and made.is_file():
        kept = json.loads(done.read_text(encoding="utf-8"))
        if kept["key"] == key and not kept["counts"]["skipped"]:  # a clip may have come since
            log.info("%s: prepared already from %s", dataset, source)
            counts: dict[str, int] = kept["counts"]
            return counts
    reading = _read(dataset, source, root, on_bad_record, layout.published)
    counts = _write(dataset, reading, out, val_share)
    write_json(done, {"key": key, "counts": counts, "source": str(source)})
    if reading.skipped:
        log.warning(
            "%s: %d of %d records left out; what is missing is published at %s",
            *(dataset, len(reading.skipped), counts["skipped"] + counts["records"]),
            layout.published,
        )
    return counts


def _found(raw: Path, layout: Layout) -> tuple[Path, Path]:
    """Return the file of questions and the folder of the media."""
    if not raw.is_dir():
        raise FileNotFoundError(f"raw={raw}: no such folder; published at {layout.published}")
    files = [path for name in layout.questions for path in sorted(raw.glob(name))]
    if not files:
        raise FileNotFoundError(
            f"raw={raw}: holds none of {', '.join(layout.questions)}; published at "
            f"{layout.published}"
        )
    root = next(raw / name for name in layout.media if (raw / name).is_dir())
    return files[0], root.resolve()


def _read(
    dataset: str, source: Path, root: Path, on_bad_record: OnBadRecord, published: str
) -> Reading:
    try:
        if dataset == "intentbench":
            return read_file(source, root, dataset, on_bad_record)
        return read_raw(RawKind(dataset), source, root, on_bad_record)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error}; published at {published}; on_bad_record=skip leaves such records out"
        ) from error


def _write(dataset: str, reading: Reading, out: Path, val_share: float) -> dict[str, int]:
    records = reading.records
    counts = {
        "records": len(records),
        "clips": len({_clip(record) for record in records}),
        "skipped": len(reading.skipped),
    }
    if dataset == "intentbench":
        (out / dataset).mkdir(parents=True, exist_ok=True)
        write_records(out / dataset / "qa.json", records)
        return {**counts, "held_out": len(records)}
    (out / HELD_OUT).mkdir(parents=True, exist_ok=True)
    held_out = [record for record in records if _is_held_out(record, val_share)]
    taught = [record for record in records if not _is_held_out(record, val_share)]
    if not taught:
        raise ValueError(
            f"val_share={val_share}: none of the {len(records)} records of {dataset} is left for "
            "training; expected a smaller share"
        )
    write_records(out / f"{dataset}.jsonl", taught)
    listed = [{"json_path": f"{dataset}.jsonl", "sampling_strategy": "all"}]
    write_text(out / f"{dataset}.yaml", yaml.safe_dump({"datasets": listed}))
    write_records(out / HELD_OUT / f"{dataset}.jsonl", held_out)
    _merge(out)
    return {**counts, "held_out": len(held_out)}


def _merge(out: Path) -> None:
    """Write the held-out records of all data sets prepared so far as `val.json`."""
    merged = []
    for path in sorted((out / HELD_OUT).glob("*.jsonl")):
        if path.stat().st_size:
            part = read_records(path, None, path.stem)
            merged += _prefixed(part, path.stem)
    write_records(out / "val.json", merged)


def _prefixed(records: Sequence[Record], dataset: str) -> list[Record]:
    return [replace(record, id=f"{dataset}/{record.id}") for record in records]


def _clip(record: Record) -> str:
    """Name of the first file of a record; of a bare question its id."""
    files = [path for paths in media_of(record).values() for path in paths]
    return str(files[0].name) if files else record.id


def _is_held_out(record: Record, share: float) -> bool:
    """Decide by the name of the clip alone, so that all questions about it go one way."""
    digest = hashlib.sha256(_clip(record).encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64
