"""Answers that are paid for once: JSON by key in an SQLite file.

What `put` has returned from is on disk, also after the process is killed.  Several processes may
share a file.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

WAIT = 60.0  # seconds for another process's write

_TABLE = "CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID"


class StoreError(ValueError):
    """The file cannot be read or written."""


class Store:
    """Values as JSON texts by key.

    Args:
        path: of the file; made, with its folder, where it is missing.
        what: the content, for messages, e.g. "answers".
        setting: names the file, for messages.
        earlier: table of an earlier version whose rows are taken over.
        select: columns of it that are key and value.

    Raises:
        StoreError: the file is damaged, of another kind, or cannot be made.
    """

    def __init__(
        self, path: Path, what: str, setting: str, earlier: str = "", select: str = ""
    ) -> None:
        # Threads share one connection, and so its transaction: they take turns.
        self._turn = threading.Lock()
        self._cure = f"move it away or name another file in {setting}"
        self._about = f"{path}: expected a file of {what}"
        with self._one_line():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=WAIT, check_same_thread=False)
            self._make_table()
            if earlier:
                self._take_over(earlier, select)

    def get(self, key: str) -> str | None:
        """Return the text kept under a key, or None.

        Raises:
            StoreError: the file is damaged.
        """
        with self._one_line(), self._turn:
            row = self._db.execute("SELECT value FROM entries WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def put(self, values: Mapping[str, str]) -> None:
        """Keep all of some texts, or none of them if it fails.

        Raises:
            StoreError: the file is damaged or cannot be written.
        """
        with self._one_line(), self._turn, self._db:
            self._db.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?)", values.items())

    def close(self) -> None:
        """Close the file; everything is on disk already."""
        self._db.close()

    def _take_over(self, table: str, select: str) -> None:
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")  # another process may do the same
            found = self._db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,))
            if found.fetchone() is not None:
                self._db.execute(f"INSERT OR IGNORE INTO entries SELECT {select} FROM {table}")
                self._db.execute(f"DROP TABLE {table}")

    def _make_table(self) -> None:
        end = time.monotonic() + WAIT
        while True:
            try:
                # Readers do not wait for a writer; a kill loses nothing that was committed.
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute(_TABLE)
                return
            except sqlite3.DatabaseError as error:
                # SQLite's own wait does not cover the switch of a new file's mode.
                if not _is_busy(error) or time.monotonic() > end:
                    raise
            time.sleep(0.05)

    @contextmanager
    def _one_line(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            if isinstance(error, sqlite3.Error) and _is_busy(error):
                problem = f"another process has held it for {WAIT:.0f} s; end that one"
                raise StoreError(f"{self._about}: {problem}, or {self._cure}") from error
            raise StoreError(f"{self._about} ({error}); {self._cure}") from error


def _is_busy(error: sqlite3.Error) -> bool:
    # The base of an extended code; errors of the module itself have none.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
