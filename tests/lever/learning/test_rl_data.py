"""RL data: what is proposed, how it is scored, that nothing is asked twice."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lever.answerers.cache import CachedAnswerer
from lever.answerers.protocol import KernelICLAnswerer
from lever.candidates.beam_search import generate_beams
from lever.candidates.beams import BeamRecord, read_beams
from lever.candidates.rl_records import GenMethod, read_candidates
from lever.data.datasets import Prompted
from lever.data.vqa_accuracy import simple_match, vqa_accuracy
from lever.features.slate_features import pca_features
from lever.generation_config import BeamConfig, BeamsFrom, Matching, RlDataConfig
from lever.learning.rl_data import RlDataJob, generate_rl_data, propose, retrieved, rl_data_key
from lever.model_config import LeverModelConfig
from lever.policy.selectors import MetricSelector
from tests.lever.candidates.test_beam_search import small_data
from tests.lever.counting import Noting
from tests.limits import HUNG

DATA = small_data()
ANSWERER = KernelICLAnswerer(DATA.world)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def beams(tmp_path_factory: pytest.TempPathFactory) -> dict[int, BeamRecord]:
    path = generate_beams(DATA, ANSWERER, BeamConfig(), tmp_path_factory.mktemp("beams"), 0)
    assert path is not None
    return {record.query: record for record in read_beams(path)}


def selector(shots: int = 2) -> MetricSelector:
    features = pca_features(DATA.image_ND, DATA.text_ND, DATA.demos, dims=8)
    return MetricSelector(features, LeverModelConfig(shots=shots, scale=3.0))


def job(beams: dict[int, BeamRecord], **changes: Any) -> RlDataJob:
    fields: dict[str, Any] = {
        "data": DATA,
        "answerer": ANSWERER,
        "policy": selector(),
        "beams": beams,
        "config": RlDataConfig(),
        "seed": 0,
        "generation": {},
    }
    return RlDataJob(**(fields | changes))


def made(tmp_path: Path, one: RlDataJob) -> Path:
    path = generate_rl_data(one, rl_data_key(one), tmp_path)
    assert path is not None
    return path


def test_the_file_holds_every_kind_without_repeats(tmp_path: Path, beams: Any) -> None:
    records = read_candidates(made(tmp_path, job(beams)), DATA.pools)
    assert [record.query for record in records] == [one.query for one in DATA.train]
    total: Counter[GenMethod] = Counter()
    for record in records:
        pointers = [one.pointer for one in record.candidates]
        assert len(set(pointers)) == len(pointers)
        count = Counter(one.gen_method for one in record.candidates)
        assert count[GenMethod.beam] == 5 and count[GenMethod.random] == 1
        assert count[GenMethod.sample] <= 4 and count[GenMethod.retrieval] <= 5
        total += count
    assert total[GenMethod.sample] > 12 and total[GenMethod.retrieval] > 15


def test_another_score_of_a_beam_makes_other_data(beams: Any) -> None:
    query, record = next(iter(beams.items()))
    first, *rest = record.beams
    worse = replace(record, beams=(replace(first, score=first.score - 1), *rest))
    assert rl_data_key(job({**beams, query: worse})) != rl_data_key(job(beams))


def test_every_candidate_is_answered_and_scored_by_the_official_rule(
    tmp_path: Path, beams: Any
) -> None:
    config = RlDataConfig(gt_prob=True, relevance=True)
    for record in read_candidates(made(tmp_path, job(beams, config=config))):
        shots = [tuple(record.pool[place] for place in one.pointer) for one in record.candidates]
        prompts = [Prompted(record.query, slate) for slate in shots]
        said = ANSWERER.generate(prompts)
        wanted = DATA.references[record.query]
        logp = ANSWERER.answer_logprob(prompts, [wanted] * len(prompts))
        for one, answer, value in zip(record.candidates, said, logp, strict=True):
            assert one.vqa_pred_answer == answer
            assert one.vqa_acc_score == vqa_accuracy(answer, DATA.answers[record.query])
            assert one.vqa_correct == (one.vqa_acc_score > 0)
            assert one.vqa_gt_prob == pytest.approx(math.exp(value))
            assert one.vqa_rel_score is not None and one.vqa_eval_mode == "vqaEval"


def test_beams_keep_rank_and_score_and_samples_their_temperature(beams: Any) -> None:
    query = DATA.train[0]
    found = propose(job(beams), query)
    best = sorted(beams[query.query].beams, key=lambda beam: -beam.score)
    firsts = found[:5]
    assert [one.beam_rank for one in firsts] == [0, 1, 2, 3, 4]
    assert [one.beam_score for one in firsts] == [beam.score for beam in best]
    assert [tuple(query.pool[p] for p in one.pointer) for one in firsts] == [
        beam.shots for beam in best
    ]
    samples = [one for one in found if one.gen_method is GenMethod.sample]
    assert {one.temperature for one in samples} == {1.0, 1.3}
    table = selector().enumerate(selector().encode([query]))[0]
    warm = selector().enumerate(selector().encode([query]), temperature=1.3)[0]
    for one in found:
        exact = warm if one.temperature == 1.3 else table
        assert one.logprob_score == pytest.approx(exact[one.pointer].item(), abs=1e-4)


def test_the_selectors_own_beams_need_no_beam_data() -> None:
    config = RlDataConfig(beams_from=BeamsFrom.selector, num_beams=3)
    found = propose(job({}, config=config), DATA.train[0])
    table = selector().enumerate(selector().encode([DATA.train[0]]))[0]
    best = table.flatten().topk(3).values.tolist()
    assert [one.beam_score for one in found[:3]] == pytest.approx(best, abs=1e-5)


def test_what_is_proposed_depends_on_seed_and_query_alone(beams: Any) -> None:
    first = propose(job(beams), DATA.train[3])
    torch.rand(17)  # the caller's own stream has moved
    propose(job(beams), DATA.train[1])
    state = torch.get_rng_state()
    assert propose(job(beams), DATA.train[3]) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert propose(job(beams, seed=1), DATA.train[3]) != first


def test_retrieval_brings_the_nearest_and_puts_the_nearest_last() -> None:
    query = DATA.train[2]
    pool = list(query.pool)
    by_text = (DATA.text_ND[pool] @ DATA.text_ND[query.query]).argsort(descending=True).tolist()
    by_image = (DATA.image_ND[pool] @ DATA.image_ND[query.query]).argsort(descending=True).tolist()
    found = retrieved(DATA, query, 2, 5)
    assert (by_text[1], by_text[0]) in found and (by_image[1], by_image[0]) in found
    assert len(set(found)) == 5
    # Every ordered pair that such windows can give, and then no more.
    assert len(retrieved(DATA, query, 2, 999)) <= 4 * (len(pool) - 1)


def test_a_kill_neither_loses_nor_doubles_a_call(tmp_path: Path, beams: Any) -> None:
    script = f"""
from pathlib import Path
from tests.lever.learning.test_rl_data import *

folder = Path({str(tmp_path)!r})
path = generate_beams(DATA, ANSWERER, BeamConfig(), folder, 0)
noting = Noting(ANSWERER, folder / "asked.txt", dies_at=40)
cached = CachedAnswerer(noting, folder / "answers.sqlite", batch_size=5)
one = job({{r.query: r for r in read_beams(path)}}, answerer=cached,
          config=RlDataConfig(queries_per_call=2))
generate_rl_data(one, rl_data_key(one), folder)
"""
    root = Path(__file__).parents[3]
    ended = subprocess.run([sys.executable, "-c", script], cwd=root, timeout=HUNG, check=False)
    assert ended.returncode == -signal.SIGKILL
    noting = Noting(ANSWERER, tmp_path / "asked.txt")
    before = len(noting.asked)
    assert 40 <= before < 6 * 10
    cached = CachedAnswerer(noting, tmp_path / "answers.sqlite", batch_size=5)
    path = made(tmp_path, job(beams, answerer=cached))
    plain = made(tmp_path / "plain", job(beams))
    assert path.read_bytes() == plain.read_bytes()
    wanted = [
        str(Prompted(record.query, tuple(record.pool[place] for place in one.pointer)))
        for record in read_candidates(path)
        for one in record.candidates
    ]
    # At most one call a distinct query and ordered demonstrations, over both runs.
    assert sorted(noting.asked) == sorted(wanted)
    assert len(set(wanted)) == len(wanted)


def test_shards_make_the_file_of_one_run(tmp_path: Path, beams: Any) -> None:
    whole = made(tmp_path / "whole", job(beams))
    for start, end in ((2, 6), (0, 2)):
        one = job(beams, config=RlDataConfig(start=start, end=end))
        last = generate_rl_data(one, rl_data_key(one), tmp_path / "parts")
    assert last is not None and last.read_bytes() == whole.read_bytes()


def test_the_simple_match_is_named_and_never_mixed(tmp_path: Path, beams: Any) -> None:
    config = RlDataConfig(matching=Matching.simple)
    for record in read_candidates(made(tmp_path, job(beams, config=config))):
        for one in record.candidates:
            assert one.vqa_eval_mode == "simple"
            answers = DATA.answers[record.query]
            assert one.vqa_acc_score == simple_match(one.vqa_pred_answer, answers)


def without_answers(query: int) -> Any:
    item = DATA.items[query]
    bare = replace(item, question=replace(item.question, answers=()))
    return replace(DATA, items=(*DATA.items[:query], bare, *DATA.items[query + 1 :]))


def test_a_query_without_answers_stops_a_strict_run(tmp_path: Path, beams: Any) -> None:
    query = DATA.train[4].query
    data = without_answers(query)
    with pytest.raises(ValueError, match=rf"query {query}: answers: .*strict_eval=false"):
        made(tmp_path, job(beams, data=data))
    lenient = job(beams, data=data, config=RlDataConfig(strict_eval=False))
    record = read_candidates(made(tmp_path, lenient))[4]
    assert {one.vqa_eval_mode for one in record.candidates} == {"error"}
    assert {one.vqa_acc_score for one in record.candidates} == {None}


def test_prompts_are_kept_where_they_are_wanted(tmp_path: Path, beams: Any) -> None:
    config = RlDataConfig(save_prompts=True)
    path = made(tmp_path, job(beams, config=config, spell=lambda one: f"asks {one.query}"))
    rows = json.loads(path.read_text())[str(DATA.train[0].query)]["pointer_candidates"]
    assert {row["prompt"] for row in rows} == {f"asks {DATA.train[0].query}"}
    assert len(read_candidates(path)) == len(DATA.train)


def test_other_weights_or_settings_are_other_records(beams: Any) -> None:
    moved = selector()
    with torch.no_grad():
        moved.log_scale += 0.1
    jobs = [
        job(beams),
        job(beams, policy=moved),
        job(beams, seed=1),
        job(beams, config=RlDataConfig(num_random=2)),
        job({}),
        job(beams, config=RlDataConfig(start=1, end=3, output_path="x.json")),
    ]
    keys = [rl_data_key(one) for one in jobs]
    assert len(set(keys)) == 5 and keys[0] == keys[-1]


def test_bad_beams_are_named(beams: Any) -> None:
    query = DATA.train[0]
    with pytest.raises(ValueError, match=rf"query {query.query}: id_list: there are no beams"):
        propose(job({}), query)
    with pytest.raises(ValueError, match=r"2 shots, the selector chooses 3.*few_shot=3"):
        propose(job(beams, policy=selector(3)), query)
    other = replace(query, pool=(*query.pool[:-1], 59))
    if 59 in query.pool:
        other = replace(query, pool=(*query.pool[:-1], 58))
    gone = query.pool[-1]
    record = beams[query.query]
    moved = replace(record.beams[0], shots=(gone, query.pool[0]))
    strange = {query.query: replace(record, beams=(moved,))}
    with pytest.raises(ValueError, match=rf"query {query.query}: id_list: shots \[{gone}\]"):
        propose(job(strange), other)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temps": [1.0, 0.0]}, "rl_data.temps"),
        ({"num_random": -1}, "rl_data.num_random=-1"),
        ({"start": 4, "end": 4}, "rl_data.end=4"),
        ({"sample_num": 0}, "rl_data.sample_num=0"),
        (
            {"num_beams": 1, "temps": [], "num_random": 0, "num_retrieval": 0},
            "candidates a query",
        ),
    ],
)
def test_settings_out_of_range(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RlDataConfig(**changes)
