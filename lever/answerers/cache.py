"""Every answer is paid for once: a persistent cache around an answerer.

An answer belongs to the answerer's fingerprint, the query, the demonstrations in their order, the
prompt template and the generation settings.  Each batch of answers is on disk before the next is
asked for, so a killed run has lost at most the batch it was waiting for and asks for nothing twice.
Several processes may share a file.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from core_rl.fingerprint import fingerprint
from lever.answerers.protocol import Answerer
from lever.data.datasets import Prompted

_TABLE = """
CREATE TABLE IF NOT EXISTS answers (
    setup TEXT NOT NULL,   -- fingerprint, template, generation settings
    query INTEGER NOT NULL,
    shots TEXT NOT NULL,   -- ids in prompt order
    asked TEXT NOT NULL,   -- what was asked for: a generation, or the probability of an answer
    said TEXT NOT NULL,    -- JSON
    PRIMARY KEY (setup, query, shots, asked)
) WITHOUT ROWID
"""
GENERATION = "generate"
LOGPROB = "logprob:"
WAIT = 60.0  # seconds, for another process's write

Asked = tuple[Prompted, str]


class CachedAnswerer:
    """An answerer that remembers.

    Args:
        answerer: asked for what is not known yet.
        path: of the cache, an SQLite file; made where it is missing.
        template: how the prompt is written.
        generation: settings of the generation.
        batch_size: prompts a call, which is also what a kill can lose.

    Attributes:
        calls: prompts the answerer was asked.
        hits: prompts answered from memory, repeats within one request included.

    Raises:
        ValueError: the file is no SQLite file.
    """

    def __init__(
        self,
        answerer: Answerer,
        path: str | Path,
        template: str = "",
        generation: Mapping[str, Any] | None = None,
        batch_size: int = 256,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: expected at least 1")
        self.answerer = answerer
        self.batch_size = batch_size
        self.calls = 0
        self.hits = 0
        how = [template, dict(generation or {})]
        self._setup = json.dumps([answerer.fingerprint, *how], sort_keys=True)
        self._how = fingerprint(*how) if template or generation else ""
        self._db = _open(Path(path))

    @property
    def fingerprint(self) -> str:
        """The answerer's, and how it is asked: beams of one template are not those of another."""
        name = self.answerer.fingerprint
        return f"{name}-{self._how}" if self._how else name

    def generate(self, prompts: Sequence[Prompted]) -> list[str]:
        asked = [(prompt, GENERATION) for prompt in prompts]
        return self._ask(asked, lambda new: self.answerer.generate([one for one, _ in new]))

    def answer_logprob(self, prompts: Sequence[Prompted], answers: Sequence[str]) -> list[float]:
        asked = [(one, LOGPROB + answer) for one, answer in zip(prompts, answers, strict=True)]

        def score(new: Sequence[Asked]) -> list[float]:
            texts = [text.removeprefix(LOGPROB) for _, text in new]
            return self.answerer.answer_logprob([one for one, _ in new], texts)

        return self._ask(asked, score)

    def close(self) -> None:
        """Close the file; what was answered is on disk already."""
        self._db.close()

    def _ask(self, asked: Sequence[Asked], call: Callable[[Sequence[Asked]], list[Any]]) -> Any:
        found = {one: self._look_up(one) for one in dict.fromkeys(asked)}
        known = {one: text for one, text in found.items() if text is not None}
        new = [one for one in found if one not in known]
        self.hits += len(asked) - len(new)
        for start in range(0, len(new), self.batch_size):
            batch = new[start : start + self.batch_size]
            said = [json.dumps(value) for value in call(batch)]
            assert len(said) == len(batch), f"{len(said)} answers to {len(batch)} prompts"
            self.calls += len(batch)
            self._store(batch, said)
            known.update(zip(batch, said, strict=True))
        return [json.loads(known[one]) for one in asked]

    def _look_up(self, one: Asked) -> str | None:
        query = "SELECT said FROM answers WHERE setup=? AND query=? AND shots=? AND asked=?"
        row = self._db.execute(query, self._key(one)).fetchone()
        return None if row is None else str(row[0])

    def _store(self, batch: Sequence[Asked], said: Sequence[str]) -> None:
        rows = [(*self._key(one), text) for one, text in zip(batch, said, strict=True)]
        with self._db:  # one transaction: all of the batch, or nothing
            self._db.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?)", rows)

    def _key(self, one: Asked) -> tuple[str, int, str, str]:
        prompt, asked = one
        shots = " ".join(str(int(shot)) for shot in prompt.shots)
        return self._setup, int(prompt.query), shots, asked


def _open(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + WAIT
    while True:
        db = sqlite3.connect(path, timeout=WAIT)
        try:
            # Readers do not wait for the writer; a kill of the process loses no committed batch.
            db.execute("PRAGMA journal_mode=WAL")
            db.execute(_TABLE)
            return db
        except sqlite3.DatabaseError as error:
            db.close()
            # Two that set the mode of a new file at once do not wait for each other.
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:  # of extended codes the base
                raise ValueError(f"{path}: not an answer cache ({error}); move it away") from error
            if time.monotonic() > end:
                raise ValueError(
                    f"{path}: another process has held it for {WAIT:.0f} s; end that one, or name "
                    "another file in answerer.cache"
                ) from error
        time.sleep(0.05)
