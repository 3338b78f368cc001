"""RL data: candidates from beams, the selector, chance and retrieval, answered and scored."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import torch

from core_rl.config import HardwareConfig, PathsConfig
from lever.answerers.build import Setup, build_answerer
from lever.candidates.beam_search import generate_beams
from lever.candidates.beams import BeamRecord, read_beams
from lever.candidates.rl_records import CandidateRecord, read_candidates
from lever.config import LeverDataConfig
from lever.data.datasets import LeverData, load_data
from lever.generation_config import AnswererConfig, BeamConfig, BeamsFrom, RlDataConfig
from lever.learning.rl_data import RlDataJob, generate_rl_data, rl_data_key
from lever.model_config import LeverModelConfig
from lever.policy.build import build_features, build_policy, load_weights
from lever.policy.slate_policy import SlatePolicy

log = logging.getLogger(__name__)


def rl_data(
    folder: Path,
    seed: int,
    model: LeverModelConfig,
    data_mix: LeverDataConfig,
    answerer: AnswererConfig,
    beams: BeamConfig,
    rl_data: RlDataConfig,
    hardware: HardwareConfig,
    paths: PathsConfig,
) -> dict[str, float]:
    """Generate RL data, or one shard of them; what is there is not made again.

    Args:
        folder: of the run; the file itself is kept in the cache unless `rl_data.output_path` says
            where.
        seed: of the generated world, of samples and random sets.
        model: the selector that samples; `rl_data.sft_ckpt` are its weights.
        data_mix: whose queries.
        answerer: whose answers.
        beams: beam data to make where `rl_data.beam_data` names none.
        rl_data: how many candidates of which kind.
        hardware: where a model runs.
        paths: of the data and the cache.

    Returns:
        `answerer_calls` of this run and, of the whole file, the figures of `rl_data_figures`.
    """
    data = load_data(data_mix, paths, seed)
    setup = build_answerer(answerer, data, paths, hardware)
    cache = Path(paths.cache) / "lever"
    try:
        job = RlDataJob(
            data,
            setup.answerer,
            _selector(model, rl_data, data, paths, seed),
            _beams(data, setup, beams, rl_data, cache, seed),
            rl_data,
            seed,
            setup.generation,
            setup.prompts.text,
        )
        output = Path(rl_data.output_path) if rl_data.output_path else None
        path = generate_rl_data(job, rl_data_key(job), cache, output)
    finally:
        setup.answerer.close()
    calls = {"answerer_calls": float(setup.answerer.calls)}
    if path is None:
        log.info("this shard is done; the run of the last one writes the file")
        return calls
    records = read_candidates(path, data.pools)
    log.info("RL data of %d queries: %s", len(records), path)
    return {**calls, **rl_data_figures(records)}


def rl_data_figures(records: Sequence[CandidateRecord]) -> dict[str, float]:
    """Figures of RL data.

    Returns:
        `rl_data/queries`, `rl_data/candidates` (mean a query), `rl_data/accuracy` (mean over judged
        candidates), `rl_data/unjudged` (share), `rl_data/mixed` (share of queries whose candidates
        differ in accuracy: only those teach) and `rl_data/accuracy_<method>`.
    """
    every = [one for record in records for one in record.candidates]
    by_method: dict[str, list[float]] = {}
    for one in every:
        if one.vqa_acc_score is not None:
            by_method.setdefault(one.gen_method.value, []).append(one.vqa_acc_score)
    judged = [value for values in by_method.values() for value in values]
    spread = [
        {one.vqa_acc_score for one in record.candidates if one.vqa_acc_score is not None}
        for record in records
    ]
    return {
        "rl_data/queries": float(len(records)),
        "rl_data/candidates": len(every) / len(records),
        "rl_data/accuracy": fmean(judged) if judged else float("nan"),
        "rl_data/unjudged": 1 - len(judged) / len(every),
        "rl_data/mixed": fmean(len(values) > 1 for values in spread),
        **{f"rl_data/accuracy_{name}": fmean(values) for name, values in by_method.items()},
    }


def _selector(
    model: LeverModelConfig, config: RlDataConfig, data: LeverData, paths: PathsConfig, seed: int
) -> SlatePolicy:
    torch.manual_seed(seed)
    policy = build_policy(model, build_features(data, model, paths))
    if config.sft_ckpt is None:
        log.warning(
            "rl_data.sft_ckpt=null: the samples come from an untrained selector, which is close to "
            "similarity search"
        )
        return policy
    return load_weights(policy, model, config.sft_ckpt)


def _beams(
    data: LeverData,
    setup: Setup,
    beams: BeamConfig,
    config: RlDataConfig,
    cache: Path,
    seed: int,
) -> dict[int, BeamRecord]:
    """Read the beam data, or make them first: what is there is not made again."""
    if config.beams_from is BeamsFrom.selector or config.num_beams == 0:
        return {}
    path = Path(config.beam_data) if config.beam_data else None
    if path is None:
        path = generate_beams(data, setup.answerer, beams, cache, seed)
    if path is None:
        raise ValueError(
            "beams.start and beams.end: the beam data are not complete; run the missing shards "
            "with +exp=lever_beams, or name a file in rl_data.beam_data"
        )
    return {record.query: record for record in read_beams(path, data.pools)}
