"""The interface of an answerer, and the answerer of the generated world."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from typing import Protocol

import numpy as np

from lever.data.datasets import Prompted
from lever.data.world import Embeddings, World
from lever.data.world_reader import KernelReader

# Raise when a change of `lever.data.world_reader` or `lever.data.world` changes an answer.
KERNEL_VERSION = 1


class Answerer(Protocol):
    """Answers questions about pictures from demonstrations, many at a time."""

    @property
    def fingerprint(self) -> str:
        """Name of the answerer and the data set; it changes with anything that changes answers."""
        ...

    def generate(self, prompts: Sequence[Prompted]) -> list[str]:
        """Answer each prompt, deterministically."""
        ...

    def answer_logprob(self, prompts: Sequence[Prompted], answers: Sequence[str]) -> list[float]:
        """Return the log-probability of each answer, in nats, averaged over its tokens."""
        ...


class KernelICLAnswerer:
    """The default answerer: the reader of the generated world, not a vision-language model.

    It follows the rule in `lever.data.world_reader`.  A call costs microseconds, so every pair of a
    pool can be scored.  Results with it need not hold for a real model.  Each of its answers is a
    single token.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.reader = KernelReader(world)
        self._answer = {world.answer_text(i): i for i in range(world.settings.answers)}

    @property
    def fingerprint(self) -> str:
        drawn_from = {"settings": asdict(self.world.settings), "seed": self.world.seed}
        digest = hashlib.sha256(json.dumps(drawn_from, sort_keys=True).encode()).hexdigest()
        return f"kernel-{KERNEL_VERSION}-{digest[:16]}"

    def generate(self, prompts: Sequence[Prompted]) -> list[str]:
        return [self.world.answer_text(int(row.argmax())) for row in self._logits(prompts)]

    def answer_logprob(self, prompts: Sequence[Prompted], answers: Sequence[str]) -> list[float]:
        """Return the log-probability of each answer.

        Raises:
            ValueError: the world does not have one of the answers.
        """
        unknown = [answer for answer in answers if answer not in self._answer]
        if unknown:
            raise ValueError(f"answers {unknown[:3]}: expected the form {next(iter(self._answer))}")
        return [
            float(row[self._answer[answer]] - np.logaddexp.reduce(row.astype(np.float64)))
            for row, answer in zip(self._logits(prompts), answers, strict=True)
        ]

    def _logits(self, prompts: Sequence[Prompted]) -> list[Embeddings]:
        """Compute the logits of each prompt; prompts of one query and length together."""
        together: dict[tuple[int, int], list[int]] = defaultdict(list)
        for place, prompt in enumerate(prompts):
            together[prompt.query, len(prompt.shots)].append(place)
        rows: dict[int, Embeddings] = {}
        for (query, shots), places in together.items():
            slates = np.array([prompts[place].shots for place in places], dtype=np.int64)
            logits = self.reader.logits(query, slates.reshape(len(places), shots))
            rows.update(zip(places, logits, strict=True))
        return [rows[place] for place in range(len(prompts))]
