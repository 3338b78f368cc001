"""Which part of which file becomes a source."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core_rl.config import OnBadRecord
from omni_rl.config import SourceConfig
from omni_rl.data.sources import choose, read_mix_yaml, read_source


@pytest.mark.parametrize(
    ("strategy", "count", "expected"),
    [
        ("all", 4, [0, 1, 2, 3]),
        ("first:2", 4, [0, 1]),
        ("end:2", 4, [2, 3]),
        ("first:50%", 5, [0, 1, 2]),  # half of five, rounded up
        ("end:50%", 5, [2, 3, 4]),
        ("end:100%", 3, [0, 1, 2]),
        ("first:0.1%", 3, [0]),
        ("first:7%", 100, [0, 1, 2, 3, 4, 5, 6]),  # 7 * 100 / 100 may not round up to 8
        ("end:9", 3, [0, 1, 2]),
    ],
)
def test_strategies(strategy: str, count: int, expected: list[int]) -> None:
    assert choose(strategy, count) == expected


@given(percent=st.integers(1, 99), count=st.integers(1, 500))
def test_first_and_end_cover_everything(percent: int, count: int) -> None:
    first, end = choose(f"first:{percent}%", count), choose(f"end:{100 - percent}%", count)
    assert sorted({*first, *end}) == list(range(count))
    assert len(first) + len(end) - count in (0, 1)  # both round up


def test_random_follows_the_seed() -> None:
    drawn = choose("random:30%", 100, seed=1)
    assert drawn == choose("random:30%", 100, seed=1)
    assert drawn != choose("random:30%", 100, seed=2)
    assert len(set(drawn)) == 30
    assert drawn != sorted(drawn)


def test_asking_for_more_than_there_is_warns(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        choose("random:5", 3)
    assert "more than the 3 there are" in caplog.text


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ("start:50%", "expected one of all, first:N, .*; `start` is spelt `first`"),
        ("half", "expected one of all, first:N, first:P%, end:N"),
        ("first", "expected one of"),
        ("first:-1", "expected one of"),
        ("first:0", "above 0"),
        ("first:101%", "up to 100"),
        ("first:2.5", "whole number"),
        ("", "expected one of"),
    ],
)
def test_an_unknown_strategy_names_the_valid_ones(strategy: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"sampling_strategy='{strategy}': .*{message}"):
        choose(strategy, 10)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two files of ten records each, with their clips, and a YAML that takes half of each."""
    (tmp_path / "videos").mkdir()
    for name, id_key in (("emer", "id"), ("social", "problem_id")):
        rows = []
        for index in range(10):
            (tmp_path / "videos" / f"{name}{index}.mp4").write_bytes(b"")
            rows.append(
                {
                    id_key: index,
                    "problem": "?",
                    "problem_type": "judge",
                    "answer": "Yes",
                    "data_type": "video",
                    "path": f"{name}{index}.mp4",
                }
            )
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    write_yaml(tmp_path, ("emer.json", "end:50%"), ("social.json", "first:50%"))
    return tmp_path


def write_yaml(folder: Path, *entries: tuple[str, str]) -> None:
    lines = ["datasets:"]
    for path, strategy in entries:
        lines += [
            f"  - json_path: {path}",
            "    data_root: videos",
            f"    sampling_strategy: {strategy}",
        ]
    (folder / "mix.yaml").write_text("\n".join(lines))


def test_the_published_yaml(data: Path) -> None:
    records = read_mix_yaml(data / "mix.yaml").records
    assert [record.id for record in records] == [
        *(f"emer/{index}" for index in range(5, 10)),
        *(f"social/{index}" for index in range(5)),
    ]
    assert [record.source for record in records] == ["emer"] * 5 + ["social"] * 5
    assert records[0].videos == (data / "videos" / "emer5.mp4",)


def test_only_chosen_records_need_their_media(data: Path) -> None:
    (data / "videos" / "emer0.mp4").unlink()
    assert len(read_mix_yaml(data / "mix.yaml").records) == 10
    (data / "videos" / "emer9.mp4").unlink()
    with pytest.raises(FileNotFoundError, match=r"emer\.json#9"):
        read_mix_yaml(data / "mix.yaml")
    reading = read_mix_yaml(data / "mix.yaml", on_bad_record=OnBadRecord.skip)
    assert (len(reading.records), len(reading.skipped)) == (9, 1)


def test_a_source_from_yaml_or_json(data: Path) -> None:
    mixed = read_source("people", SourceConfig("mix.yaml", sampling="end:6"), data)
    assert [record.id for record in mixed.records][:2] == ["emer/9", "social/0"]
    assert {record.source for record in mixed.records} == {"people"}
    plain = read_source("people", SourceConfig("emer.json", "videos", "random:3"), data, seed=4)
    again = read_source("people", SourceConfig("emer.json", "videos", "random:3"), data, seed=4)
    assert plain == again
    assert len(plain.records) == 3


def test_paths_may_be_relative_to_where_the_command_was_typed(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data)
    assert len(read_source("e", SourceConfig("emer.json", "videos")).records) == 10
    (data / "conf").mkdir()
    (data / "mix.yaml").rename(data / "conf" / "mix.yaml")
    assert len(read_mix_yaml("conf/mix.yaml").records) == 10


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("datasets: []", "expected `datasets:`"),
        ("- emer.json", "expected `datasets:`"),
        ("datasets: [{data_root: videos}]", r"datasets\[0\] = .* needs a json_path"),
        ("datasets: [{json_path: emer.json, sampling: all}]", r"datasets\[0\] has \['sampling'\]"),
        ("datasets: [", "not YAML"),
        (
            "datasets: [{json_path: emer.json, data_root: videos, sampling_strategy: 'start:50%'}]",
            r"mix\.yaml: sampling_strategy='start:50%'",
        ),
        (
            "datasets: [{json_path: emer.json, data_root: videos, sampling_strategy: 'first:2'},"
            " {json_path: emer.json, data_root: videos, sampling_strategy: 'end:9'}]",
            r"emer/1.*two entries overlap",
        ),
    ],
)
def test_a_bad_yaml_is_named(data: Path, content: str, message: str) -> None:
    (data / "mix.yaml").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_mix_yaml(data / "mix.yaml")


def test_a_missing_yaml_or_json_is_named(data: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.yaml: no such data YAML"):
        read_source("x", SourceConfig("gone.yaml"), data)
    write_yaml(data, ("gone.json", "all"))
    with pytest.raises(FileNotFoundError, match=r"gone\.json: no such file of records"):
        read_mix_yaml(data / "mix.yaml")
