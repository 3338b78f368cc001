"""The stages of the pipeline on one data set: beams, supervision, RL data, RCE, GRPO.

Each stage runs once for the same settings (`core_rl.run.stages`).  `learn` and `pipeline` may name
existing files in its place.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from core_rl.config import CurriculumConfig
from core_rl.files import write_json
from core_rl.fingerprint import fingerprint
from core_rl.run.stages import run_stage
from lever.answerers.build import Setup, build_answerer
from lever.candidates.beam_search import beams_key, generate_beams
from lever.candidates.beams import BeamRecord, check_embedded, read_beams
from lever.candidates.rl_records import CandidateRecord, read_candidates
from lever.data.datasets import LeverData, load_data
from lever.features.slate_features import Features, SlateQuery
from lever.generation_config import BeamsFrom, Matching, Split
from lever.learning.fit_selector import Lessons, learn
from lever.learning.rl_data import RlDataJob, generate_rl_data, rl_data_key
from lever.model_config import LeverModelConfig, PhaseData
from lever.policy.build import build_features, build_policy, load_weights, weights_digest
from lever.policy.slate_policy import SlatePolicy
from lever.rewards.build import build_reward, needs_references
from lever.rewards.judges import Judge, Slate, build_judge
from lever.settings import Settings

log = logging.getLogger(__name__)

JUDGED = "judged.json"  # in a training's folder: the judged slates of training queries

Beams = Mapping[int, BeamRecord]
Records = Mapping[int, CandidateRecord]


@dataclass(frozen=True)
class Training:
    """One training of a selector.

    Attributes:
        name: of the stage.
        curriculum: its phases.
        start: checkpoint to start from; None = untrained.
        model: the selector; None = that of the run.
        features: of the items; None = those of the model.
        records: RL data, for phases that read them.
        shuffled: permute the rewards within each group: the control.
    """

    name: str
    curriculum: CurriculumConfig
    start: Path | None = None
    model: LeverModelConfig | None = None
    features: Features | None = None
    records: Records = field(default_factory=dict)
    shuffled: bool = False


@dataclass
class Workshop:
    """One data set with its answerer, and the outputs of the stages.

    Use it in a `with` statement, which closes the answerer's cache.

    Attributes:
        settings: of the run.
        seed: of the data, of sampling and of the order of the queries.
        data: the questions.
        setup: the answerer.
    """

    settings: Settings
    seed: int
    data: LeverData
    setup: Setup

    @classmethod
    def open(cls, settings: Settings, seed: int) -> Workshop:
        """Load the data and build the answerer."""
        data = load_data(settings.data_mix, settings.paths, seed)
        setup = build_answerer(settings.answerer, data, settings.paths, settings.hardware)
        return cls(settings, seed, data, setup)

    def __enter__(self) -> Workshop:
        return self

    def __exit__(self, *_: object) -> None:
        self.setup.answerer.close()

    @property
    def root(self) -> Path:
        """Folder of finished stages."""
        return self.settings.cache / "stages"

    @property
    def rule(self) -> Matching:
        """The rule that judges the answers of stored, fresh and held-out slates."""
        return self.settings.rl_data.matching

    @cached_property
    def train(self) -> tuple[SlateQuery, ...]:
        """The training queries: all, or a random sample of `learn.max_samples`.

        Raises:
            ValueError: there are not that many.
        """
        wanted, queries = self.settings.learn.max_samples, self.data.train
        if wanted is None:
            return queries
        if wanted > len(queries):
            raise ValueError(
                f"learn.max_samples={wanted}: expected at most the {len(queries)} queries of "
                f"{self.data.name}"
            )
        drawn = np.random.default_rng([self.seed, 41]).choice(len(queries), wanted, replace=False)
        return tuple(queries[place] for place in sorted(drawn))

    @cached_property
    def taught(self) -> LeverData:
        """The data with `train` as training queries; the fingerprint covers the sample."""
        if self.settings.learn.max_samples is None:
            return self.data
        name = fingerprint(self.data.fingerprint, [one.query for one in self.train])
        return replace(self.data, train=self.train, fingerprint=name)

    def key(self, *parts: object) -> str:
        """Digest the settings that a training's output depends on, and `parts`."""
        settings = self.settings
        trainer = settings.trainer
        how = (
            *(trainer.lr, trainer.batch_size, trainer.accumulation, trainer.max_steps),
            *(trainer.grad_clip, trainer.warmup, trainer.weight_decay, trainer.schedule),
        )
        return fingerprint(
            self.data.fingerprint,
            self.setup.answerer.fingerprint,
            self.seed,
            settings.learn,
            settings.rl_data.matching,
            settings.reward,
            settings.loss,
            settings.rollout.num_generations,
            settings.rollout.temperature,
            how,
            *parts,
        )

    # -- beam data ---------------------------------------------------------------------------

    def beams(self, split: Split, given: str | None = None) -> dict[int, BeamRecord]:
        """Read the beam data of a split, after generating them if needed, or a given file.

        Raises:
            ValueError: the file does not fit the data.
        """
        config = replace(self.settings.beams, split=split, start=0, end=None, output=None)
        data = self.taught
        if split is not Split.train:  # `sample_num` applies to the training queries only
            data, config = self.data, replace(config, sample_num=None)
        if given is None:
            key = beams_key(data, self.setup.answerer, config, self.seed)
            folder = self.settings.cache / f"{split.value}-{key}"
            made = generate_beams(data, self.setup.answerer, config, folder, self.seed)
            assert made is not None
            given = str(made)
        records = read_beams(given, self.data.pools)
        check_embedded(records, range(len(self.data.image_ND)))
        return {record.query: record for record in records}

    @cached_property
    def train_beams(self) -> dict[int, BeamRecord]:
        """Beam data of the training queries."""
        return self.beams(Split.train, self.settings.learn.beam_data)

    @cached_property
    def lessons(self) -> Lessons:
        """Training and validation queries with their beam data."""
        given, beams = self.settings.learn, self.train_beams
        if given.beam_data is None or given.val_beam_data is not None:
            beams = beams | self.beams(Split.val, given.val_beam_data)
        queries = tuple(one for one in self.train if one.query in beams)
        if len(queries) < len(self.train):
            log.warning("beam data of %d of %d queries", len(queries), len(self.train))
        if not queries:
            raise ValueError("learn.beam_data: it holds none of the training queries")
        return Lessons(queries, self.data.val, beams, seed=self.seed)

    def lessons_of(self, curriculum: CurriculumConfig) -> Lessons:
        """As `lessons`, but without beams, the costliest data, if no phase reads them."""
        given = self.settings.learn
        if _reads_beams(curriculum) or given.beam_data is not None:
            return self.lessons
        named = given.val_beam_data
        beams = self.beams(Split.val, named) if named else {}
        return Lessons(self.train, self.data.val, beams, seed=self.seed)

    # -- selectors ---------------------------------------------------------------------------

    def features(self, model: LeverModelConfig | None = None) -> Features:
        """Make the features of a selector; see `lever.policy.build`."""
        return build_features(self.data, model or self.settings.model, self.settings.paths)

    def selector(
        self,
        checkpoint: str | Path | None = None,
        model: LeverModelConfig | None = None,
        features: Features | None = None,
    ) -> SlatePolicy:
        """Make a selector, untrained or with the weights of a checkpoint."""
        model = model or self.settings.model
        torch.manual_seed(self.seed)
        policy = build_policy(model, features or self.features(model))
        return policy if checkpoint is None else load_weights(policy, model, checkpoint)

    def judge(self, records: Records) -> Judge:
        """Build the judge of a training with these RL data."""
        references = needs_references(self.settings.reward)
        return build_judge(self.data, self.setup.answerer, records.values(), references, self.rule)

    def train_selector(self, job: Training) -> Path:
        """Train a selector, unless that was done before; return its checkpoint."""
        model = job.model or self.settings.model
        # `resume` belongs to one training, not to the stages before it.
        trainer = replace(self.settings.trainer, resume=None)
        if model is not self.settings.model:
            trainer = replace(trainer, lr=model.lr, batch_size=model.batch_size)
        key = self.key(
            model,
            job.curriculum,
            None if job.start is None else weights_digest(job.start),
            job.features is None,
            self._beams_read(job.curriculum),
            job.records,
            job.shuffled,
            trainer.lr,
        )
        settings = replace(self.settings, model=model, trainer=trainer, curriculum=job.curriculum)

        def make(folder: Path) -> dict[str, float]:
            judged = self._learn(job, settings, folder)
            write_json(folder / JUDGED, sorted([query, list(shots)] for query, shots in judged))
            return {"scored": float(len(judged))}

        folder, _ = run_stage(job.name, self.root, key, make)
        return folder / "checkpoints" / "final"

    def _beams_read(self, curriculum: CurriculumConfig) -> Beams:
        """Return the beams that the training reads."""
        if not _reads_beams(curriculum):
            return {}
        return {one.query: self.lessons.beams[one.query] for one in self.lessons.train}

    def _learn(self, job: Training, settings: Settings, folder: Path) -> set[Slate]:
        """Train; return the slates of training queries that were judged."""
        policy = self.selector(job.start, settings.model, job.features)
        judge = self.judge(job.records)
        reward = build_reward(settings.reward, judge, self.data, policy.features, job.shuffled)
        lessons = replace(self.lessons_of(job.curriculum), records=job.records)
        if not _reads_beams(job.curriculum):
            lessons = replace(lessons, train=self.train)
        learn(policy, lessons, reward, settings, folder)
        ours = {one.query for one in self.train}
        return {slate for slate in judge.seen if slate[0] in ours}

    # -- the stages --------------------------------------------------------------------------

    def sft(self) -> Path:
        """Return the supervised selector."""
        given = self.settings.pipeline.sft_checkpoint
        if given is not None:
            return Path(given)
        return self.train_selector(Training("sft", self.settings.pipeline.sft))

    def rce(self) -> Path:
        """Return the selector after RCE, which starts from the supervised one."""
        given = self.settings.pipeline.rce_checkpoint
        if given is not None:
            return Path(given)
        return self.train_selector(Training("rce", self.settings.pipeline.rce, self.sft()))

    def rl_data(self, sft: Path | None) -> dict[int, CandidateRecord]:
        """Read the RL data, after generating them if needed with the selector `sft`."""
        given = self.settings.learn.rl_data
        if given is None:
            config = replace(self.settings.rl_data, start=0, end=None, output_path=None)
            takes_beams = config.num_beams > 0 and config.beams_from is BeamsFrom.data
            job = RlDataJob(
                self.taught,
                self.setup.answerer,
                self.selector(sft),
                self.train_beams if takes_beams else {},
                config,
                self.seed,
                self.setup.generation,
            )
            key = rl_data_key(job)
            made = generate_rl_data(job, key, self.settings.cache / f"rl-{key}")
            assert made is not None
            given = str(made)
        return {record.query: record for record in read_candidates(given, self.data.pools)}


def reads(curriculum: CurriculumConfig, data: PhaseData) -> bool:
    """Whether a phase of a curriculum reads some kind of data."""
    return any(phase.data == data.value for phase in curriculum.phases)


def _reads_beams(curriculum: CurriculumConfig) -> bool:
    return reads(curriculum, PhaseData.beams) or reads(curriculum, PhaseData.beam_scores)
