"""Values in a file that several processes share and that survives a kill."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from core_rl.store import Store, StoreError

ROOT = Path(__file__).parents[2]


def opened(path: Path) -> Store:
    return Store(path, "answers", "judge.cache")


def test_values_come_back_and_the_newest_counts(tmp_path: Path) -> None:
    store = opened(tmp_path / "new" / "store.sqlite")
    store.put({"a": "1", "b": '"\u4eba"'})
    store.put({"a": "2"})
    again = opened(tmp_path / "new" / "store.sqlite")
    assert [again.get(key) for key in ("a", "b", "c")] == ["2", '"\u4eba"', None]
    store.close()
    assert again.get("a") == "2"


WRITES = """
import itertools, sys
from pathlib import Path
from core_rl.store import Store
store = Store(Path(sys.argv[1]), "answers", "judge.cache")
for n in itertools.count():
    store.put({f"{sys.argv[2]}-{n}-{part}": str(n) for part in "ab"})
    print(n, flush=True)
"""


def test_what_was_put_survives_a_kill_of_processes_that_share_the_file(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    command = [sys.executable, "-c", WRITES, str(path)]
    children = [
        subprocess.Popen([*command, name], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for name in ("one", "two")
    ]
    last = []
    for child in children:
        assert child.stdout is not None
        said = [child.stdout.readline() for _ in range(50)]
        child.send_signal(signal.SIGKILL)
        said += child.stdout.readlines()
        assert child.wait() == -signal.SIGKILL
        child.stdout.close()
        last.append(max(int(line) for line in said if line.endswith("\n")))
    store = opened(path)
    for name, count in zip(("one", "two"), last, strict=True):
        assert all(store.get(f"{name}-{n}-a") == str(n) for n in range(count + 1))
        # Of a pair both or none were written.
        assert store.get(f"{name}-{count + 1}-a") == store.get(f"{name}-{count + 1}-b")


def test_a_new_file_that_another_process_is_writing_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    other = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    done = threading.Timer(0.3, lambda: other.execute("ROLLBACK"))
    done.start()
    opened(path).put({"a": "1"})
    done.join()
    other.close()


def test_a_file_that_is_held_for_too_long_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core_rl.store.WAIT", 0.1)
    path = tmp_path / "store.sqlite"
    store = opened(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match=r"another process has held it .* in judge\.cache"):
        store.put({"a": "1"})
    other.execute("ROLLBACK")
    store.put({"a": "1"})


def test_a_file_of_another_kind_is_named(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("this is a text and not a data base, " * 100)
    for path in (text, text / "deeper.sqlite", tmp_path):
        with pytest.raises(StoreError, match=r"expected a file of answers .* in judge\.cache"):
            opened(path)


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    store = opened(path)
    store.put({str(n): "x" * 100 for n in range(2000)})
    store.close()
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    path.write_bytes(content)
    store = opened(path)
    with pytest.raises(StoreError, match=r"expected a file of answers .*malformed") as caught:
        store.get("7")
    assert "\n" not in str(caught.value)


def test_threads_may_share_a_store(tmp_path: Path) -> None:
    store = opened(tmp_path / "store.sqlite")
    threads = [
        threading.Thread(target=lambda n=n: store.put({f"{n}-{i}": "1" for i in range(50)}))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(store.get(f"{n}-{i}") == "1" for n in range(4) for i in range(50))
