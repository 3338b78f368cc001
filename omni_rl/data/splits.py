"""The records of a run: for training, for validation and for the test.

The splits share no scene: a generated clip is drawn for one split, real data are split by file.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core_rl.bad_records import Skips
from core_rl.config import OnBadRecord, PathsConfig, TrainerConfig, require
from core_rl.fingerprint import fingerprint
from omni_rl.config import OmniDataConfig
from omni_rl.data import drawing, scenes
from omni_rl.data.mix import counts_for, mix
from omni_rl.data.record import Record
from omni_rl.data.record_files import keep_decodable, read_file
from omni_rl.data.sources import read_source

log = logging.getLogger(__name__)

GENERATED_TEST = 240  # clips where `trainer.test_size` is null
TAGS = ("<context>", "<think>", "<answer>")  # parts of a solution
INSTRUCTION_SHARE = 0.1  # short instruction checks beside the test questions


@dataclass(frozen=True)
class Splits:
    """Records by use.

    Attributes:
        train: the mix, in training order.
        val: selects the best policy.
        test: scored before and after training; generated ones end with instructions.
    """

    train: list[Record]
    val: list[Record]
    test: list[Record]


def load_splits(
    data: OmniDataConfig,
    trainer: TrainerConfig,
    paths: PathsConfig,
    seed: int,
    taught: bool = False,
) -> Splits:
    """Load or generate the records of a run.

    Args:
        data: sources and held-out files.
        trainer: sizes of the splits.
        paths: folders of real data and of generated clips.
        seed: of the mix, and of generated clips.
        taught: every training record must have a solution.

    Raises:
        FileNotFoundError: a file or clip is missing.
        ValueError: a record cannot be used (unless `on_bad_record=skip`), a source is empty, or
            real data name no held-out file.
    """
    if data.generated:
        return _generated(data, trainer, paths, seed)
    return _real(data, trainer, paths, seed, taught)


def most_used(trainer: TrainerConfig) -> int:
    """Return how many records `trainer.max_steps` can use, with a margin."""
    if trainer.max_steps is None:
        return 10**9
    return 8 + 2 * trainer.max_steps * trainer.batch_size * trainer.accumulation


def load_test(
    data: OmniDataConfig, trainer: TrainerConfig, paths: PathsConfig, seed: int
) -> list[Record]:
    """Load or generate the records of `Splits.test` alone.

    Raises:
        ValueError: `trainer.test_size` is 0, or as `load_splits`.
    """
    require(trainer.test_size != 0, "trainer.test_size", 0, "null (all there are) or at least 1")
    if data.generated:
        size = GENERATED_TEST if trainer.test_size is None else trainer.test_size
        made = generated_split(data, "test", size, paths, seed)
        test = [record for records in made.values() for record in records]
        test = with_instructions(test, max(2, round(INSTRUCTION_SHARE * len(test))))
    else:
        base = Path(paths.data) if paths.data else None
        test = _held_out(data.test_path, data.test_root, data, "test", base, trainer.test_size)
    sources = sorted({record.source for record in test})
    if data.general and not set(sources) & set(data.general):
        log.warning(
            "no general_accuracy: no test record is of data_mix.general=%s, all are of %s",
            *(list(data.general), sources),
        )
    return test


def scene_folder(paths: PathsConfig, seed: int, settings: drawing.Settings) -> Path:
    """Folder of generated clips; another generator or seed has another one."""
    digest = fingerprint(scenes.SCENES_VERSION, settings)
    return Path(paths.cache) / "scenes" / f"{digest}-seed{seed}"


def generated_split(
    data: OmniDataConfig, split: str, size: int, paths: PathsConfig, seed: int
) -> dict[str, list[Record]]:
    """Generate `size` records of one split, by source, in the shares of the mix."""
    if size == 0:
        return {name: [] for name in data.sources}
    settings = drawing.SHIFTED if data.shifted and split == "test" else drawing.DEFAULT
    folder = scene_folder(paths, seed, settings)
    counts = counts_for(data.ratios, size)
    return {
        name: scenes.generate(folder, source.family, split, counts[name], seed, settings)
        if counts[name]
        else []
        for name, source in data.sources.items()
    }


def with_instructions(records: Sequence[Record], count: int) -> list[Record]:
    """Append `count` verifiable instructions, each on the clip of another record."""
    words = itertools.cycle(scenes.WORDS)
    return [
        *records,
        *(
            scenes.instruction(record, word)
            for record, word in zip(records[:count], words, strict=False)
        ),
    ]


def _generated(
    data: OmniDataConfig, trainer: TrainerConfig, paths: PathsConfig, seed: int
) -> Splits:
    test = load_test(data, trainer, paths, seed)
    size = min(data.size, most_used(trainer))  # a short run does not need every clip
    train = generated_split(data, "train", size, paths, seed)
    val = generated_split(data, "val", trainer.val_size, paths, seed)
    return Splits(
        mix(train, data.ratios, size, seed),
        [record for records in val.values() for record in records],
        test,
    )


def _real(
    data: OmniDataConfig, trainer: TrainerConfig, paths: PathsConfig, seed: int, taught: bool
) -> Splits:
    base = Path(paths.data) if paths.data else None
    # Held-out files first: they are small, so their faults are reported at once.
    test = load_test(data, trainer, paths, seed)
    val = _held_out(data.val_path, data.val_root, data, "val", base, trainer.val_size)
    sources: dict[str, list[Record]] = {}
    for name, source in data.sources.items():
        reading = read_source(name, source, base, seed, data.on_bad_record)
        if reading.skipped:
            log.warning("source %s: %d records skipped", name, len(reading.skipped))
        records = reading.records
        sources[name] = with_solution(records, data.on_bad_record) if taught else records
    # Checked now, because a clip that is cut short would stop the run days later.
    train = keep_decodable(mix(sources, data.ratios, data.size, seed), data.on_bad_record)
    return Splits(train.records, val, test)


def with_solution(records: Sequence[Record], on_bad_record: OnBadRecord) -> list[Record]:
    """Keep the records with a solution.

    Raises:
        ValueError: a record has no solution, unless such are skipped.
    """
    skips = Skips(on_bad_record)
    kept = []
    for record in records:
        if record.solution:
            kept.append(record)
        else:
            skips.add(
                ValueError(
                    f"{record.where}: no solution to imitate; give it one, choose a curriculum "
                    "without rce, or leave it out by data_mix.on_bad_record=skip"
                )
            )
    skips.report("solutions")
    bare = [record for record in kept if not all(tag in record.solution for tag in TAGS)]
    if bare:
        lacking = [tag for tag in TAGS if any(tag not in record.solution for record in bare)]
        log.warning(
            "supervision teaches answers WITHOUT %s: %d of %d solutions lack one of these tags, as "
            "%s; name a file of whole solutions as the source's path to teach the three parts",
            *(", ".join(lacking), len(bare), len(kept), bare[0].where),
        )
    return kept


def _held_out(
    path: str, root: str, data: OmniDataConfig, use: str, base: Path | None, limit: int | None
) -> list[Record]:
    if not path:
        raise ValueError(
            f"data_mix.{use}_path is empty: name the held-out records (IntentBench's qa.json, say)"
        )
    file = Path(path)
    if base is not None and not file.is_absolute():
        file = base / file
    folder = Path(root) if root else None
    if folder is not None and base is not None and (base / folder).is_dir():
        folder = base / folder
    reading = read_file(file, folder, "", data.on_bad_record)
    return keep_decodable(reading.records[:limit], data.on_bad_record).records
