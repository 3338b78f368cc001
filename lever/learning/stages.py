"""The stages of the pipeline on one data set: beams, supervision, RL data, RCE, GRPO.

Each is done once for the same settings (`core_rl.run.stages`); `learn` and `pipeline` may name
outputs that come from elsewhere instead.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
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
from lever.rewards.judges import CountedJudge, Slate, build_judge
from lever.settings import Settings

log = logging.getLogger(__name__)

JUDGED = "judged.json"  # of a training: the slates of training queries that it had judged

Beams = Mapping[int, BeamRecord]
Records = Mapping[int, CandidateRecord]


@dataclass
class Workshop:
    """One data set with its answerer, and what the stages make of them.

    Attributes:
        settings: of the run.
        seed: of the data, the draws and the order of learning.
        data: the questions.
        setup: the answerer; close it at the end.
    """

    settings: Settings
    seed: int
    data: LeverData
    setup: Setup

    @classmethod
    def open(cls, settings: Settings, seed: int) -> Workshop:
        """Load the data and make the answerer."""
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
        """How answers are judged: stored, fresh and held-out slates alike."""
        return self.settings.rl_data.matching

    @cached_property
    def train(self) -> tuple[SlateQuery, ...]:
        """Queries to learn from: all, or a random draw of `learn.max_samples`.

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
        """The data with `train` alone to learn from, under a name of its own where that is less."""
        if self.settings.learn.max_samples is None:
            return self.data
        name = fingerprint(self.data.fingerprint, [one.query for one in self.train])
        return replace(self.data, train=self.train, fingerprint=name)

    def key(self, *parts: object) -> str:
        """Fingerprint of what a training's output depends on besides `parts`."""
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
        """Read the beam data of a split, made first where there are none.

        Args:
            split: whose queries.
            given: a file to read instead.

        Raises:
            ValueError: the file does not fit the data.
        """
        config = replace(self.settings.beams, split=split, start=0, end=None)
        data = self.taught
        if split is not Split.train:  # `sample_num` is of what is learned from
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
        """Beam data of the queries to learn from."""
        return self.beams(Split.train, self.settings.learn.beam_data)

    @cached_property
    def lessons(self) -> Lessons:
        """Beam data of the queries to learn from and to select by."""
        given, beams = self.settings.learn, self.train_beams
        if given.beam_data is None or given.val_beam_data is not None:
            beams = beams | self.beams(Split.val, given.val_beam_data)
        queries = tuple(one for one in self.train if one.query in beams)
        if len(queries) < len(self.train):
            log.warning("beam data of %d of %d queries", len(queries), len(self.train))
        if not queries:
            raise ValueError("learn.beam_data: it holds none of the queries to learn from")
        return Lessons(queries, self.data.val, beams)

    def lessons_of(self, curriculum: CurriculumConfig) -> Lessons:
        """As `lessons`; where no phase reads beams they are not made, for they cost the most."""
        given = self.settings.learn
        if _reads_beams(curriculum) or given.beam_data is not None:
            return self.lessons
        named = given.val_beam_data
        return Lessons(self.train, self.data.val, self.beams(Split.val, named) if named else {})

    # -- selectors ---------------------------------------------------------------------------

    def features(self, model: LeverModelConfig | None = None) -> Features:
        """What a selector sees; see `lever.policy.build`."""
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

    def train_selector(
        self,
        name: str,
        curriculum: CurriculumConfig,
        start: Path | None = None,
        *,
        model: LeverModelConfig | None = None,
        features: Features | None = None,
        records: Records | None = None,
        shuffled: bool = False,
    ) -> Path:
        """Train a selector unless that was done; return its checkpoint.

        Args:
            name: of the stage.
            curriculum: its phases.
            start: checkpoint to go on from; None = untrained.
            model: the selector; None = that of the run.
            features: what it sees; None = as `model` says.
            records: RL data, for phases that read them.
            shuffled: deal the rewards at random: the control.
        """
        model = model or self.settings.model
        # What is resumed is one training, none of the stages before it.
        trainer = replace(self.settings.trainer, resume=None)
        if model is not self.settings.model:
            trainer = replace(trainer, lr=model.lr, batch_size=model.batch_size)
        settings = replace(self.settings, model=model, trainer=trainer)
        key = self.key(
            model,
            curriculum,
            None if start is None else weights_digest(start),
            features is None,
            self._beams_read(curriculum),
            records or {},
            shuffled,
            trainer.lr,
        )

        def make(folder: Path) -> dict[str, float]:
            policy = self.selector(start, model, features)
            judged = self._learn(policy, settings, curriculum, records or {}, folder, shuffled)
            write_json(folder / JUDGED, sorted([query, list(shots)] for query, shots in judged))
            return {"scored": float(len(judged))}

        folder, _ = run_stage(name, self.root, key, make)
        return folder / "checkpoints" / "final"

    def _beams_read(self, curriculum: CurriculumConfig) -> Beams:
        """Beams that a training learns from."""
        if not _reads_beams(curriculum):
            return {}
        return {one.query: self.lessons.beams[one.query] for one in self.lessons.train}

    def _learn(
        self,
        policy: SlatePolicy,
        settings: Settings,
        curriculum: CurriculumConfig,
        records: Records,
        folder: Path,
        shuffled: bool,
    ) -> set[Slate]:
        """Train; return the slates of training queries that had to be judged."""
        judge = build_judge(
            self.data,
            self.setup.answerer,
            records.values(),
            needs_references(settings.reward),
            self.rule,
        )
        counted = CountedJudge(judge)
        reward = build_reward(settings.reward, counted, self.data, policy.features, shuffled)
        lessons = replace(self.lessons_of(curriculum), records=records)
        if not _reads_beams(curriculum):
            lessons = replace(lessons, train=self.train)
        learn(policy, lessons, reward, curriculum, settings, folder, self.seed)
        ours = {one.query for one in self.train}
        return {slate for slate in counted.seen if slate[0] in ours}

    # -- the stages --------------------------------------------------------------------------

    def sft(self) -> Path:
        """Supervision by beams."""
        given = self.settings.pipeline.sft_checkpoint
        if given is not None:
            return Path(given)
        return self.train_selector("sft", self.settings.pipeline.sft)

    def rce(self) -> Path:
        """RCE from the supervised selector."""
        given = self.settings.pipeline.rce_checkpoint
        if given is not None:
            return Path(given)
        return self.train_selector("rce", self.settings.pipeline.rce, self.sft())

    def rl_data(self, sft: Path | None) -> dict[int, CandidateRecord]:
        """Candidates of several kinds with their scores; made unless they are there.

        Args:
            sft: checkpoint of the selector that samples; None = untrained.
        """
        given = self.settings.learn.rl_data
        if given is None:
            config = replace(self.settings.rl_data, start=0, end=None)
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
    return any(reads(curriculum, data) for data in (PhaseData.beams, PhaseData.beam_scores))
