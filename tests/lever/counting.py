"""An answerer that notes what it is asked, and may be killed at a set call."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from lever.answerers.protocol import Answerer
from lever.data.datasets import Prompted


class Noting:
    """Passes on to a real answerer; every prompt is a line of a file before it is answered.

    Args:
        answerer: the real one.
        notes: file of the prompts.
        dies_at: kill this process when so many are noted; None never does.
    """

    def __init__(self, answerer: Answerer, notes: Path, dies_at: int | None = None) -> None:
        self.answerer = answerer
        self.notes = notes
        self.dies_at = dies_at

    @property
    def fingerprint(self) -> str:
        return self.answerer.fingerprint

    @property
    def asked(self) -> list[str]:
        return self.notes.read_text().splitlines() if self.notes.exists() else []

    def generate(self, prompts: Sequence[Prompted]) -> list[str]:
        self._note([f"{one}" for one in prompts])
        return self.answerer.generate(prompts)

    def answer_logprob(self, prompts: Sequence[Prompted], answers: Sequence[str]) -> list[float]:
        self._note([f"{one} {answer}" for one, answer in zip(prompts, answers, strict=True)])
        return self.answerer.answer_logprob(prompts, answers)

    def _note(self, lines: list[str]) -> None:
        if self.dies_at is not None and len(self.asked) >= self.dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        with self.notes.open("a") as notes:
            notes.writelines(f"{line}\n" for line in lines)


class Scripted:
    """An answerer whose log-probabilities are given; larger sets may be scored by a rule.

    Args:
        score: query and shots -> log-probability of any answer.
    """

    fingerprint = "scripted"

    def __init__(self, score: Callable[[int, tuple[int, ...]], float]) -> None:
        self.score = score

    def generate(self, prompts: Sequence[Prompted]) -> list[str]:
        return ["?"] * len(prompts)

    def answer_logprob(self, prompts: Sequence[Prompted], answers: Sequence[str]) -> list[float]:
        assert len(prompts) == len(answers)
        return [self.score(one.query, one.shots) for one in prompts]
