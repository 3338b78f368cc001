from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from lever.candidates.beams import (
    Beam,
    BeamRecord,
    beam_entry,
    check_embedded,
    pointers,
    read_beams,
    write_records,
)


def beam_file(folder: Path, entry: Any, key: str = "9", **more: Any) -> Path:
    path = folder / "beams.json"
    path.write_text(json.dumps({key: entry, **more}))
    return path


def entry(**changes: Any) -> dict[str, Any]:
    plain = {"id_list": [[5, 2, 9], [4, 5, 9]], "score_list": [0.046, 0.045]}
    return {**plain, **changes}


def test_a_published_file_is_read_in_prompt_order(tmp_path: Path) -> None:
    path = beam_file(tmp_path, {"id_list": [[7232, 2229, 8211]], "score_list": [0.046]}, "8211")
    assert read_beams(path) == [BeamRecord(8211, (Beam((7232, 2229), 0.046),))]


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    records = [
        BeamRecord(9, (Beam((5, 2), 0.5, (0.2, 0.3)), Beam((4, 5), -1.0, (0.1, -1.1))), (2, 4, 5)),
        BeamRecord(3, (Beam((1,), 0.0),)),
    ]
    path = tmp_path / "new" / "beams.json"
    entries = {one.query: beam_entry(one) for one in records}
    write_records(path, 1, entries, {"scorer": "infoscore"})
    assert read_beams(path) == records
    assert json.loads(path.read_text())["_meta"] == {"scorer": "infoscore", "version": 1}
    assert [file.name for file in path.parent.iterdir()] == ["beams.json"]


def test_scores_of_shots_are_read_from_either_older_layout(tmp_path: Path) -> None:
    spelt = [
        {"shots": [{"id": 5, "score": 0.1}, {"id": 2, "score": 0.2}]},
        {"shots": [{"id": 4, "score": 0.3}, {"id": 5, "score": 0.4}]},
    ]
    (record,) = read_beams(beam_file(tmp_path, entry(beams=spelt)))
    assert [beam.shot_scores for beam in record.beams] == [(0.1, 0.2), (0.3, 0.4)]
    (same,) = read_beams(beam_file(tmp_path, entry(shot_scores=[[0.1, 0.2], [0.3, 0.4]])))
    assert same == record


def test_published_beams_in_the_order_of_adding_are_brought_in_prompt_order(tmp_path: Path) -> None:
    """`construct_order: left` puts the newest first; scores stand in the order of adding."""
    added = [
        {"shots": [{"id": 2, "score": 0.2}, {"id": 5, "score": 0.1}], "final_score": 0.1},
        {"shots": []},
    ]
    path = beam_file(tmp_path, entry(beams=added, shot_scores=[[0.2, 0.1], []]))
    (record,) = read_beams(path)
    assert record.beams == (Beam((5, 2), 0.046, (0.1, 0.2)), Beam((4, 5), 0.045))
    assert "shot_scores" not in beam_entry(record)


def test_a_word_as_version_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    path = beam_file(tmp_path, entry(), _meta={"version": "k64"})
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert [record.query for record in read_beams(path)] == [9]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id_list": []}, r"id_list=\[\]: expected a list that is not empty"),
        ({"id_list": None}, "id_list=None: expected a list"),
        ({"id_list": [[5, "2", 9]]}, r"id_list\[0\]=.*expected a list of whole numbers"),
        ({"id_list": [[5, 2, 9], [5, 9]]}, r"id_list\[1\]=\[5, 9\]: expected shots and the query"),
        ({"id_list": [[9], [9]]}, r"id_list\[0\]=\[9\]: expected shots and the query"),
        ({"id_list": [[9, 5, 2], [9, 4, 5]]}, r"id_list\[0\].*expected the query, 9, as last id"),
        ({"id_list": [[5, 5, 9], [4, 5, 9]]}, r"id_list\[0\].*expected different ids"),
        ({"score_list": [0.1]}, "score_list=.*expected 2 scores"),
        ({"score_list": [0.1, math.nan]}, "score_list=.*expected a list of finite numbers"),
        ({"score_list": [0.1, True]}, "score_list=.*expected a list of finite numbers"),
        ({"few_shot_num": 3}, "few_shot_num=3: expected 2"),
        ({"shot_scores": [[0.1], [0.2]]}, r"shot_scores: \[1, 1\] scores"),
        ({"shot_scores": [[0.1, 0.2]]}, r"shot_scores: \[2\] scores"),
        ({"shot_scores": [[0.1, 0.2], [0.1, math.inf]]}, r"shot_scores\[1\]=.*finite"),
        ({"beams": [{"shots": [{"id": 1, "score": 0}]}]}, r"beams\[0\]: shots=.*ids \[5, 2\]"),
        ({"candidate_pool_ids": [2, 5]}, r"id_list: shots \[4\] are outside the query's pool of 2"),
        ({"candidate_pool_ids": [2, 4, 5, 2]}, "candidate_pool_ids: ids occur twice"),
        ({"candidate_pool_ids": [2, 4, 5, 9]}, "candidate_pool_ids: the query is among its own"),
    ],
)
def test_a_bad_record_is_an_error_with_query_and_field(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=f"query 9.*{message}"):
        read_beams(beam_file(tmp_path, entry(**changes)))


def test_bad_files_and_keys(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="a beam JSON file"):
        read_beams(tmp_path / "none.json")
    with pytest.raises(ValueError, match="query 'nine': expected a whole number"):
        read_beams(beam_file(tmp_path, entry(), "nine"))
    with pytest.raises(ValueError, match="version=2: expected 1; generate the file again"):
        read_beams(beam_file(tmp_path, entry(), _meta={"version": 2}))
    path = tmp_path / "beams.json"
    path.write_text('{"_meta": {}}')
    with pytest.raises(ValueError, match="no query in it"):
        read_beams(path)
    path.write_text('{"9": {}, "9": {}}')
    with pytest.raises(ValueError, match="key '9' occurs twice"):
        read_beams(path)
    path.write_text("[]")
    with pytest.raises(ValueError, match="expected an object, got list"):
        read_beams(path)


def test_a_query_keeps_one_pool(tmp_path: Path) -> None:
    without = beam_file(tmp_path, entry())
    assert read_beams(without, {9: (2, 4, 5)})[0].pool == (2, 4, 5)
    own = beam_file(tmp_path, entry(candidate_pool_ids=[5, 4, 2]))
    assert read_beams(own, {9: (5, 4, 2)})[0].pool == (5, 4, 2)
    with pytest.raises(ValueError, match="differs from the pool given for this query"):
        read_beams(own, {9: (2, 4, 5)})


def test_pointers_are_looked_up_not_computed() -> None:
    assert pointers("query 9", (40, 10), (30, 10, 40)) == (2, 1)
    with pytest.raises(ValueError, match=r"query 9: shots \[7\] are outside the query's pool of 3"):
        pointers("query 9", (40, 7), (30, 10, 40))


def test_a_missing_embedding_names_query_field_and_id() -> None:
    record = BeamRecord(9, (Beam((5, 2), 0.5),), (2, 5, 11))
    check_embedded([record], range(12))
    with pytest.raises(ValueError, match=r"query 9: candidate_pool_ids: no embedding .*\[11\]"):
        check_embedded([record], range(11))
    with pytest.raises(ValueError, match=r"query 9: id_list: no embedding for ids \[5\]"):
        check_embedded([record], {2, 9, 11})
    with pytest.raises(ValueError, match=r"query 9: query: no embedding for ids \[9\]"):
        check_embedded([record], range(9))
