"""Make RL data for offline training: candidates of several kinds with their scores.

The candidates of a query are its best beams, samples of the selector at several temperatures,
random sets and retrieved sets, without repeats.  The answerer answers each once, and one rule
scores the answers.  A query's candidates depend only on the seed and the query, so shards and
resumed runs make the same data.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core_rl.fingerprint import fingerprint
from core_rl.types import Actions
from lever.answerers.protocol import Answerer
from lever.candidates.beam_search import chosen_queries
from lever.candidates.beams import BeamRecord, pointers, write_records
from lever.candidates.rl_records import (
    EVAL_NAMES,
    VERSION,
    Candidate,
    CandidateRecord,
    GenMethod,
    candidate_entry,
)
from lever.candidates.shards import Json, fill_shard
from lever.candidates.stored_sampler import padded
from lever.data.datasets import LeverData, Prompted
from lever.data.vqa_accuracy import MATCHERS, check_answers
from lever.features.slate_features import SlateQuery
from lever.generation_config import BeamsFrom, RlDataConfig
from lever.policy.slate_policy import SlatePolicy, SlatePrompt
from lever.rewards.functions import word_f1

log = logging.getLogger(__name__)

Pointer = tuple[int, ...]
_RANDOM_TRIES = 50  # draws for one random set that is not among the candidates


@dataclass(frozen=True)
class RlDataJob:
    """The inputs of RL data.

    Attributes:
        data: with the queries.
        answerer: answers every candidate; should have a cache.
        policy: the supervised selector.
        beams: by query; may be empty if the selector makes the beams.
        config: numbers of candidates.
        seed: of samples and random sets.
        generation: settings of the answers, for the file's header.
        spell: returns a prompt as text, to be written with its candidate; None = no prompts.
    """

    data: LeverData
    answerer: Answerer
    policy: SlatePolicy
    beams: Mapping[int, BeamRecord]
    config: RlDataConfig
    seed: int
    generation: Mapping[str, Any]
    spell: Callable[[Prompted], str] | None = None

    def queries(self) -> dict[int, SlateQuery]:
        """Return the queries of the file, by id."""
        config = self.config
        chosen = chosen_queries(self.data, config.split, config.sample_num, self.seed)
        return {one.query: one for one in chosen}


def generate_rl_data(job: RlDataJob, key: str, folder: Path) -> Path | None:
    """Make the RL data file of a data set, or one shard of it.

    Args:
        job: the inputs.
        key: see `rl_data_key`.
        folder: gets a subfolder with the shards, and the file unless the settings name it.

    Returns:
        The file, for `lever.candidates.rl_records.read_candidates`; None while other shards are
        missing.

    Raises:
        ValueError: a query has no beams or (with `strict_eval`) no answers, or a beam's shot is
            outside the query's pool.
    """
    queries, config = job.queries(), job.config
    job.policy.eval()

    def make(missing: Sequence[int]) -> Iterator[tuple[int, Json]]:
        step = config.queries_per_call
        for start in range(0, len(missing), step):
            for record in judged(job, [queries[query] for query in missing[start : start + step]]):
                yield record.query, _entry(job, record)

    shards = folder / f"rl-data-{key}"
    records = fill_shard(shards, list(queries), config.start, config.end, make)
    if records is None:
        return None
    path = Path(config.output_path or shards / f"rl-data-{job.data.name}.json")
    meta = {
        "key": key,
        "vqa_model": job.answerer.fingerprint,
        "data": job.data.fingerprint,
        "strict_eval": config.strict_eval,
        "eval": EVAL_NAMES[config.matching],
        "task_gen_args": dict(job.generation),
    }
    write_records(path, VERSION, records, meta)
    return path


def rl_data_key(job: RlDataJob) -> str:
    """Digest what the records depend on; not shard, file names and batching."""
    settings = replace(job.config, beam_data=None, sft_ckpt=None, output_path=None)
    settings = replace(settings, start=0, end=None, queries_per_call=1)
    asked = job.queries()
    beams = {query: record for query, record in job.beams.items() if query in asked}
    weights = {
        name: hashlib.sha256(value.cpu().numpy().tobytes()).hexdigest()
        for name, value in job.policy.state_dict().items()
    }
    return fingerprint(
        settings, job.data.fingerprint, job.answerer.fingerprint, beams, weights, job.seed
    )


def judged(job: RlDataJob, queries: Sequence[SlateQuery]) -> Iterator[CandidateRecord]:
    """Propose the candidates of some queries and score them in one call of the answerer."""
    for query in queries:
        if job.config.strict_eval and not job.data.answers[query.query]:
            raise ValueError(
                f"query {query.query}: answers: there are none to judge by; name its annotation "
                "file, or set rl_data.strict_eval=false to keep its candidates unjudged"
            )
        if job.data.answers[query.query]:
            rule = job.config.matching
            check_answers(f"query {query.query}", job.data.answers[query.query], rule)
    groups = [propose(job, query) for query in queries]
    prompts = [
        Prompted(query.query, tuple(query.pool[place] for place in one.pointer))
        for query, group in zip(queries, groups, strict=True)
        for one in group
    ]
    said = iter(job.answerer.generate(prompts))
    wanted = [job.data.references[one.query] for one in prompts] if job.config.gt_prob else []
    scored = job.answerer.answer_logprob(prompts, wanted) if wanted else [None] * len(prompts)
    logp = iter(scored)
    for query, group in zip(queries, groups, strict=True):
        answers = job.data.answers[query.query]
        candidates = [_score(job.config, one, next(said), next(logp), answers) for one in group]
        yield CandidateRecord(query.query, query.pool, tuple(candidates))


def propose(job: RlDataJob, query: SlateQuery) -> list[Candidate]:
    """Propose the candidates of a query; a repeated set belongs to the kind that is first.

    Raises:
        ValueError: the query has no beams, or one of them is outside its pool.
    """
    config, shots = job.config, job.policy.shots
    found: dict[Pointer, Candidate] = {}
    prompt = job.policy.encode([query])
    for one in [*_beams(job, query, prompt), *_samples(job, query, prompt)]:
        found.setdefault(one.pointer, one)
    rng = np.random.default_rng([job.seed, query.query, 22])
    for _ in range(config.num_random):
        for _ in range(_RANDOM_TRIES):
            pointer = tuple(rng.choice(len(query.pool), shots, replace=False).tolist())
            if pointer not in found:
                found[pointer] = Candidate(pointer, GenMethod.random)
                break
    for pointer in retrieved(job.data, query, shots, config.num_retrieval):
        found.setdefault(pointer, Candidate(pointer, GenMethod.retrieval))
    scores = iter(_logprobs(job.policy, prompt, list(found)))
    return [
        replace(one, logprob_score=score) if one.logprob_score is None else one
        for one, score in zip(found.values(), scores, strict=True)
    ]


def retrieved(data: LeverData, query: SlateQuery, shots: int, count: int) -> list[Pointer]:
    """Return `count` sets of nearest demonstrations by several measures, the nearest last.

    The measures are text and picture together, text, picture, and these two in turn; after the
    nearest of each come the next nearest.
    """
    pool = list(query.pool)
    text_K, image_K = (
        rows_ND[pool].float() @ rows_ND[query.query].float()
        for rows_ND in (data.text_ND, data.image_ND)
    )
    both, by_text, by_image = (
        score_K.argsort(descending=True, stable=True).tolist()
        for score_K in (text_K + image_K, text_K, image_K)
    )
    pairs = zip(by_text, by_image, strict=True)
    in_turn = list(dict.fromkeys(place for pair in pairs for place in pair))
    found: dict[Pointer, None] = {}
    for first in range(len(pool) - shots + 1):
        for order in (both, by_text, by_image, in_turn):
            if len(found) < count:
                found[tuple(reversed(order[first : first + shots]))] = None
    return list(found)


def _entry(job: RlDataJob, record: CandidateRecord) -> Json:
    """Return a record as a file holds it, with prompts if asked for."""
    entry = candidate_entry(record)
    if job.config.save_prompts and job.spell is not None:
        for row in entry["pointer_candidates"]:
            row["prompt"] = job.spell(Prompted(record.query, tuple(row["pointer_global"])))
    return entry


def _beams(job: RlDataJob, query: SlateQuery, prompt: SlatePrompt) -> list[Candidate]:
    config, shots = job.config, job.policy.shots
    if config.num_beams == 0:
        return []
    if config.beams_from is BeamsFrom.selector:
        pairs = listed(job.policy.beam_search(prompt, config.num_beams), len(query.pool))
    else:
        record = job.beams.get(query.query)
        if record is None:
            raise ValueError(
                f"query {query.query}: id_list: there are no beams for it in the beam data; make "
                "them for the same queries, or set rl_data.beams_from=selector"
            )
        if len(record.beams[0].shots) != shots:
            raise ValueError(
                f"query {query.query}: id_list: {len(record.beams[0].shots)} shots, the selector "
                f"chooses {shots}: expected beam data with beams.few_shot={shots}"
            )
        best = sorted(record.beams, key=lambda beam: -beam.score)[: config.num_beams]
        where = f"query {query.query}: id_list"
        pairs = [(pointers(where, beam.shots, query.pool), beam.score) for beam in best]
    return [
        Candidate(pointer, GenMethod.beam, beam_rank=rank, beam_score=score)
        for rank, (pointer, score) in enumerate(pairs)
    ]


def _samples(job: RlDataJob, query: SlateQuery, prompt: SlatePrompt) -> Iterator[Candidate]:
    config = job.config
    if config.num_samples_per_temp == 0:
        return
    for number, temperature in enumerate(config.temps):
        # A random stream of its own: the samples do not depend on other queries or a resume.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_stream(job.seed, query.query, number))
            actions = job.policy.sample(prompt, config.num_samples_per_temp, temperature)
        for pointer, score in listed(actions, len(query.pool)):
            yield Candidate(pointer, GenMethod.sample, logprob_score=score, temperature=temperature)


def _stream(seed: int, query: int, number: int) -> int:
    return int(np.random.SeedSequence([seed, query, number, 23]).generate_state(1)[0])


def listed(actions: Actions, pool: int) -> list[tuple[Pointer, float]]:
    """Return pointers and log-probabilities of the candidates of one query.

    Padding and sets that end early (the place after the pool is the stop) are left out: stored
    candidates of a query have one length.
    """
    assert actions.logp_BGT is not None
    real_G = (actions.mask_BGT[0] & (actions.ids_BGT[0] < pool)).all(dim=-1)
    ids, logp = actions.ids_BGT[0][real_G], actions.logp_BGT[0][real_G].sum(dim=-1)
    return [(tuple(row), score) for row, score in zip(ids.tolist(), logp.tolist(), strict=True)]


@torch.no_grad()
def _logprobs(policy: SlatePolicy, prompt: SlatePrompt, found: Sequence[Pointer]) -> list[float]:
    actions = padded([found]).to(prompt.valid_BK.device)
    scores: list[float] = policy.log_probs(prompt, actions).logp_BGT[0].sum(dim=-1).tolist()
    return scores


def _score(
    config: RlDataConfig, one: Candidate, said: str, logp: float | None, answers: Sequence[str]
) -> Candidate:
    one = replace(one, vqa_raw_generation=said, vqa_pred_answer=said.strip())
    if logp is not None:
        one = replace(one, vqa_gt_prob=min(1.0, math.exp(logp)))
    if not answers:  # only with strict_eval=false; no substitute rule is used
        return replace(one, vqa_eval_mode="error")
    rule = config.matching
    accuracy, name = MATCHERS[rule](said, answers), EVAL_NAMES[rule]
    one = replace(one, vqa_acc_score=accuracy, vqa_correct=accuracy > 0, vqa_eval_mode=name)
    if config.relevance:
        one = replace(one, vqa_rel_score=max(word_f1(said, answer) for answer in answers))
    return one
