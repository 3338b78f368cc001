"""Beam data: the demonstrations that raise the probability of each query's answer most."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from core_rl.config import HardwareConfig, PathsConfig
from lever.answerers.build import build_answerer
from lever.candidates.beam_search import generate_beams
from lever.candidates.beams import BeamRecord, read_beams
from lever.config import LeverDataConfig
from lever.data.datasets import load_data
from lever.generation_config import AnswererConfig, BeamConfig

log = logging.getLogger(__name__)


def beams(
    folder: Path,
    seed: int,
    data_mix: LeverDataConfig,
    answerer: AnswererConfig,
    beams: BeamConfig,
    hardware: HardwareConfig,
    paths: PathsConfig,
) -> dict[str, float]:
    """Generate a beam file, or one shard of it; what is there is not made again.

    Args:
        folder: of the run; the file itself is kept in the cache unless `beams.output` says where.
        seed: of the generated world and of the draw of queries.
        data_mix: whose queries.
        answerer: whose probabilities.
        beams: how many of which length.
        hardware: where a model runs.
        paths: of the data and the cache.

    Returns:
        `answerer_calls` of this run and, of the whole file, `beams/queries`, `beams/best` and
        `beams/worst` (mean InfoScore of each query's best and worst beam, nats a token) and
        `beams/helpful` (share of queries whose best beam raises the probability).
    """
    data = load_data(data_mix, paths, seed)
    setup = build_answerer(answerer, data, paths, hardware)
    cache = Path(paths.cache) / "lever"
    output = Path(beams.output) if beams.output else None
    try:
        path = generate_beams(data, setup.answerer, beams, cache, seed, output)
    finally:
        setup.answerer.close()
    calls = {"answerer_calls": float(setup.answerer.calls)}
    if path is None:
        log.info("this shard is done; the run of the last one writes the file")
        return calls
    records = read_beams(path, data.pools)
    log.info("beam data of %d queries: %s", len(records), path)
    return {**calls, **beam_figures(records)}


def beam_figures(records: Sequence[BeamRecord]) -> dict[str, float]:
    """Figures of a beam file, as `beams` returns them."""
    best = [max(beam.score for beam in record.beams) for record in records]
    worst = [min(beam.score for beam in record.beams) for record in records]
    return {
        "beams/queries": float(len(records)),
        "beams/best": fmean(best),
        "beams/worst": fmean(worst),
        "beams/helpful": fmean(score > 0 for score in best),
    }
