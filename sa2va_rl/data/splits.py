"""The pictures that a configuration names: training, validation and test, by patient."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sa2va_rl.config import Sa2VADataConfig, Source
from sa2va_rl.data.angiograms import DEFAULT, SHIFTED, draw_samples
from sa2va_rl.data.files import (
    Sample,
    Splits,
    film_of,
    read_annotations,
    read_folders,
    split_by_group,
)

log = logging.getLogger(__name__)

# Seeds of generated pictures start here: the generator's ranges were tuned on those of seed 0.
FIRST_SEED = 1000
# Patients of the splits; a smaller split is the beginning of a larger one, so masks are shared.
VAL_PATIENTS, TEST_PATIENTS, SHIFTED_PATIENTS = 100_000, 200_000, 300_000


def load_splits(config: Sa2VADataConfig, seed: int) -> Splits:
    """Draw or read the pictures of a run.

    Args:
        config: the `data_mix` group.
        seed: of the run: of the patients, or of how files are dealt out.

    Raises:
        FileNotFoundError: a file or folder is missing.
        ValueError: one that cannot be used; the message names it.
    """
    if config.source is Source.generated:
        return _generated(config, seed)
    splits = split_by_group(_read(config), config.val_share, config.test_share, seed)
    wanted = {"train": config.train, "val": config.val, "test": config.test}
    kept = {name: at_most(getattr(splits, name), size) for name, size in wanted.items()}
    for name, part in kept.items():
        there = len(getattr(splits, name))
        if len(part) < there:
            log.info("%s: %d of %d pictures (data_mix.%s)", name, len(part), there, name)
    return Splits(**kept)


def smaller(splits: Splits, source: Source, size: int) -> Splits:
    """Keep at most `size` pictures to learn from and as many to choose by; test stays whole.

    Generated pictures are patients in no order: the beginning, so that masks are shared.
    """
    if source is Source.generated:
        return Splits(splits.train[:size], splits.val[:size], splits.test)
    return Splits(at_most(splits.train, size), at_most(splits.val, size), splits.test)


def at_most(samples: Sequence[Sample], size: int | None) -> tuple[Sample, ...]:
    """Keep `size` pictures of a split, evenly over it: its first may be frames of one film."""
    if size is None or len(samples) <= size:
        return tuple(samples)
    return tuple(samples[place] for place in _evenly(len(samples), size))


def places_of(samples: Sequence[Sample], size: int) -> list[int]:
    """Choose places of `size` pictures: the first, or as `at_most` where films have several."""
    size = min(size, len(samples))
    if len({sample.group for sample in samples}) == len(samples):
        return list(range(size))
    return _evenly(len(samples), size)


def _evenly(count: int, size: int) -> list[int]:
    return [index * count // size for index in range(size)]


def load_shifted(config: Sa2VADataConfig, seed: int) -> tuple[Sample, ...]:
    """Draw test pictures of the range that nothing is trained on; none for files."""
    if config.source is not Source.generated:
        return ()
    return _drawn(config, seed, SHIFTED_PATIENTS, config.shifted, shifted=True)


def load_bare(config: Sa2VADataConfig) -> tuple[Sample, ...]:
    """Read the pictures without masks that policies learn from, too."""
    if config.bare is None:
        return ()
    return tuple(read_folders(Path(config.bare), None, config))


def without_films_of(bare: Sequence[Sample], held_out: Sequence[Sample]) -> tuple[Sample, ...]:
    """Leave out pictures of patients or films that are held out, whatever folder they lie in."""
    films = {film_of(sample.group) for sample in held_out}
    kept = tuple(sample for sample in bare if film_of(sample.group) not in films)
    if len(kept) < len(bare):
        log.warning(
            "data_mix.bare: %d of %d pictures left out, the first %s: their films are in "
            "validation or test",
            *(len(bare) - len(kept), len(bare)),
            next(sample.name for sample in bare if film_of(sample.group) in films),
        )
    return kept


def _generated(config: Sa2VADataConfig, seed: int) -> Splits:
    assert config.train is not None and config.val is not None and config.test is not None
    return Splits(
        _drawn(config, seed, 0, config.train),
        _drawn(config, seed, VAL_PATIENTS, config.val),
        _drawn(config, seed, TEST_PATIENTS, config.test),
    )


def _drawn(
    config: Sa2VADataConfig, seed: int, first: int, count: int, shifted: bool = False
) -> tuple[Sample, ...]:
    ranges = replace(SHIFTED if shifted else DEFAULT, side=config.side)
    patients = range(first, first + count)
    return tuple(draw_samples(ranges, patients, seed=FIRST_SEED + seed))


def _read(config: Sa2VADataConfig) -> list[Sample]:
    if config.source is Source.annotations:
        return read_annotations(config)
    assert config.path is not None
    masks = None if config.masks is None else Path(config.masks)
    return read_folders(Path(config.path), masks, config)
