"""A persistent cache around an answerer.

The key of an answer consists of the answerer's fingerprint, the query, the demonstrations in their
order, the prompt template and the generation settings.  Each batch of answers is written before the
next is requested, so a kill loses at most one batch.  Several processes may share a file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from core_rl.fingerprint import fingerprint
from core_rl.store import Store
from lever.answerers.protocol import Answerer
from lever.data.datasets import Prompted

GENERATION = "generate"
LOGPROB = "logprob:"
# The table of earlier versions, whose answers stay valid.
_EARLIER = {
    "earlier": "answers",
    "select": "setup || char(10) || query || char(10) || shots || char(10) || asked, said",
}

Asked = tuple[Prompted, str]


class CachedAnswerer:
    """An answerer with a cache.

    Args:
        answerer: asked for answers that are not in the cache.
        path: of the cache, an SQLite file; created if missing.
        template: key of the prompt template.
        generation: settings of the generation.
        batch_size: prompts a call; a kill loses at most one call.

    Attributes:
        calls: number of prompts sent to the answerer.
        hits: number of prompts answered from the cache, repeats within a request included.

    Raises:
        ValueError: the file is damaged or no SQLite file.
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
        self._store = Store(Path(path), "answers", "answerer.cache", **_EARLIER)

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the answerer, the template and the generation settings."""
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
        """Close the file."""
        self._store.close()

    def _ask(self, asked: Sequence[Asked], call: Callable[[Sequence[Asked]], list[Any]]) -> Any:
        found = {one: self._store.get(self._key(one)) for one in dict.fromkeys(asked)}
        known = {one: text for one, text in found.items() if text is not None}
        new = [one for one in found if one not in known]
        self.hits += len(asked) - len(new)
        for start in range(0, len(new), self.batch_size):
            batch = new[start : start + self.batch_size]
            said = [json.dumps(value) for value in call(batch)]
            assert len(said) == len(batch), f"{len(said)} answers to {len(batch)} prompts"
            self.calls += len(batch)
            new_ones = dict(zip(batch, said, strict=True))
            self._store.put({self._key(one): text for one, text in new_ones.items()})
            known |= new_ones
        return [json.loads(known[one]) for one in asked]

    def _key(self, one: Asked) -> str:
        prompt, asked = one
        shots = " ".join(str(int(shot)) for shot in prompt.shots)
        return "\n".join((self._setup, str(int(prompt.query)), shots, asked))
