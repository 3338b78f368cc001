from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from lever.answerers.cache import CachedAnswerer
from lever.answerers.protocol import KernelICLAnswerer
from lever.data.datasets import Prompted
from tests.lever.counting import Noting
from tests.lever.worlds import small_world
from tests.limits import HUNG


@pytest.fixture
def counting(tmp_path: Path) -> Noting:
    return Noting(KernelICLAnswerer(small_world()), tmp_path / "asked.txt")


PROMPTS = [Prompted(70, (i, j)) for i in range(4) for j in range(4) if i != j]


def test_each_prompt_is_asked_once_whatever_is_repeated(tmp_path: Path, counting: Noting) -> None:
    cached = CachedAnswerer(counting, tmp_path / "cache.sqlite", batch_size=5)
    plain = counting.answerer.generate(PROMPTS)
    assert cached.generate(PROMPTS + PROMPTS) == plain + plain
    assert (cached.calls, cached.hits) == (12, 12)
    again = CachedAnswerer(counting, tmp_path / "cache.sqlite")
    assert again.generate(PROMPTS) == plain
    assert (again.calls, again.hits) == (0, 12)
    assert len(counting.asked) == 12


def test_log_probabilities_come_back_to_the_last_bit(tmp_path: Path, counting: Noting) -> None:
    cached = CachedAnswerer(counting, tmp_path / "cache.sqlite")
    answers = [f"name{i} value{i}" for i in range(len(PROMPTS))]
    plain = counting.answerer.answer_logprob(PROMPTS, answers)
    assert cached.answer_logprob(PROMPTS, answers) == plain
    assert cached.answer_logprob(PROMPTS, answers) == plain
    cached.generate(PROMPTS)
    cached.answer_logprob(PROMPTS[:1], ["name9 value9"])
    assert cached.calls == 12 + 12 + 1


def test_order_template_generation_and_answerer_each_make_another_key(
    tmp_path: Path, counting: Noting
) -> None:
    path = tmp_path / "cache.sqlite"
    CachedAnswerer(counting, path).generate([Prompted(70, (1, 2))])
    shorter = CachedAnswerer(counting, path, generation={"max_new_tokens": 3})
    worded = CachedAnswerer(counting, path, template="Q: {question} A:")
    for cached in (shorter, worded):
        cached.generate([Prompted(70, (1, 2))])
        assert cached.calls == 1
    plain = CachedAnswerer(counting, path)
    plain.generate([Prompted(70, (2, 1)), Prompted(71, (1, 2)), Prompted(70, (12,)), Prompted(70)])
    assert (plain.calls, plain.hits) == (4, 0)

    class Renamed(Noting):
        fingerprint = "another"

    renamed = CachedAnswerer(Renamed(counting.answerer, counting.notes), path)
    renamed.generate([Prompted(70, (1, 2))])
    assert renamed.calls == 1


def test_what_is_made_with_another_template_has_another_name(
    tmp_path: Path, counting: Noting
) -> None:
    path = tmp_path / "cache.sqlite"
    assert CachedAnswerer(counting, path).fingerprint == counting.fingerprint
    ways = [("chat", None), ("flamingo", None), ("chat", {"max_new_tokens": 3})]
    names = {CachedAnswerer(counting, path, *way).fingerprint for way in ways}
    assert len({*names, counting.fingerprint}) == 4


def test_a_kill_neither_loses_nor_doubles_a_call(tmp_path: Path, counting: Noting) -> None:
    script = f"""
from contextlib import closing
from pathlib import Path
from lever.answerers.cache import CachedAnswerer
from lever.answerers.protocol import KernelICLAnswerer
from tests.lever.counting import Noting
from tests.lever.answerers.test_cache import PROMPTS
from tests.lever.worlds import small_world

answerer = Noting(KernelICLAnswerer(small_world()), Path({str(counting.notes)!r}), dies_at=6)
CachedAnswerer(answerer, {str(tmp_path / "cache.sqlite")!r}, batch_size=3).generate(PROMPTS)
"""
    root = Path(__file__).parents[3]
    ended = subprocess.run([sys.executable, "-c", script], cwd=root, timeout=HUNG, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert len(counting.asked) == 6
    cached = CachedAnswerer(counting, tmp_path / "cache.sqlite", batch_size=3)
    assert cached.generate(PROMPTS) == counting.answerer.generate(PROMPTS)
    assert (cached.hits, cached.calls) == (6, 6)
    assert sorted(counting.asked) == sorted(map(str, PROMPTS))


def test_a_failing_batch_keeps_what_came_before(tmp_path: Path, counting: Noting) -> None:
    cached = CachedAnswerer(counting, tmp_path / "cache.sqlite", batch_size=2)
    with pytest.raises(ValueError, match="expected the form"):
        cached.answer_logprob(PROMPTS[:4], ["name0 value0"] * 3 + ["dog"])
    assert cached.calls == 2
    cached.answer_logprob(PROMPTS[:2], ["name0 value0"] * 2)
    assert cached.calls == 2


def test_answers_of_an_earlier_version_are_taken_over(tmp_path: Path, counting: Noting) -> None:
    path = tmp_path / "cache.sqlite"
    cached = CachedAnswerer(counting, tmp_path / "new.sqlite")
    said = cached.generate(PROMPTS[:2])
    columns = "setup TEXT, query INTEGER, shots TEXT, asked TEXT, said TEXT"
    rows = [
        (json.dumps([counting.fingerprint, "", {}]), 70, "0 1", "generate", json.dumps(said[0])),
        (json.dumps([counting.fingerprint, "", {}]), 70, "0 2", "generate", json.dumps(said[1])),
    ]
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(f"CREATE TABLE answers ({columns}, PRIMARY KEY (setup, query, shots, asked))")
        db.executemany("INSERT INTO answers VALUES (?, ?, ?, ?, ?)", rows)
    for _ in range(2):
        again = CachedAnswerer(counting, path)
        assert again.generate(PROMPTS[:2]) == said
        assert (again.calls, again.hits) == (0, 2)


def test_a_file_of_another_kind_is_an_error(tmp_path: Path, counting: Noting) -> None:
    path = tmp_path / "cache.sqlite"
    path.write_text("this is a text and not a data base, " * 100)
    with pytest.raises(ValueError, match=r"expected a file of answers .*answerer\.cache"):
        CachedAnswerer(counting, path)
    with pytest.raises(ValueError, match="batch_size=0: expected at least 1"):
        CachedAnswerer(counting, tmp_path / "other.sqlite", batch_size=0)
