"""The pictures of a configuration, split by patient or film into training, validation and test."""

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

# Seeds of generated pictures start here, because the generator was tuned on those of seed 0.
FIRST_SEED = 1000
# First patients of the splits; a smaller split is the start of a larger one, so masks are shared.
VAL_PATIENTS, TEST_PATIENTS, SHIFTED_PATIENTS = 100_000, 200_000, 300_000


def load_splits(config: Sa2VADataConfig, seed: int) -> Splits:
    """Generate or read the pictures of a run.

    Args:
        config: the `data_mix` group.
        seed: of the generated patients, or of the split of files.

    Raises:
        FileNotFoundError: a file or folder is missing.
        ValueError: a file that cannot be used; the message names it.
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
    """Keep at most `size` training and `size` validation pictures, and all test pictures.

    Of generated pictures the first ones are kept, so that tables of several sizes share masks.
    """
    if source is Source.generated:
        return Splits(splits.train[:size], splits.val[:size], splits.test)
    return Splits(at_most(splits.train, size), at_most(splits.val, size), splits.test)


def at_most(samples: Sequence[Sample], size: int | None) -> tuple[Sample, ...]:
    """Keep `size` pictures at even distances, because the first may be frames of one film."""
    if size is None or len(samples) <= size:
        return tuple(samples)
    return tuple(samples[place] for place in _evenly(len(samples), size))


def places_of(samples: Sequence[Sample], size: int) -> list[int]:
    """Return indices of `size` pictures: the first, or as `at_most` if films have several."""
    size = min(size, len(samples))
    if len({sample.group for sample in samples}) == len(samples):
        return list(range(size))
    return _evenly(len(samples), size)


def _evenly(count: int, size: int) -> list[int]:
    return [index * count // size for index in range(size)]


def load_shifted(config: Sa2VADataConfig, seed: int) -> tuple[Sample, ...]:
    """Generate the shifted test set; files have none."""
    if config.source is not Source.generated:
        return ()
    return _drawn(config, seed, SHIFTED_PATIENTS, config.shifted, shifted=True)


def load_bare(config: Sa2VADataConfig) -> tuple[Sample, ...]:
    """Read the pictures of `data_mix.bare`, which have no masks."""
    if config.bare is None:
        return ()
    return tuple(read_folders(Path(config.bare), None, config))


def without_films_of(bare: Sequence[Sample], held_out: Sequence[Sample]) -> tuple[Sample, ...]:
    """Leave out pictures whose patient or film is held out, in whatever folder they are."""
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
