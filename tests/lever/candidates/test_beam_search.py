"""Beam search for demonstrations: the right sign, the right sum, the right order, shards."""

from __future__ import annotations

import itertools
import json
import math
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from core_rl.config import PathsConfig
from lever.answerers.cache import CachedAnswerer
from lever.answerers.protocol import KernelICLAnswerer
from lever.candidates.beam_search import chosen_queries, generate_beams, search_beams
from lever.candidates.beams import read_beams
from lever.config import LeverDataConfig
from lever.data.datasets import LeverData, Prompted, load_data
from lever.features.slate_features import SlateQuery
from lever.generation_config import BeamConfig, ConstructOrder, Split
from tests.lever.counting import Noting, Scripted
from tests.lever.worlds import SMALL
from tests.limits import HUNG

QUERY = SlateQuery(99, (10, 11, 12, 13))
# What each demonstration adds when it is alone, and a bonus of a pair in one order.
GAIN = {10: 0.5, 11: -2.0, 12: 0.2, 13: 0.1}
PAIR = {(13, 12): 1.0}


def scripted(_: int, shots: tuple[int, ...]) -> float:
    return -3.0 + sum(GAIN[shot] for shot in shots) + PAIR.get(shots[-2:], 0.0)


def small_data() -> LeverData:
    return load_data(LeverDataConfig(world=SMALL, candidate_num=12), PathsConfig(), 0)


def test_the_best_sets_are_found_with_cumulative_scores() -> None:
    record = search_beams(Scripted(scripted), QUERY, "yes", BeamConfig(beam_size=4))
    best = sorted(
        ((scripted(99, pair) + 3.0, pair) for pair in itertools.permutations(QUERY.pool, 2)),
        reverse=True,
    )
    assert record.beams[0].shots == (13, 12)
    assert [beam.score for beam in record.beams] == pytest.approx([score for score, _ in best[:4]])
    for beam in record.beams:
        assert beam.score == pytest.approx(scripted(99, beam.shots) - scripted(99, ()))
        assert beam.score == pytest.approx(sum(beam.shot_scores))
    assert record.pool == QUERY.pool


@pytest.mark.parametrize("few_shot", [1, 2, 3, 4])
@pytest.mark.parametrize("order", list(ConstructOrder))
def test_shot_scores_stand_beside_their_shots(few_shot: int, order: ConstructOrder) -> None:
    config = BeamConfig(few_shot=few_shot, construct_order=order)
    for beam in search_beams(Scripted(scripted), QUERY, "yes", config).beams:
        assert len(beam.shots) == len(set(beam.shots)) == few_shot
        # Undo the construction: take away what was added last, and see what it had added.
        shots, gains = list(beam.shots), list(beam.shot_scores)
        while shots:
            last = 0 if order is ConstructOrder.left else -1
            whole = scripted(99, tuple(shots))
            shots.pop(last)
            assert gains.pop(last) == pytest.approx(whole - scripted(99, tuple(shots)))


def test_the_order_of_construction_limits_what_is_found() -> None:
    """With one beam: the best single is kept, and the next goes to its left or to its right."""

    def order_matters(_: int, shots: tuple[int, ...]) -> float:
        return (10 in shots) + {(10, 12): 0.5, (13, 10): 0.7}.get(shots, 0.0)

    for order, best in ((ConstructOrder.right, (10, 12)), (ConstructOrder.left, (13, 10))):
        config = BeamConfig(beam_size=1, construct_order=order)
        [beam] = search_beams(Scripted(order_matters), QUERY, "yes", config).beams
        assert beam.shots == best


def test_a_score_that_is_no_number_names_query_and_shots() -> None:
    def overflows(_: int, shots: tuple[int, ...]) -> float:
        return math.nan if shots == (12,) else -1.0

    with pytest.raises(ValueError, match=r"query 99: InfoScore of shots \[12\] is nan"):
        search_beams(Scripted(overflows), QUERY, "yes", BeamConfig())


def test_a_pool_smaller_than_a_set_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"query 99: pool of 4.*few_shot=5"):
        search_beams(Scripted(scripted), QUERY, "yes", BeamConfig(few_shot=5))


def test_the_file_is_read_back_and_holds_true_scores(tmp_path: Path) -> None:
    data = small_data()
    answerer = KernelICLAnswerer(data.world)  # type: ignore[arg-type]
    path = generate_beams(data, answerer, BeamConfig(beam_size=3), tmp_path, seed=0)
    assert path is not None and ":" not in path.name
    records = read_beams(path, data.pools)
    assert [record.query for record in records] == [one.query for one in data.train]
    for record in records:
        answer = data.references[record.query]
        prompts = [Prompted(record.query, beam.shots) for beam in record.beams]
        [alone] = answerer.answer_logprob([Prompted(record.query)], [answer])
        logp = answerer.answer_logprob(prompts, [answer] * 3)
        assert [beam.score for beam in record.beams] == pytest.approx([x - alone for x in logp])
    meta = json.loads(path.read_text())["_meta"]
    assert meta["construct_order"] == "left" and meta["answerer"] == answerer.fingerprint


def test_shards_make_the_file_of_one_run(tmp_path: Path) -> None:
    data = small_data()
    answerer = KernelICLAnswerer(data.world)  # type: ignore[arg-type]
    config = BeamConfig(beam_size=2)
    whole = generate_beams(data, answerer, config, tmp_path / "whole", seed=0)
    half = replace(config, end=3)
    assert generate_beams(data, answerer, half, tmp_path / "parts", seed=0) is None
    joined = generate_beams(data, answerer, replace(config, start=3), tmp_path / "parts", seed=0)
    assert whole is not None and joined is not None
    assert joined.read_bytes() == whole.read_bytes()


def test_a_killed_run_goes_on_without_a_lost_or_doubled_call(tmp_path: Path) -> None:
    script = f"""
from pathlib import Path
from tests.lever.candidates.test_beam_search import *

folder = Path({str(tmp_path)!r})
data = small_data()
noting = Noting(KernelICLAnswerer(data.world), folder / "asked.txt", dies_at=150)
cached = CachedAnswerer(noting, folder / "answers.sqlite", batch_size=7)
generate_beams(data, cached, BeamConfig(beam_size=3), folder, seed=0)
"""
    root = Path(__file__).parents[3]
    ended = subprocess.run([sys.executable, "-c", script], cwd=root, timeout=HUNG, check=False)
    assert ended.returncode == -signal.SIGKILL
    data = small_data()
    noting = Noting(KernelICLAnswerer(data.world), tmp_path / "asked.txt")  # type: ignore[arg-type]
    before = len(noting.asked)
    assert before >= 150
    cached = CachedAnswerer(noting, tmp_path / "answers.sqlite", batch_size=7)
    path = generate_beams(data, cached, BeamConfig(beam_size=3), tmp_path, seed=0)
    plain = generate_beams(data, noting.answerer, BeamConfig(beam_size=3), tmp_path / "plain", 0)
    assert path is not None and plain is not None
    assert path.read_bytes() == plain.read_bytes()
    assert len(noting.asked) == len(set(noting.asked)) == 6 * (1 + 12 + 3 * 11)
    assert cached.calls == len(noting.asked) - before


def test_a_draw_of_queries_is_random_in_order_and_repeatable() -> None:
    data = small_data()
    drawn = chosen_queries(data, Split.train, 3, seed=1)
    assert drawn == chosen_queries(data, Split.train, 3, seed=1)
    ids = [one.query for one in drawn]
    assert ids == sorted(ids) and len(set(ids)) == 3
    assert {chosen_queries(data, Split.train, 3, seed) for seed in range(9)} != {drawn}
    assert chosen_queries(data, Split.val, None, 0) == data.val
    with pytest.raises(ValueError, match="sample_num=7"):
        chosen_queries(data, Split.train, 7, 0)
