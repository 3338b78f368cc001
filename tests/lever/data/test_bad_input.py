"""Bad data: each kind is an error that names the query and the field."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lever.candidates.beams import BeamRecord, check_embedded, read_beams
from lever.candidates.rl_records import read_candidates
from lever.features.slate_features import FeatureTable, SlateQuery
from lever.model_config import LeverModelConfig
from lever.policy.selectors import MetricSelector

POOL = [10, 11, 12, 13]
BEAM: dict[str, Any] = {
    "id_list": [[10, 11, 7], [12, 10, 7]],
    "score_list": [0.2, 0.1],
    "candidate_pool_ids": POOL,
}
CANDIDATE: dict[str, Any] = {
    "pointer": [0, 1],
    "gen_method": "random",
    "vqa_correct": True,
    "vqa_acc_score": 1.0,
}
RECORD: dict[str, Any] = {
    "candidate_pool_ids": POOL,
    "pointer_candidates": [CANDIDATE, {**CANDIDATE, "pointer": [2, 3]}],
}


def beams(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({"7": {**BEAM, **changes}}))
    read_beams(path)


def candidates(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({"7": {**RECORD, **changes}}))
    read_candidates(path)


def candidate(path: Path, **changes: Any) -> None:
    candidates(path, pointer_candidates=[{**CANDIDATE, **changes}])


def versioned(read: Callable[[Path], object], entry: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps({"_meta": {"version": 99}, "7": entry}))
    read(path)


def without_embedding(ids: range) -> None:
    check_embedded([BeamRecord(7, (), tuple(POOL))], ids)


def unseen(query: int, pool: tuple[int, ...]) -> None:
    model = MetricSelector(FeatureTable(torch.ones(12, 3)), LeverModelConfig())
    model.encode([SlateQuery(query, pool)])


CASES: dict[str, tuple[Callable[[Path], object], str]] = {
    "beam: shot outside the pool": (
        lambda path: beams(path, id_list=[[10, 99, 7], [12, 10, 7]]),
        r"query 7: id_list: shots \[99\] are outside",
    ),
    "candidate: shot outside the pool": (
        lambda path: candidate(path, pointer=[0, 4]),
        r"query 7.*pointer=\[0, 4\]: expected places from 0 to 3",
    ),
    "beams of unequal length": (
        lambda path: beams(path, id_list=[[10, 11, 7], [12, 7]]),
        r"query 7: id_list\[1\]",
    ),
    "more beams than scores": (
        lambda path: beams(path, score_list=[0.2]),
        r"query 7: score_list=\[0.2\]: expected 2 scores",
    ),
    "candidates of unequal length": (
        lambda path: candidates(
            path, pointer_candidates=[CANDIDATE, {**CANDIDATE, "pointer": [2]}]
        ),
        r"query 7.*pointer=\[2\]: expected 2 shots",
    ),
    "pool id without an embedding": (
        lambda _: without_embedding(range(13)),
        r"query 7: candidate_pool_ids: no embedding for ids \[13\]",
    ),
    "selector: pool id without an embedding": (
        lambda _: unseen(7, (3, 12)),
        r"query 7: pool: no embedding for ids \[12\]",
    ),
    "selector: query without an embedding": (
        lambda _: unseen(14, (3, 4)),
        r"query 14: query: no embedding for ids \[14\]",
    ),
    "beam: NaN score": (
        lambda path: beams(path, score_list=[0.2, math.nan]),
        r"query 7: score_list=\[0.2, nan\]: expected a list of finite numbers",
    ),
    "candidate: NaN score": (
        lambda path: candidate(path, vqa_acc_score=math.nan),
        r"query 7.*vqa_acc_score=nan: expected a finite number",
    ),
    "beams of another version": (
        lambda path: versioned(read_beams, BEAM, path),
        r"version=99: expected 1",
    ),
    "candidates of another version": (
        lambda path: versioned(read_candidates, RECORD, path),
        r"version=99: expected 5",
    ),
    "no beams": (
        lambda path: beams(path, id_list=[]),
        r"query 7: id_list=\[\]: expected a list that is not empty",
    ),
    "no candidates": (
        lambda path: candidates(path, pointer_candidates=[]),
        r"query 7: pointer_candidates=\[\]: expected a list that is not empty",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_names_query_and_field(name: str, tmp_path: Path) -> None:
    work, message = CASES[name]
    with pytest.raises(ValueError, match=message):
        work(tmp_path / "data.json")


def test_the_same_files_without_the_fault_are_read(tmp_path: Path) -> None:
    beams(tmp_path / "beams.json")
    candidates(tmp_path / "candidates.json")
    without_embedding(range(14))
    unseen(7, (3, 11))
