"""Beam data: for each query its best sets of demonstrations by score, in the published layout.

    {"<query>": {"id_list": [[shot, .., shot, query], ..], "score_list": [.., ..],
                 "shot_scores": [[.., ..], ..], "candidate_pool_ids": [..]}}

Ids are rows of the training set.  The last id of a list is the query; the others are its
demonstrations in PROMPT order, the last one nearest to the question.  With `construct_order: left`
each new demonstration is put first, so the first id was chosen last.  Pointers made from a file
keep the prompt order.

`shot_scores`, `beams`, `few_shot_num` and `candidate_pool_ids` are optional.  Published files have
no pool.  Files written here have one, and `_meta` with a version.

`beams` of published files hold each shot's id and score in the order of ADDING, and `shot_scores`
beside them the same scores.  With `construct_order: left` that is the reverse of the prompt order;
the ids tell which it is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core_rl.files import write_json
from lever.data.strict_json import Row, integers, load_json, numbers

VERSION = 1
META = "_meta"
POOL = "candidate_pool_ids"


@dataclass(frozen=True)
class Beam:
    """One ordered set of demonstrations.

    Attributes:
        shots: global ids in prompt order.
        score: of the whole set; higher is better.
        shot_scores: gain of each shot, in the same order; empty if unknown.
    """

    shots: tuple[int, ...]
    score: float
    shot_scores: tuple[float, ...] = ()


@dataclass(frozen=True)
class BeamRecord:
    """A query with its beams.

    Attributes:
        query: global id.
        beams: at least one, all with the same number of shots.
        pool: global ids of the candidates the beams were chosen from; empty in published files.
    """

    query: int
    beams: tuple[Beam, ...]
    pool: tuple[int, ...] = ()


def read_beams(
    path: str | Path, pools: Mapping[int, Sequence[int]] | None = None
) -> list[BeamRecord]:
    """Read a beam file.

    Args:
        path: the file.
        pools: query -> pool, for files without pools; a pool that differs from the file's own is
            an error.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: a record breaks a rule of the layout; the message names query and field.
    """
    rows = records_of(Path(path), "a beam JSON file", VERSION)
    return [_record(query, row, pools or {}) for query, row in rows]


def write_records(
    path: Path, version: int, entries: Mapping[int, Any], meta: Mapping[str, Any]
) -> None:
    """Write a file that holds an entry for each query; `meta` says how it was made."""
    head = {META: {"version": version, **meta}}
    write_json(path, head | {str(query): entry for query, entry in entries.items()})


def beam_entry(record: BeamRecord) -> dict[str, Any]:
    """Return one record as a file holds it."""
    entry: dict[str, Any] = {
        "id_list": [[*beam.shots, record.query] for beam in record.beams],
        "score_list": [beam.score for beam in record.beams],
        "few_shot_num": len(record.beams[0].shots),
    }
    if all(beam.shot_scores for beam in record.beams):
        entry["shot_scores"] = [list(beam.shot_scores) for beam in record.beams]
    if record.pool:
        entry[POOL] = list(record.pool)
    return entry


def pointers(where: str, shots: Sequence[int], pool: Sequence[int]) -> tuple[int, ...]:
    """Look up the places of global ids in the pool.

    Raises:
        ValueError: a shot is outside the pool.
    """
    places = {shot: place for place, shot in enumerate(pool)}
    outside = [shot for shot in shots if shot not in places]
    if outside:
        raise ValueError(
            f"{where}: shots {outside} are outside the query's pool of {len(pool)}: expected the "
            "pool that the data was generated from"
        )
    return tuple(places[shot] for shot in shots)


def check_embedded(records: Iterable[BeamRecord], embedded: Collection[int]) -> None:
    """Raise ValueError unless every query, shot and pool id is in `embedded`."""
    for record in records:
        shots = (shot for beam in record.beams for shot in beam.shots)
        for field, ids in (("query", (record.query,)), ("id_list", shots), (POOL, record.pool)):
            missing = [key for key in ids if key not in embedded]
            if missing:
                raise ValueError(
                    f"query {record.query}: {field}: no embedding for ids {missing[:5]}: encode "
                    f"the data set these ids are rows of (there are {len(embedded)} embeddings)"
                )


def records_of(path: Path, what: str, version: int) -> Iterator[tuple[int, Row]]:
    """Read a file that holds a record for each query; `what` is its kind, for messages.

    Published files name no version.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: it has another version or no query, or a key is not a whole number.
    """
    whole = Row(str(path), load_json(path, what))
    if whole.has(META) and whole.row(META).has("version"):
        meta = whole.row(META)
        # The earlier programs wrote a word ("k64"): no version of this layout.
        if not meta.is_text("version") and meta.integer("version") != version:
            raise meta.wrong("version", f"{version}; generate the file again")
    keys = [key for key in whole.names if key != META]
    if not keys:
        raise ValueError(f"{path}: no query in it; expected a record for at least one")
    for key in keys:
        if not key.removeprefix("-").isdecimal():
            raise ValueError(f"{path}: query {key!r}: expected a whole number as key")
        yield int(key), whole.row(key, f"{path}: query {key}")


def read_pool(row: Row, query: int, pools: Mapping[int, Sequence[int]]) -> tuple[int, ...]:
    """Return the record's own pool, or the one given for it; empty if there is neither.

    Raises:
        ValueError: ids occur twice, the query is in its own pool, or the two pools differ.
    """
    given = tuple(pools.get(query, ()))
    pool = row.integers(POOL) if row.has(POOL) else given
    if len(set(pool)) < len(pool):
        raise ValueError(f"{row.where}: {POOL}: ids occur twice; expected {len(pool)} different")
    if query in pool:
        raise ValueError(f"{row.where}: {POOL}: the query is among its own demonstrations")
    if given and given != pool:
        raise ValueError(
            f"{row.where}: {POOL}: differs from the pool given for this query: a query keeps one "
            "pool, in one order, from generation to inference"
        )
    return pool


def _record(query: int, row: Row, pools: Mapping[int, Sequence[int]]) -> BeamRecord:
    shots = _shots(row, query)
    scores = row.numbers("score_list")
    if len(scores) != len(shots):
        raise row.wrong("score_list", f"{len(shots)} scores, one for each entry of id_list")
    pool = read_pool(row, query, pools)
    if pool:
        for ids in shots:
            pointers(f"{row.where}: id_list", ids, pool)
    beams = map(Beam, shots, scores, _shot_scores(row, shots))
    return BeamRecord(query, tuple(beams), pool)


def _shots(row: Row, query: int) -> list[tuple[int, ...]]:
    lists = [
        integers(row.where, f"id_list[{i}]", ids) for i, ids in enumerate(row.items("id_list"))
    ]
    for i, ids in enumerate(lists):
        where = f"{row.where}: id_list[{i}]={list(ids)}"
        if len(ids) < 2 or len(ids) != len(lists[0]):
            raise ValueError(f"{where}: expected shots and the query, as many in every list")
        if ids[-1] != query:
            raise ValueError(f"{where}: expected the query, {query}, as last id")
        if len(set(ids)) < len(ids):
            raise ValueError(f"{where}: expected different ids")
    if row.has("few_shot_num") and row.integer("few_shot_num") != len(lists[0]) - 1:
        raise row.wrong("few_shot_num", f"{len(lists[0]) - 1}, as in id_list")
    return [ids[:-1] for ids in lists]


def _shot_scores(row: Row, shots: Sequence[tuple[int, ...]]) -> list[tuple[float, ...]]:
    """Read the gain of each shot in prompt order, from `beams` or `shot_scores`.

    An empty list is a beam whose scores were not kept.
    """
    if row.has("beams"):
        pairs = zip(row.rows("beams"), shots, strict=False)
        scores = [_added_scores(beam, ids) for beam, ids in pairs]
    elif row.has("shot_scores"):
        lists = enumerate(row.items("shot_scores"))
        scores = [numbers(row.where, f"shot_scores[{i}]", values) for i, values in lists]
    else:
        return [()] * len(shots)
    wrong = [len(one) not in (0, len(ids)) for one, ids in zip(scores, shots, strict=False)]
    if len(scores) != len(shots) or any(wrong):
        raise ValueError(
            f"{row.where}: shot_scores: {[len(values) for values in scores]} scores: expected one "
            f"for each shot of id_list, {[len(ids) for ids in shots]}"
        )
    return scores


def _added_scores(beam: Row, ids: tuple[int, ...]) -> tuple[float, ...]:
    """Bring the scores of a beam's shots, which stand in the order of adding, in prompt order."""
    shots = beam.rows("shots") if beam.has("shots") and not beam.is_empty("shots") else []
    if not shots:
        return ()
    found = {shot.integer("id"): shot.number("score") for shot in shots}
    if tuple(found) not in (ids, ids[::-1]) or len(found) < len(shots):
        raise beam.wrong("shots", f"the ids {list(ids)} of id_list, or these in reverse")
    return tuple(found[key] for key in ids)
