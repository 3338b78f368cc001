"""Make beam data: the demonstrations that raise the probability of each query's answer most."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from statistics import fmean
from typing import Any

from lever.answerers.build import build_answerer
from lever.candidates.beam_search import generate_beams
from lever.candidates.beams import BeamRecord, read_beams
from lever.data.datasets import load_data
from lever.settings import DataSettings

log = logging.getLogger(__name__)


def beams(folder: Path, seed: int, **groups: Any) -> dict[str, float]:
    """Generate a beam file, or one shard of it; existing records are kept.

    Args:
        folder: of the run; the file itself is in the cache or at `beams.output`.
        seed: of the generated world and of the sample of queries.
        groups: the fields of `lever.settings.DataSettings`.

    Returns:
        `answerer_calls` of this run and, for the whole file, `beams/queries`, `beams/best` and
        `beams/worst` (mean InfoScore of each query's best and worst beam, nats a token) and
        `beams/helpful` (share of queries whose best beam raises the probability).
    """
    settings = DataSettings(**groups)
    data = load_data(settings.data_mix, settings.paths, seed)
    setup = build_answerer(settings.answerer, data, settings.paths, settings.hardware)
    with closing(setup.answerer):
        path = generate_beams(data, setup.answerer, settings.beams, settings.cache, seed)
    calls = {"answerer_calls": float(setup.answerer.calls)}
    if path is None:
        log.info("this shard is done; the last shard writes the file")
        return calls
    records = read_beams(path, data.pools)
    log.info("beam data of %d queries: %s", len(records), path)
    return {**calls, **beam_figures(records)}


def beam_figures(records: Sequence[BeamRecord]) -> dict[str, float]:
    """Return the figures of a beam file; see `beams`."""
    best = [max(beam.score for beam in record.beams) for record in records]
    worst = [min(beam.score for beam in record.beams) for record in records]
    return {
        "beams/queries": float(len(records)),
        "beams/best": fmean(best),
        "beams/worst": fmean(worst),
        "beams/helpful": fmean(score > 0 for score in best),
    }
