from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from lever.candidates.beams import write_records
from lever.candidates.rl_records import (
    Candidate,
    CandidateRecord,
    GenMethod,
    candidate_entry,
    read_candidates,
)

POOL = (30, 10, 40, 20)


def one(**changes: Any) -> dict[str, Any]:
    plain = {
        "pointer": [2, 1],
        "gen_method": "sample",
        "beam_rank": None,
        "beam_score": None,
        "logprob_score": -3.5,
        "temperature": 1.3,
        "vqa_pred_answer": "dog",
        "vqa_correct": 1,
        "vqa_acc_score": 0.6,
    }
    return {**plain, **changes}


def rl_file(folder: Path, *candidates: Any, pool: Any = POOL, **more: Any) -> Path:
    path = folder / "rl.json"
    entry: dict[str, Any] = {"pointer_candidates": list(candidates)}
    if pool is not None:
        entry["candidate_pool_ids"] = list(pool)
    path.write_text(json.dumps({"9": entry, **more}))
    return path


def read_one(path: Path, **options: Any) -> Candidate:
    (record,) = read_candidates(path, **options)
    assert (record.query, record.pool) == (9, POOL)
    return record.candidates[0]


def test_what_is_written_comes_back_with_global_ids_beside_it(tmp_path: Path) -> None:
    record = CandidateRecord(
        9,
        POOL,
        (
            Candidate((0, 1), GenMethod.beam, 0, 0.4, -1.0, None, "dog.", "dog", True, 0.9, 0.2),
            Candidate((1, 0), GenMethod.sample, temperature=1.0, vqa_acc_score=0.0),
            Candidate((2, 3), GenMethod.random, vqa_eval_mode="error"),
        ),
    )
    path = tmp_path / "rl.json"
    write_records(path, 5, {9: candidate_entry(record)}, {"answerer": "kernel"})
    assert read_candidates(path) == [record]
    written = json.loads(path.read_text())
    assert written["_meta"] == {"answerer": "kernel", "version": 5}
    assert written["9"]["pointer_candidates"][0]["pointer_global"] == [30, 10]


def test_the_layout_of_the_source_is_read(tmp_path: Path) -> None:
    expected = Candidate(
        (2, 1),
        GenMethod.sample,
        logprob_score=-3.5,
        temperature=1.3,
        vqa_pred_answer="dog",
        vqa_correct=True,
        vqa_acc_score=0.6,
    )
    assert read_one(rl_file(tmp_path, one())) == expected
    assert read_one(rl_file(tmp_path, one(), pool=None), pools={9: POOL}) == expected


@pytest.mark.parametrize("pointer_pos", [[2, 1], [40, 10]])
def test_older_files_with_global_pointers_become_places(
    tmp_path: Path, pointer_pos: list[int]
) -> None:
    older = rl_file(tmp_path, one(pointer=[40, 10], pointer_pos=pointer_pos))
    assert read_one(older).pointer == (2, 1)
    lone = rl_file(tmp_path, one(pointer=[40, 10]))
    assert read_one(lone, global_pointers=True).pointer == (2, 1)
    with pytest.raises(ValueError, match="places from 0 to 3; ids need global_pointers=True"):
        read_candidates(lone)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pointer": []}, "pointer=.*not empty"),
        ({"pointer": [1, 1]}, "pointer=.*different shots"),
        ({"pointer": [1, 4]}, "pointer=.*places from 0 to 3"),
        ({"pointer": [-1, 0]}, "pointer=.*places from 0 to 3"),
        ({"pointer": [1.0, 0]}, "pointer=.*whole numbers"),
        ({"pointer_global": [10, 40]}, r"pointer_global=.*expected \[40, 10\]"),
        ({"pointer": [40, 77], "pointer_pos": [2, 1]}, r"pointer: shots \[77\] are outside"),
        ({"gen_method": "guess"}, "gen_method='guess': expected one of"),
        ({"beam_rank": 0}, "beam_rank=0: expected null, for this is no beam"),
        ({"gen_method": "beam", "temperature": None}, "beam_rank=None: expected a number"),
        ({"gen_method": "random"}, "temperature=1.3: expected null, for this is no sample"),
        ({"temperature": None}, "temperature=None: expected above 0"),
        ({"temperature": 0}, "temperature=0: expected above 0"),
        ({"logprob_score": math.nan}, "logprob_score=nan: expected a finite number"),
        ({"vqa_acc_score": math.nan}, "vqa_acc_score=nan: expected a finite number"),
        ({"vqa_acc_score": 1.2}, "vqa_acc_score=1.2: expected a number from 0 to 1"),
        ({"vqa_acc_score": None}, "vqa_acc_score=None: .*null only where judging failed"),
        ({"vqa_correct": 2}, "vqa_correct=2: expected true or false"),
        ({"vqa_eval_mode": "hope"}, "vqa_eval_mode='hope': expected one of"),
    ],
)
def test_a_bad_candidate_is_an_error_with_query_and_field(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=rf"query 9, pointer_candidates\[0\]: {message}"):
        read_candidates(rl_file(tmp_path, one(**changes)))


def test_groups_are_not_empty_of_one_length_and_without_repeats(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"query 9: pointer_candidates=\[\]: .*not empty"):
        read_candidates(rl_file(tmp_path))
    with pytest.raises(ValueError, match=r"candidates\[1\]: pointer=\[1\]: expected 2 shots"):
        read_candidates(rl_file(tmp_path, one(), one(pointer=[1])))
    with pytest.raises(ValueError, match=r"candidates\[1\]: pointer: repeats .*candidates\[0\]"):
        read_candidates(rl_file(tmp_path, one(), one(gen_method="random", temperature=None)))
    with pytest.raises(ValueError, match="query 9: candidate_pool_ids=None: expected the query's"):
        read_candidates(rl_file(tmp_path, one(), pool=None))


@pytest.mark.parametrize(
    "method",
    [
        "aug_diverse",
        "aug_pos_topL_L8",
        "sft_beam_beam",
        "sft_temp_1.3",
        "aug_swap",
        "aug_neg_bottom_B8",
        "aug_neg_mix_L8_B8",
        "global_search",
        "mined_from_old",
    ],
)
def test_the_methods_of_the_earlier_programs_are_other(tmp_path: Path, method: str) -> None:
    path = rl_file(tmp_path, one(gen_method=method, temperature=None), _meta={"version": "k64"})
    assert read_one(path).gen_method is GenMethod.other
    scored = rl_file(tmp_path, one(gen_method=method, beam_score=0.2))
    assert read_one(scored).beam_score == 0.2


@pytest.mark.parametrize("method", ["beam", "sample"])
def test_mined_candidates_have_a_rule_of_their_own_and_lost_fields(
    tmp_path: Path, method: str
) -> None:
    """A substring counted as a match: `simple_match` is neither of our two rules."""
    lost = {"beam_rank": None, "temperature": None, "vqa_eval_mode": "simple_match"}
    found = read_one(rl_file(tmp_path, one(gen_method=method, **lost)))
    assert (found.gen_method.value, found.vqa_eval_mode) == (method, "simple_match")


def test_a_failed_evaluation_is_no_zero(tmp_path: Path) -> None:
    failed = one(vqa_acc_score=0.0, vqa_eval_mode="fallback", eval_failed=True)
    assert read_one(rl_file(tmp_path, failed)).vqa_eval_mode == "error"
    judged = one(vqa_eval_mode="val", eval_failed=False)
    assert read_one(rl_file(tmp_path, judged)).vqa_eval_mode == "vqaEval"


def test_another_version_is_an_error(tmp_path: Path) -> None:
    path = rl_file(tmp_path, one(), _meta={"version": 6})
    with pytest.raises(ValueError, match="_meta: version=6: expected 5"):
        read_candidates(path)
    read_candidates(rl_file(tmp_path, one(), _meta={"vqa_model": "any"}))
