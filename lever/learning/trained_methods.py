"""The trained rows of the comparison: functions from the workshop of a world to a selector.

`sft`, `rce`, `offline` and `grpo` are the pipeline; the others are controls and alternatives.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from core_rl.config import CurriculumConfig, PhaseKind, Subset
from lever.candidates.rl_records import EVAL_NAMES, Candidate, CandidateRecord, GenMethod
from lever.config import DataKind
from lever.features.slate_features import FeatureTable
from lever.learning.rl_data import listed
from lever.learning.stages import JUDGED, Training, Workshop
from lever.model_config import FeatureConfig, FeatureKind, LeverModelConfig, PhaseData, SelectorKind
from lever.policy.slate_policy import SlatePolicy
from lever.rewards.judges import build_judge

Arm = Callable[[Workshop], SlatePolicy]


def sft(shop: Workshop) -> SlatePolicy:
    """Supervision only."""
    return shop.selector(shop.sft())


def rce(shop: Workshop) -> SlatePolicy:
    """RCE only, from the supervised selector."""
    return shop.selector(shop.rce())


def offline(shop: Workshop) -> SlatePolicy:
    """GRPO on the RL data, from the RCE checkpoint."""
    records = shop.rl_data(shop.sft())
    curriculum = shop.settings.pipeline.offline
    return _trained(shop, Training("offline", curriculum, shop.rce(), records=records))


def grpo(shop: Workshop) -> SlatePolicy:
    """GRPO on slates sampled in each round, from the RCE checkpoint: the full pipeline."""
    return shop.selector(_refresh(shop))


def offline_equal(shop: Workshop) -> SlatePolicy:
    """GRPO on slates drawn once from RCE: as many different ones a query as the refresh judged.

    Both draw independently and estimate the same gradient: slates drawn once are weighed by the
    ratio of the policy to the one that drew them (`lever.candidates.stored_sampler`).
    """
    judged = json.loads((_refresh(shop).parents[1] / JUDGED).read_text(encoding="utf-8"))
    counts = Counter(query for query, _ in judged)
    records = draws_of(shop, shop.rce(), counts)
    stored = PhaseData.stored.value
    phases = [
        replace(phase, data=stored, subset=Subset.all) if phase.kind is PhaseKind.grpo else phase
        for phase in shop.settings.pipeline.refresh.phases
    ]
    curriculum = CurriculumConfig(phases)
    return _trained(shop, Training("offline_equal", curriculum, shop.rce(), records=records))


def shuffled(shop: Workshop) -> SlatePolicy:
    """The control: as `grpo`, with rewards permuted within each group."""
    curriculum = shop.settings.pipeline.refresh
    return _trained(shop, Training("shuffled", curriculum, shop.rce(), shuffled=True))


def rce_longer(shop: Workshop) -> SlatePolicy:
    """The control of training time: RCE for as many epochs as RCE and GRPO together."""
    [first, *_] = shop.settings.pipeline.rce.phases
    updates = sum(one.epochs * one.num_iterations for one in shop.settings.pipeline.refresh.phases)
    curriculum = CurriculumConfig([replace(first, epochs=first.epochs + updates)])
    return _trained(shop, Training("rce_longer", curriculum, shop.sft()))


def knows_latents(shop: Workshop) -> SlatePolicy:
    """An upper bound: the metric on the latent facts of a generated world."""
    return _other(shop, LeverModelConfig("knows_latents"), FeatureTable(latent_rows(shop)))


def _other(
    shop: Workshop, model: LeverModelConfig, features: FeatureTable | None = None
) -> SlatePolicy:
    """Train another selector by the same stages: supervision, RCE, GRPO."""
    pipeline = shop.settings.pipeline
    model = replace(model, shots=shop.settings.model.shots)
    start: Path | None = None
    stages = {"sft": pipeline.sft, "rce": pipeline.rce, "grpo": pipeline.refresh}
    for stage, curriculum in stages.items():
        job = Training(f"{model.name}_{stage}", curriculum, start, model, features)
        start = shop.train_selector(job)
    return shop.selector(start, model, features)


MOST_DRAWS = 1024  # of a query's slates that are drawn once
LARGE_LR = 1e-3  # for selectors with weight matrices; they diverge at the metric's .03

# Other selectors, trained by the same stages.  They see the features of the run unless said.
_PCA, _MEAN = (FeatureConfig(kind=kind) for kind in (FeatureKind.pca, FeatureKind.mean))
_POINTER = SelectorKind.pointer
OTHERS = (
    LeverModelConfig("metric_pca", features=_PCA),  # without the bank's answers
    LeverModelConfig("pointer", _POINTER, lr=LARGE_LR),
    LeverModelConfig("pointer_mean", _POINTER, features=_MEAN, lr=LARGE_LR),  # as published
    LeverModelConfig("gpt2", SelectorKind.gpt2, lr=LARGE_LR, layers=2),
    LeverModelConfig("mlp", SelectorKind.mlp, lr=LARGE_LR, cosine_temperature=0.5),
)

PIPELINE: Mapping[str, Arm] = {"sft": sft, "rce": rce, "offline": offline, "grpo": grpo}
ARMS: Mapping[str, Arm] = {
    "offline_equal": offline_equal,
    "shuffled": shuffled,
    "rce_longer": rce_longer,
    "knows_latents": knows_latents,
    **{model.name: partial(_other, model=model) for model in OTHERS},
}


def check_arms(names: Sequence[str], kind: DataKind) -> None:
    """Check the names of `pipeline.arms` before any training.

    Raises:
        ValueError: an unknown name, or one that needs the generated world with other data.
    """
    unknown = sorted(set(names) - set(ARMS))
    if unknown:
        raise ValueError(f"pipeline.arms={unknown}: expected names among {sorted(ARMS)}")
    if "knows_latents" in names and kind is not DataKind.synthetic:
        raise ValueError(
            f"pipeline.arms={list(names)}: knows_latents needs the facts behind generated "
            f"questions, which data_mix.kind={kind.value} does not have: leave it out"
        )


def latent_rows(shop: Workshop) -> Tensor:
    """Return the latent facts of each item as features: entity, topic, kind, value and nuisance.

    Facts have random, nearly orthogonal codes: the cosine is 1 for equal facts, else about 0.
    """
    world = shop.data.world
    assert world is not None
    rng = np.random.default_rng([shop.seed, 42])

    def code(of: np.ndarray, width: int) -> Tensor:
        table = rng.normal(size=(int(of.max()) + 1, width))
        return normalize(torch.from_numpy(table[of]).float(), dim=-1)

    value = world.kind * world.settings.attributes + world.attribute
    nuisance = torch.from_numpy(np.concatenate([world.scene, world.wording], axis=1)).float() / 2
    parts = [code(world.entity, 200), code(world.topic, 90), code(world.kind, 32), code(value, 96)]
    return torch.cat([*parts, nuisance], dim=-1)


def _trained(shop: Workshop, job: Training) -> SlatePolicy:
    return shop.selector(shop.train_selector(job))


def _refresh(shop: Workshop) -> Path:
    return shop.train_selector(Training("grpo", shop.settings.pipeline.refresh, shop.rce()))


def draws_of(
    shop: Workshop, checkpoint: Path, counts: Mapping[int, int]
) -> dict[int, CandidateRecord]:
    """Sample slates independently and judge them, until a query has `counts[query]` different ones.

    At least two, for a comparison; fewer where `MOST_DRAWS` do not contain that many.
    """
    policy = shop.selector(checkpoint)
    torch.manual_seed(shop.seed)
    judge = build_judge(shop.data, shop.setup.answerer, rule=shop.rule)
    records = {}
    for one in shop.train:
        drawn = policy.sample(policy.encode([one]), MOST_DRAWS, shop.settings.rollout.temperature)
        times: dict[tuple[int, ...], int] = {}
        logp = dict(pairs := listed(drawn, len(one.pool)))
        for pointer, _ in pairs:
            if pointer not in times and len(times) == max(2, counts[one.query]):
                break
            times[pointer] = times.get(pointer, 0) + 1
        if not times:
            raise ValueError(
                f"query {one.query}: pipeline.arms=offline_equal: every slate drawn stops early: "
                "set model.stop=false, or leave the arm out"
            )
        verdicts = judge([(one.query, tuple(one.pool[i] for i in ids)) for ids in times])
        candidates = tuple(
            Candidate(
                ids,
                GenMethod.sample,
                logprob_score=logp[ids],
                temperature=shop.settings.rollout.temperature,
                vqa_acc_score=verdict.accuracy,
                vqa_correct=bool(verdict.accuracy),
                vqa_eval_mode=EVAL_NAMES[shop.rule],
            )
            for ids, verdict in zip(times, verdicts, strict=True)
        )
        records[one.query] = CandidateRecord(one.query, one.pool, candidates, tuple(times.values()))
    return records
