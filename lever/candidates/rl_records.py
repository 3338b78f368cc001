"""RL data: for each query its pool and the demonstration sets that were tried, with their scores.

    {"_meta": {"version": 5, ..},
     "<query>": {"candidate_pool_ids": [..],
                 "pointer_candidates": [{"pointer": [..], "gen_method": "beam", ..}, ..]}}

`pointer` holds places in the pool, in prompt order.  Earlier layouts disagree about that, so a file
is read by what it shows:

* `pointer_global` beside `pointer`: places; the two must agree;
* `pointer_pos` beside `pointer`: `pointer` holds global ids (`pointer_pos` held places in some
  files and global ids in others; it is not read);
* `pointer` alone: places, unless the caller says `global_pointers=True`.

Files without `candidate_pool_ids` need the pools from the caller.  Nothing is guessed: a pointer
that does not fit its pool is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from core_rl.files import write_json
from lever.candidates.beams import (
    META,
    POOL,
    check_version,
    pointers,
    queries_of,
    query_of,
    read_pool,
)
from lever.data.strict_json import Row, load_json
from lever.generation_config import Matching

VERSION = 5
OFFICIAL = "vqaEval"
# How each rule is named in a file; the other names are of substitutes.
EVAL_NAMES = {Matching.official: OFFICIAL, Matching.simple: "simple"}
EVAL_MODES = (*EVAL_NAMES.values(), "fallback", "error")


class GenMethod(Enum):
    """What proposed a candidate."""

    beam = "beam"
    sample = "sample"
    random = "random"
    retrieval = "retrieval"


@dataclass(frozen=True)
class Candidate:
    """A demonstration set that was tried.

    Attributes:
        pointer: places in the pool, in prompt order.
        gen_method: what proposed it.
        beam_rank: from 0, of beams only.
        beam_score: of beams only.
        logprob_score: log-probability under the selector that the data was made with, at the
            temperature of a sample and at 1 of the others.
        temperature: of samples only.
        vqa_raw_generation: what the answerer wrote.
        vqa_pred_answer: the answer cut out of it.
        vqa_correct: whether any annotator agrees.
        vqa_acc_score: accuracy in [0, 1]; None where it could not be judged.
        vqa_gt_prob: probability of the reference answer, in [0, 1], where it was asked for.
        vqa_rel_score: textual likeness to the reference, in [0, 1], where it was asked for.
        vqa_eval_mode: rule behind the accuracy; one of `EVAL_MODES`.
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
    """A query, its pool (global ids) and the candidates tried: at least one, no two alike."""

    query: int
    pool: tuple[int, ...]
    candidates: tuple[Candidate, ...]


def read_candidates(
    path: str | Path,
    pools: Mapping[int, Sequence[int]] | None = None,
    global_pointers: bool = False,
) -> list[CandidateRecord]:
    """Read RL data of the present layout or of an earlier one.

    Args:
        path: the file.
        pools: query -> pool, for files that hold none; one that differs from the file's is an
            error.
        global_pointers: a lone `pointer` holds global ids, not places.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: a record breaks a rule of the layout; the message names query and field.
    """
    path = Path(path)
    whole = Row(str(path), load_json(path, "an RL data JSON file"))
    check_version(whole, VERSION)
    return [_record(path, key, whole, pools or {}, global_pointers) for key in queries_of(whole)]


def write_candidates(
    path: str | Path, records: Iterable[CandidateRecord], meta: Mapping[str, Any] | None = None
) -> None:
    """Write RL data whole or not at all; `meta` may say how it was made."""
    document: dict[str, Any] = {META: {**(meta or {}), "version": VERSION}}
    for record in records:
        document[str(record.query)] = candidate_entry(record)
    write_json(Path(path), document)


def candidate_entry(record: CandidateRecord) -> dict[str, Any]:
    """Write one record as it stands in a file."""
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
    path: Path,
    key: str,
    whole: Row,
    pools: Mapping[int, Sequence[int]],
    global_pointers: bool,
) -> CandidateRecord:
    query = query_of(path, key)
    row = whole.row(key, f"{path}: query {key}")
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
    methods = [method.value for method in GenMethod]
    if row.text("gen_method") not in methods:
        raise row.wrong("gen_method", f"one of {methods}")
    candidate = Candidate(
        pointer=_pointer(row, pool, global_pointers),
        gen_method=GenMethod(row.text("gen_method")),
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
        vqa_eval_mode=row.text("vqa_eval_mode", default=OFFICIAL),
    )
    _check_method(row, candidate)
    return candidate


def _check_method(row: Row, candidate: Candidate) -> None:
    """A beam has a rank and a score, a sample a temperature, and no other has."""
    beam = candidate.gen_method is GenMethod.beam
    for name in ("beam_rank", "beam_score"):
        if row.has(name) != beam:
            raise row.wrong(name, "a number" if beam else "null, for this is no beam")
    sample = candidate.gen_method is GenMethod.sample
    if row.has("temperature") != sample or (sample and not row.number("temperature") > 0):
        raise row.wrong("temperature", "above 0" if sample else "null, for this is no sample")
    if candidate.vqa_eval_mode not in EVAL_MODES:
        raise row.wrong("vqa_eval_mode", f"one of {list(EVAL_MODES)}")
    if candidate.vqa_acc_score is None and candidate.vqa_eval_mode != "error":
        raise row.wrong("vqa_acc_score", "a number from 0 to 1; null only where judging failed")


def _pointer(row: Row, pool: Sequence[int], global_pointers: bool) -> tuple[int, ...]:
    """Read a pointer as places in the pool, whichever of the layouts it is in."""
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
