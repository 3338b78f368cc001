"""What lever's data and training cost on the embedded data: answerer calls, seconds, memory.

    python -m benchmarks.lever_cost [--queries 300] [--output outputs/bench/lever.json]

First, beam data and RL data against one call a candidate, as a plain loop makes them: how often the
answerer is called, how many prompts it is given, and seconds.  Then, seconds an epoch and resident
memory of training as the pool grows from 16 to 256 and the queries from 100 to 10,000, each case in
a process of its own.  Seconds of answers are by the clock, of training by the processor.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from core_rl.config import (
    CurriculumConfig,
    DoctorConfig,
    HardwareConfig,
    LoggerConfig,
    PathsConfig,
    PhaseConfig,
    PhaseKind,
    RewardConfig,
    RolloutConfig,
    TrainerConfig,
)
from core_rl.files import write_json
from core_rl.loss_config import LossConfig, RatioLevel
from core_rl.objective.rewards import WeightedReward
from core_rl.run.run_folder import hardware, peak_rss_gib
from lever.answerers.cache import CachedAnswerer
from lever.answerers.protocol import Answerer, KernelICLAnswerer
from lever.candidates.beam_search import generate_beams
from lever.candidates.beams import read_beams
from lever.candidates.rl_records import Candidate, CandidateRecord, GenMethod
from lever.config import LeverDataConfig
from lever.data.datasets import LeverData, Prompted, load_data
from lever.data.vqa_accuracy import vqa_accuracy
from lever.features.slate_features import SlateQuery, pca_features
from lever.generation_config import AnswererConfig, BeamConfig, RlDataConfig
from lever.learning.fit_selector import Lessons, learn
from lever.learning.rl_data import RlDataJob, generate_rl_data, propose, rl_data_key
from lever.model_config import ChooseConfig, LearnConfig, LeverModelConfig, PipelineConfig
from lever.policy.build import build_policy
from lever.rewards.functions import Soft
from lever.rewards.judges import Judge
from lever.settings import Settings
from lever.world_config import DEFAULT

log = logging.getLogger("lever_cost")

POOLS, QUERIES = (16, 64, 256), (100, 1000, 10_000)
MIB = 2**20


class Counted:
    """Passes on to an answerer and counts calls and prompts."""

    def __init__(self, answerer: Answerer) -> None:
        self.answerer = answerer
        self.calls = self.prompts = 0

    @property
    def fingerprint(self) -> str:
        return self.answerer.fingerprint

    def generate(self, prompts: Sequence[Prompted]) -> list[str]:
        self.calls, self.prompts = self.calls + 1, self.prompts + len(prompts)
        return self.answerer.generate(prompts)

    def answer_logprob(self, prompts: Sequence[Prompted], answers: Sequence[str]) -> list[float]:
        self.calls, self.prompts = self.calls + 1, self.prompts + len(prompts)
        return self.answerer.answer_logprob(prompts, answers)


def timed(counted: Counted, work: Callable[[], Any]) -> dict[str, float]:
    """Calls, prompts and seconds of some work."""
    calls, prompts, began = counted.calls, counted.prompts, time.perf_counter()
    work()
    return {
        "calls": counted.calls - calls,
        "prompts": counted.prompts - prompts,
        "seconds": time.perf_counter() - began,
    }


def world_data(pool: int, queries: int) -> LeverData:
    """Draw a world with pools of a size and so many queries to train on."""
    near = pool // 4
    world = dataclasses.replace(
        DEFAULT,
        train=queries,
        val=64,
        test=64,
        pool_text=near,
        pool_image=near,
        pool_random=pool - 2 * near,
    )
    return load_data(LeverDataConfig(world=world, candidate_num=pool), PathsConfig(), 0)


def answering(queries: int, folder: Path) -> dict[str, dict[str, float]]:
    """Compare beam and RL data with one call a candidate, on the same proposals."""
    data = world_data(64, queries)
    assert data.world is not None
    counted = Counted(KernelICLAnswerer(data.world))
    cached = CachedAnswerer(counted, folder / "answers.sqlite", batch_size=4096)
    policy = build_policy(LeverModelConfig(), pca_features(data.image_ND, data.text_ND, data.demos))
    beam_file = folder / "beams.json"

    def all_beams(answerer: Answerer, where: str) -> None:
        generate_beams(data, answerer, BeamConfig(output=str(beam_file)), folder / where, 0)

    rows = {
        "beam data, one call a candidate": timed(
            counted, lambda: all_beams(_OneByOne(counted), "single")
        ),
        "beam data": timed(counted, lambda: all_beams(cached, "beams")),
        "beam data, made before": timed(counted, lambda: all_beams(cached, "beams")),
        "beam data, answers kept": timed(counted, lambda: all_beams(cached, "again")),
    }
    beams = {record.query: record for record in read_beams(beam_file)}
    job = RlDataJob(data, cached, policy, beams, RlDataConfig(), 0, {})
    began = time.perf_counter()
    prompts = [
        Prompted(one.query, tuple(one.pool[place] for place in found.pointer))
        for one in data.train
        for found in propose(job, one)
    ]
    proposing = time.perf_counter() - began

    def one_by_one() -> None:
        for prompt in prompts:
            counted.generate([prompt])

    def file(where: str) -> None:
        generate_rl_data(job, rl_data_key(job), folder / where)

    rows["RL data, one call a candidate"] = timed(counted, one_by_one)
    rows["RL data, one call a candidate"]["seconds"] += proposing  # which the others include
    rows["RL data"] = timed(counted, lambda: file("rl"))
    rows["RL data, made before"] = timed(counted, lambda: file("rl"))
    cached.close()
    return rows


class _OneByOne:
    """Asks for every prompt in a call of its own, as a plain loop does."""

    def __init__(self, answerer: Answerer) -> None:
        self.answerer = answerer

    @property
    def fingerprint(self) -> str:
        return self.answerer.fingerprint

    def generate(self, prompts: Sequence[Prompted]) -> list[str]:
        return [said for one in prompts for said in self.answerer.generate([one])]

    def answer_logprob(self, prompts: Sequence[Prompted], answers: Sequence[str]) -> list[float]:
        return [
            value
            for one, answer in zip(prompts, answers, strict=True)
            for value in self.answerer.answer_logprob([one], [answer])
        ]


def training(case: tuple[int, int]) -> dict[str, float]:
    """Seconds an epoch and memory of GRPO over stored candidates; call it in a fresh process.

    Returns:
        `rce` and `grpo` processor seconds an epoch (one pass over the queries), `resident` MiB
        before training and the `peak` while it ran.
    """
    pool, queries = case
    logging.getLogger("lightning").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    data = world_data(pool, queries)
    records = stored(data, 12)
    policy = build_policy(LeverModelConfig(), pca_features(data.image_ND, data.text_ND, data.demos))
    lessons = Lessons(data.train, (), {}, {record.query: record for record in records})
    reward = WeightedReward({"soft": Soft(Judge(records))}, {"soft": 1.0})
    resident = psutil.Process().memory_info().rss / MIB
    seconds = {}
    for kind in (PhaseKind.rce, PhaseKind.grpo):
        plan = CurriculumConfig([PhaseConfig(kind, epochs=1, data="stored")])
        with tempfile.TemporaryDirectory() as folder:
            # Processor time of this one thread: what else the machine does stays out of it.
            settings = dataclasses.replace(_settings(), curriculum=plan)
            began = time.process_time()
            learn(policy, lessons, reward, settings, Path(folder))
            seconds[kind.value] = time.process_time() - began
    return {**seconds, "resident": resident, "peak": peak_rss_gib() * 1024}


def stored(data: LeverData, count: int) -> list[CandidateRecord]:
    """Random candidates of every training query, answered and scored."""
    assert data.world is not None
    rng, answerer = np.random.default_rng(0), KernelICLAnswerer(data.world)
    records = []
    for one in data.train:
        drawn: set[tuple[int, ...]] = set()
        while len(drawn) < count:
            drawn.add(tuple(rng.choice(len(one.pool), 2, replace=False).tolist()))
        pointers = sorted(drawn)
        said = answerer.generate([_prompt(one, pointer) for pointer in pointers])
        scores = [vqa_accuracy(answer, data.answers[one.query]) for answer in said]
        found = [
            Candidate(pointer, GenMethod.random, vqa_acc_score=score)
            for pointer, score in zip(pointers, scores, strict=True)
        ]
        records.append(CandidateRecord(one.query, one.pool, tuple(found)))
    return records


def _prompt(one: SlateQuery, pointer: tuple[int, ...]) -> Prompted:
    return Prompted(one.query, tuple(one.pool[place] for place in pointer))


def _settings() -> Settings:
    return Settings(
        model=LeverModelConfig(),
        data_mix=LeverDataConfig(),
        answerer=AnswererConfig(),
        beams=BeamConfig(),
        rl_data=RlDataConfig(),
        learn=LearnConfig(),
        choose=ChooseConfig(),
        pipeline=PipelineConfig(),
        reward=RewardConfig(),
        curriculum=CurriculumConfig(),
        loss=LossConfig(ratio_level=RatioLevel.sequence_sum),
        rollout=RolloutConfig(),
        trainer=TrainerConfig(batch_size=32, progress=False, log_every=10**9),
        hardware=HardwareConfig(),
        logger=LoggerConfig(kind="none"),
        doctor=DoctorConfig(enabled=False),
        paths=PathsConfig(),
    )


def in_a_fresh_process(case: tuple[int, int]) -> dict[str, float]:
    """Measure one case where no earlier one has left its memory."""
    with multiprocessing.get_context("spawn").Pool(1) as processes:
        return processes.apply(training, (case,))


def main() -> None:
    """Measure, show a table, keep the numbers."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--queries", type=int, default=100, help="of the comparison of calls")
    parser.add_argument("--most", type=int, default=QUERIES[-1], help="queries to train on at most")
    parser.add_argument("--output", type=Path, default=Path("outputs/bench/lever.json"))
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    log.setLevel(logging.INFO)
    with tempfile.TemporaryDirectory() as folder:
        rows = answering(given.queries, Path(folder))
    log.info("answers for %d queries, pools of 64", given.queries)
    log.info("%-34s %9s %9s %9s", "", "calls", "prompts", "seconds")
    for name, row in rows.items():
        log.info("%-34s %9d %9d %9.2f", name, row["calls"], row["prompts"], row["seconds"])
    cases = [*((pool, 1000) for pool in POOLS), *((64, queries) for queries in QUERIES)]
    cases = [case for case in dict.fromkeys(cases) if case[1] <= given.most]
    measured = {}
    log.info("\none epoch over stored candidates, 12 a query, 32 queries a step, selector metric")
    log.info(
        "%5s %8s %9s %9s %14s %9s", "K", "queries", "RCE s", "GRPO s", "resident MiB", "peak MiB"
    )
    for pool, queries in cases:
        row = in_a_fresh_process((pool, queries))
        measured[f"K={pool} queries={queries}"] = row
        log.info(
            "%5d %8d %9.2f %9.2f %14.0f %9.0f",
            pool,
            queries,
            row["rce"],
            row["grpo"],
            row["resident"],
            row["peak"],
        )
    write_json(given.output, {"answers": rows, "training": measured, "hardware": hardware()})
    log.info("\nkept in %s", given.output)


if __name__ == "__main__":
    main()
