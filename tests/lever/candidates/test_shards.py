"""Shards: killed, resumed, side by side."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from lever.candidates.shards import Json, fill_shard, read_shards
from tests.limits import HUNG

QUERIES = [30, 10, 20, 50, 40]


class Maker:
    """Makes records and notes for which queries."""

    def __init__(self, dies_after: int = 99) -> None:
        self.made: list[int] = []
        self.dies_after = dies_after

    def __call__(self, queries: Sequence[int]) -> Iterator[tuple[int, Json]]:
        for query in queries:
            if len(self.made) == self.dies_after:
                raise KeyboardInterrupt
            self.made.append(query)
            yield query, {"twice": 2 * query}


def test_all_at_once_in_the_order_of_the_queries(tmp_path: Path) -> None:
    records = fill_shard(tmp_path, QUERIES, 0, None, Maker())
    assert records == {query: {"twice": 2 * query} for query in QUERIES}
    assert records is not None and list(records) == QUERIES


def test_a_kill_loses_the_query_in_hand_and_no_other(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fill_shard(tmp_path, QUERIES, 0, None, Maker(dies_after=3))
    assert list(read_shards(tmp_path)) == QUERIES[:3]
    rest = Maker()
    assert fill_shard(tmp_path, QUERIES, 0, None, rest) is not None
    assert rest.made == QUERIES[3:]
    none = Maker()
    fill_shard(tmp_path, QUERIES, 0, None, none)
    assert none.made == []


def test_a_half_written_line_is_made_again(tmp_path: Path) -> None:
    fill_shard(tmp_path, QUERIES, 0, None, Maker())
    [path] = tmp_path.glob("*.jsonl")
    path.write_bytes(path.read_bytes()[:-5])
    again = Maker()
    assert fill_shard(tmp_path, QUERIES, 0, None, again) is not None
    assert again.made == QUERIES[-1:]
    assert path.read_text().count("\n") == len(QUERIES)


def test_the_last_shard_joins_them_all(tmp_path: Path) -> None:
    assert fill_shard(tmp_path, QUERIES, 2, 5, Maker()) is None
    records = fill_shard(tmp_path, QUERIES, 0, 2, Maker())
    assert records is not None and list(records) == QUERIES
    # Shards cut otherwise find what is there.
    none = Maker()
    assert fill_shard(tmp_path, QUERIES, 1, 4, none) == records
    assert none.made == []


@pytest.mark.parametrize(("start", "end"), [(-1, 2), (2, 2), (0, 6), (5, None)])
def test_a_shard_outside_the_queries_is_an_error(
    tmp_path: Path, start: int, end: int | None
) -> None:
    with pytest.raises(ValueError, match="within the 5 queries"):
        fill_shard(tmp_path, QUERIES, start, end, Maker())


@pytest.mark.parametrize("damage", ["cut", "nested", "another record"])
def test_a_damaged_line_is_named_and_its_record_made_again(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = fill_shard(tmp_path, QUERIES, 0, None, Maker())
    [path] = tmp_path.glob("*.jsonl")
    lines = path.read_text().splitlines(keepends=True)
    entry = json.loads(lines[1])
    changed = {
        "cut": "{]",
        "nested": "[" * 100_000,
        "another record": json.dumps({**entry, "record": {"other": 1}}),
    }
    path.write_text("".join([lines[0], changed[damage] + "\n", *lines[2:]]))
    assert entry["query"] not in read_shards(tmp_path)
    assert "line 2: damaged" in caplog.text
    again = Maker()
    assert fill_shard(tmp_path, QUERIES, 0, None, again) == whole
    assert again.made == [entry["query"]]


def test_two_that_make_one_shard_at_once_make_it_once(tmp_path: Path) -> None:
    """The second waits and reads what the first has made."""
    started, makers = threading.Event(), [Maker(), Maker()]

    def slow(queries: Sequence[int]) -> Iterator[tuple[int, Json]]:
        started.set()
        for one in makers[0](queries):
            time.sleep(0.05)
            yield one

    first = threading.Thread(target=fill_shard, args=(tmp_path, QUERIES, 0, None, slow))
    first.start()
    assert started.wait(HUNG)
    found = fill_shard(tmp_path, QUERIES, 0, None, makers[1])
    first.join()
    assert found is not None and list(found) == QUERIES
    assert (makers[0].made, makers[1].made) == (QUERIES, [])
