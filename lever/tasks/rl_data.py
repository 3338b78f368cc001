"""Make RL data: candidates from beams, the selector, chance and retrieval, answered and scored."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from lever.answerers.build import Setup, build_answerer
from lever.candidates.beam_search import generate_beams
from lever.candidates.beams import BeamRecord, read_beams
from lever.candidates.rl_records import CandidateRecord, read_candidates
from lever.data.datasets import LeverData, load_data
from lever.generation_config import BeamsFrom
from lever.learning.rl_data import RlDataJob, generate_rl_data, rl_data_key
from lever.policy.build import build_features, build_policy, load_weights
from lever.policy.slate_policy import SlatePolicy
from lever.settings import DataSettings

log = logging.getLogger(__name__)


def rl_data(folder: Path, seed: int, **groups: Any) -> dict[str, float]:
    """Generate RL data, or one shard of them; existing records are kept.

    Args:
        folder: of the run; the file itself is in the cache or at `rl_data.output_path`.
        seed: of the generated world, of samples and random sets.
        groups: the fields of `lever.settings.DataSettings`.  `rl_data.sft_ckpt` are the weights of
            the selector that samples; beam data are made if `rl_data.beam_data` names none.

    Returns:
        `answerer_calls` of this run and, for the whole file, the figures of `rl_data_figures`.
    """
    settings = DataSettings(**groups)
    data = load_data(settings.data_mix, settings.paths, seed)
    setup = build_answerer(settings.answerer, data, settings.paths, settings.hardware)
    with closing(setup.answerer):
        job = RlDataJob(
            data,
            setup.answerer,
            _selector(settings, data, seed),
            _beams(settings, data, setup, seed),
            settings.rl_data,
            seed,
            setup.generation,
            setup.prompts.text,
        )
        path = generate_rl_data(job, rl_data_key(job), settings.cache)
    calls = {"answerer_calls": float(setup.answerer.calls)}
    if path is None:
        log.info("this shard is done; the last shard writes the file")
        return calls
    records = read_candidates(path, data.pools)
    log.info("RL data of %d queries: %s", len(records), path)
    return {**calls, **rl_data_figures(records)}


def rl_data_figures(records: Sequence[CandidateRecord]) -> dict[str, float]:
    """Return the figures of RL data.

    Returns:
        `rl_data/queries`, `rl_data/candidates` (mean a query), `rl_data/accuracy` (mean over judged
        candidates), `rl_data/unjudged` (share), `rl_data/mixed` (share of queries whose candidates
        differ in accuracy: only those carry a signal) and `rl_data/accuracy_<method>`.
    """
    every = [one for record in records for one in record.candidates]
    by_method: dict[str, list[float]] = {}
    for one in every:
        if one.vqa_acc_score is not None:
            by_method.setdefault(one.gen_method.value, []).append(one.vqa_acc_score)
    judged = [value for values in by_method.values() for value in values]
    levels = [{one.vqa_acc_score for one in record.candidates} - {None} for record in records]
    return {
        "rl_data/queries": float(len(records)),
        "rl_data/candidates": len(every) / len(records),
        "rl_data/accuracy": fmean(judged) if judged else float("nan"),
        "rl_data/unjudged": 1 - len(judged) / len(every),
        "rl_data/mixed": fmean(len(values) > 1 for values in levels),
        **{f"rl_data/accuracy_{name}": fmean(values) for name, values in by_method.items()},
    }


def _selector(settings: DataSettings, data: LeverData, seed: int) -> SlatePolicy:
    torch.manual_seed(seed)
    model, checkpoint = settings.model, settings.rl_data.sft_ckpt
    policy = build_policy(model, build_features(data, model, settings.paths))
    if checkpoint is None:
        log.warning(
            "rl_data.sft_ckpt=null: the samples come from an untrained selector, which is close to "
            "similarity search"
        )
        return policy
    return load_weights(policy, model, checkpoint)


def _beams(
    settings: DataSettings, data: LeverData, setup: Setup, seed: int
) -> dict[int, BeamRecord]:
    """Read the beam data, after generating them if needed."""
    config = settings.rl_data
    if config.beams_from is BeamsFrom.selector or config.num_beams == 0:
        return {}
    path = Path(config.beam_data) if config.beam_data else None
    if path is None:
        to_cache = replace(settings.beams, output=None)
        path = generate_beams(data, setup.answerer, to_cache, settings.cache, seed)
    if path is None:
        raise ValueError(
            "beams.start and beams.end: the beam data are not complete; run the missing shards "
            "with +exp=lever_beams, or name a file in rl_data.beam_data"
        )
    return {record.query: record for record in read_beams(path, data.pools)}
