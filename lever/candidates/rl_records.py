"""RL data: for each query its pool and candidate sets of demonstrations, with their scores.

    {"_meta": {"version": 5, ..},
     "<query>": {"candidate_pool_ids": [..],
                 "pointer_candidates": [{"pointer": [..], "gen_method": "beam", ..}, ..]}}

`pointer` holds places in the pool, in prompt order.  Earlier layouts differ, so its meaning follows
from the fields beside it:

* with `pointer_global`: places; the two must agree;
* with `pointer_pos`: global ids (`pointer_pos` held places in some files and global ids in others;
  it is not read);
* alone: places, or global ids with `global_pointers=True`.

Files without `candidate_pool_ids` need the pools from the caller.  A pointer that does not fit its
pool is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from lever.candidates.beams import POOL, pointers, read_pool, records_of
from lever.data.strict_json import Row
from lever.generation_config import Matching

VERSION = 5
OFFICIAL = "vqaEval"
# The name of each rule in a file.  The other modes mark a substitute rule: not judged.
EVAL_NAMES = {Matching.official: OFFICIAL, Matching.simple: "simple"}
MINED = "simple_match"  # a substring counts as a match, and n matches as n / 3: a substitute rule
EVAL_MODES = (*EVAL_NAMES.values(), "fallback", "error", MINED)
# The earlier programs also wrote the split whose official file judged the answer.
OFFICIAL_SPLITS = ("train", "val")


class GenMethod(Enum):
    """The method that proposed a candidate."""

    beam = "beam"
    sample = "sample"
    random = "random"
    retrieval = "retrieval"
    other = "other"  # of the earlier programs' own: swaps, searches, mined positives


# The methods of earlier files that are read as `other`; the last three go on with a number.
OTHER_METHODS = re.compile(
    "other|aug_diverse|aug_swap|global_search|mined_from_old|sft_beam_.*|sft_temp_.*|"
    r"aug_pos_topL_L\d+|aug_neg_bottom_B\d+|aug_neg_mix_L\d+_B\d+"
)


@dataclass(frozen=True)
class Candidate:
    """A candidate set of demonstrations.

    Attributes:
        pointer: places in the pool, in prompt order.
        gen_method: the method that proposed it.
        beam_rank: from 0; beams only.
        beam_score: beams only.
        logprob_score: log-probability under the selector that made the data: of samples at their
            temperature, of the others at temperature 1.
        temperature: samples only.
        vqa_raw_generation: the answerer's text.
        vqa_pred_answer: the answer extracted from it.
        vqa_correct: whether any annotator agrees.
        vqa_acc_score: accuracy in [0, 1]; None if it could not be judged.
        vqa_gt_prob: probability of the reference answer, in [0, 1]; None if not computed.
        vqa_rel_score: word overlap with the reference, in [0, 1]; None if not computed.
        vqa_eval_mode: the rule of the accuracy; one of `EVAL_MODES`.
    """

    pointer: tuple[int, ...]
    gen_method: GenMethod
    beam_rank: int | None = None
    beam_score: float | None = None
    logprob_score: float | None = None
    temperature: float | None = None
    vqa_raw_generation: str = ""
    vqa_pred_answer: str = ""
    vqa_correct: bool = False
    vqa_acc_score: float | None = None
    vqa_gt_prob: float | None = None
    vqa_rel_score: float | None = None
    vqa_eval_mode: str = OFFICIAL


@dataclass(frozen=True)
class CandidateRecord:
    """A query with its candidates.

    Attributes:
        query: global id.
        pool: global ids.
        candidates: at least one, all different.
        times: how often each candidate was drawn, if all are independent draws of one policy with
            the log-probabilities `logprob_score`; else empty.  Files do not hold it.
    """

    query: int
    pool: tuple[int, ...]
    candidates: tuple[Candidate, ...]
    times: tuple[int, ...] = ()


def read_candidates(
    path: str | Path,
    pools: Mapping[int, Sequence[int]] | None = None,
    global_pointers: bool = False,
) -> list[CandidateRecord]:
    """Read RL data of the present layout or of an earlier one.

    Args:
        path: the file.
        pools: query -> pool, for files without pools; a pool that differs from the file's own is
            an error.
        global_pointers: a `pointer` alone holds global ids, not places.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: a record breaks a rule of the layout; the message names query and field.
    """
    rows = records_of(Path(path), "an RL data JSON file", VERSION)
    return [_record(query, row, pools or {}, global_pointers) for query, row in rows]


def candidate_entry(record: CandidateRecord) -> dict[str, Any]:
    """Return one record as a file holds it."""
    return {
        POOL: list(record.pool),
        "pointer_candidates": [
            {
                **asdict(one),
                "gen_method": one.gen_method.value,
                "pointer_global": [record.pool[place] for place in one.pointer],
            }
            for one in record.candidates
        ],
    }


def _record(
    query: int, row: Row, pools: Mapping[int, Sequence[int]], global_pointers: bool
) -> CandidateRecord:
    pool = read_pool(row, query, pools)
    if not pool:
        raise row.wrong(POOL, "the query's pool, or give it to the reader")
    rows = row.rows("pointer_candidates")
    candidates = tuple(_candidate(one, pool, global_pointers) for one in rows)
    _check_pointers(rows, candidates)
    return CandidateRecord(query, pool, candidates)


def _check_pointers(rows: Sequence[Row], candidates: Sequence[Candidate]) -> None:
    first: dict[tuple[int, ...], str] = {}
    for row, one in zip(rows, candidates, strict=True):
        if len(one.pointer) != len(candidates[0].pointer):
            raise row.wrong("pointer", f"{len(candidates[0].pointer)} shots, like the others")
        if one.pointer in first:
            raise ValueError(f"{row.where}: pointer: repeats that of {first[one.pointer]}")
        first[one.pointer] = row.where


def _candidate(row: Row, pool: Sequence[int], global_pointers: bool) -> Candidate:
    mode = row.text("vqa_eval_mode", default=OFFICIAL)
    if row.has("eval_failed") and row.flag("eval_failed"):
        mode = "error"
    candidate = Candidate(
        pointer=_pointer(row, pool, global_pointers),
        gen_method=_method(row),
        beam_rank=row.integer("beam_rank") if row.has("beam_rank") else None,
        beam_score=_optional(row, "beam_score"),
        logprob_score=_optional(row, "logprob_score"),
        temperature=_optional(row, "temperature"),
        vqa_raw_generation=row.text("vqa_raw_generation", default=""),
        vqa_pred_answer=row.text("vqa_pred_answer", default=""),
        vqa_correct=row.flag("vqa_correct"),
        vqa_acc_score=_share(row, "vqa_acc_score"),
        vqa_gt_prob=_share(row, "vqa_gt_prob"),
        vqa_rel_score=_share(row, "vqa_rel_score"),
        vqa_eval_mode=OFFICIAL if mode in OFFICIAL_SPLITS else mode,
    )
    _check_method(row, candidate)
    return candidate


def _method(row: Row) -> GenMethod:
    name = row.text("gen_method")
    if OTHER_METHODS.fullmatch(name):
        return GenMethod.other
    methods = [method.value for method in GenMethod]
    if name not in methods:
        raise row.wrong("gen_method", f"one of {methods}")
    return GenMethod(name)


def _check_method(row: Row, candidate: Candidate) -> None:
    """Check that only a beam has a rank and a score, and only a sample a temperature.

    `other` methods may have any of them, and mined candidates may have lost them.
    """
    beam, mined = candidate.gen_method is GenMethod.beam, candidate.vqa_eval_mode == MINED
    other = candidate.gen_method is GenMethod.other
    for name in ("beam_rank", "beam_score"):
        if row.has(name) != beam and not (other or (beam and mined)):
            raise row.wrong(name, "a number" if beam else "null, for this is no beam")
    sample = candidate.gen_method is GenMethod.sample
    if row.has("temperature") and not (row.number("temperature") > 0 and (sample or other)):
        raise row.wrong("temperature", "above 0" if sample else "null, for this is no sample")
    if sample and not mined and not row.has("temperature"):
        raise row.wrong("temperature", "above 0")
    if candidate.vqa_eval_mode not in EVAL_MODES:
        raise row.wrong("vqa_eval_mode", f"one of {list(EVAL_MODES)}")
    if candidate.vqa_acc_score is None and candidate.vqa_eval_mode != "error":
        raise row.wrong("vqa_acc_score", "a number from 0 to 1; null only where judging failed")


def _pointer(row: Row, pool: Sequence[int], global_pointers: bool) -> tuple[int, ...]:
    """Read a pointer as places in the pool, from any of the layouts."""
    written = row.integers("pointer")
    if len(set(written)) < len(written):
        raise row.wrong("pointer", "different shots")
    ids = global_pointers or (row.has("pointer_pos") and not row.has("pointer_global"))
    if ids:
        return pointers(f"{row.where}: pointer", written, pool)
    if not all(0 <= place < len(pool) for place in written):
        raise row.wrong(
            "pointer", f"places from 0 to {len(pool) - 1}; ids need global_pointers=True"
        )
    shots = tuple(pool[place] for place in written)
    if row.has("pointer_global") and row.integers("pointer_global") != shots:
        raise row.wrong("pointer_global", f"{list(shots)}, which is what pointer points at")
    return written


def _optional(row: Row, name: str) -> float | None:
    return row.number(name) if row.has(name) else None


def _share(row: Row, name: str) -> float | None:
    value = _optional(row, name)
    if value is not None and not 0 <= value <= 1:
        raise row.wrong(name, "a number from 0 to 1")
    return value
