"""The reader of the generated world: it answers from demonstrations by a fixed rule.

    logit(name, value) = prior + max_j w_j e rel_name(j) [name_j = name]
                               + max_j w_j e rel_value(j) [value_j = value]
                               + sum_j w_j c alike(j) [answer_j = (name, value)]

w_j grows towards the last demonstration, so order matters.  With a maximum over demonstrations, two
with the same evidence are no better than one.  `alike` measures how similar scene and wording are
to the query's: the reader copies answers from similar-looking items, the typical error of
similarity search.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from lever.data.world import Embeddings, Floats, Ints, World

ALIKE_FROM, ALIKE_SPAN, ALIKE_MAX = 0.2, 0.45, 1.5


@dataclass(frozen=True)
class Evidence:
    """Evidence of each of M demonstrations for the answer to one query, at weight 1."""

    name: Ints
    value: Ints
    for_name: Floats
    for_value: Floats
    for_answer: Floats

    def take(self, index: Ints) -> Evidence:
        """Select demonstrations; the fields get the shape of the index."""
        return Evidence(
            self.name[index],
            self.value[index],
            self.for_name[index],
            self.for_value[index],
            self.for_answer[index],
        )


class KernelReader:
    """Answers queries of a world with demonstrations of it.

    Args:
        world: its latent facts are visible to the reader, but not to a selector.
    """

    def __init__(self, world: World) -> None:
        self.world = world

    def evidence(self, query: int, demos: Ints) -> Evidence:
        """Compute the evidence of demonstrations [M] for a query."""
        world, settings = self.world, self.world.settings
        same_entity = world.entity[demos] == world.entity[query]
        same_topic = world.topic[demos] == world.topic[query]
        same_kind = world.kind[demos] == world.kind[query]
        same_value = same_kind & (world.attribute[demos] == world.attribute[query])
        for_name = np.where(same_entity, 1.0, settings.name_topic * same_topic)
        for_value = np.where(same_value, 1.0, settings.value_kind * same_kind)
        alike = _cosine(world.scene[demos], world.scene[query])
        alike = (alike + _cosine(world.wording[demos], world.wording[query])) / 2
        alike = ((alike - ALIKE_FROM) / ALIKE_SPAN).clip(0, ALIKE_MAX)
        name, value = np.divmod(world.gold[demos], settings.values)
        return Evidence(
            name,
            value,
            settings.evidence * for_name,
            settings.evidence * for_value,
            settings.copying * alike,
        )

    def logits(self, query: int, slates: Ints) -> Embeddings:
        """Logits of every answer, [N, answers], for slates [N, S] of demonstrations in order."""
        settings = self.world.settings
        count, shots = slates.shape
        flat = self.evidence(query, slates.ravel())
        said = flat.take(np.arange(slates.size).reshape(slates.shape))
        rows = np.arange(count)
        names = np.zeros((count, settings.names))
        values = np.zeros((count, settings.values))
        copies = np.zeros((count, settings.names, settings.values))
        for place, weight in enumerate(self.weights(shots)):
            name, value = said.name[:, place], said.value[:, place]
            np.maximum.at(names, (rows, name), weight * said.for_name[:, place])
            np.maximum.at(values, (rows, value), weight * said.for_value[:, place])
            copies[rows, name, value] += weight * said.for_answer[:, place]
        copies += names[:, :, None] + values[:, None, :]
        return (copies.reshape(count, -1) + self.world.prior[query]).astype(np.float32)

    def weights(self, shots: int) -> Floats:
        """Weights of demonstrations in prompt order; that of the last is 1."""
        return self.world.settings.earlier_weight ** np.arange(shots - 1, -1, -1, dtype=np.float64)

    def pair_answers(self, query: int) -> Ints:
        """Answers with all ordered pairs of the query's pool, [K, K]; -1 on the diagonal.

        Evidence is never negative, so the answer with the highest logit is one of these: the best
        by prior; the best by prior among the answers with a name, or with a value, that one of the
        two shows; one of the four combinations of shown names and values.
        """
        settings = self.world.settings
        prior = self.world.prior[query].astype(np.float64)
        prior = prior.reshape(settings.names, settings.values)
        said = self.evidence(query, self.world.pool_of(query))
        pairs = _Pairs(said, *self.weights(2))
        shape = len(said.name), len(said.name)
        cells = _cells(said, prior)
        scores = [np.broadcast_to(prior[cell] + pairs.add(*cell), shape) for cell in cells]
        answers = [np.broadcast_to(i * settings.values + j, shape) for i, j in cells]
        best = np.stack(scores).argmax(axis=0)
        chosen = np.take_along_axis(np.stack(answers), best[None], axis=0)[0]
        np.fill_diagonal(chosen, -1)
        return chosen

    def pair_rewards(self, query: int) -> Floats:
        """VQA accuracy with all ordered pairs of the query's pool, [K, K]; NaN on the diagonal."""
        answers = self.pair_answers(query)
        return np.where(answers < 0, np.nan, self.world.accuracy[query][answers])


def _cells(said: Evidence, prior: Floats) -> list[tuple[Ints, Ints]]:
    """Return the possible winners (name, value), each broadcastable over pairs [K, K]."""
    names = said.name[:, None], said.name[None, :]
    values = said.value[:, None], said.value[None, :]
    best_value, best_name = prior.argmax(axis=1), prior.argmax(axis=0)
    name, value = np.unravel_index(prior.argmax(), prior.shape)
    return [
        (np.asarray(name), np.asarray(value)),
        *((name, best_value[name]) for name in names),
        *((best_name[value], value) for value in values),
        *product(names, values),
    ]


@dataclass(frozen=True)
class _Pairs:
    """Evidence of each ordered pair (row: first, column: last) for an answer."""

    said: Evidence
    first_weight: float
    last_weight: float

    def add(self, name: Ints, value: Ints) -> Floats:
        """Sum up the evidence [K, K] for an answer, which may differ from pair to pair."""
        index = np.arange(len(self.said.name))
        first = self._of(self.said.take(index[:, None]), name, value)
        last = self._of(self.said.take(index[None, :]), name, value)
        weight = self.first_weight, self.last_weight
        added = sum(w * one[2] for w, one in zip(weight, (first, last), strict=True))
        for part in (0, 1):
            added = added + np.maximum(weight[0] * first[part], weight[1] * last[part])
        return np.asarray(added)

    @staticmethod
    def _of(said: Evidence, name: Ints, value: Ints) -> tuple[Floats, Floats, Floats]:
        for_name, for_value = said.name == name, said.value == value
        return (
            for_name * said.for_name,
            for_value * said.for_value,
            (for_name & for_value) * said.for_answer,
        )


def _cosine(rows: Floats, one: Floats) -> Floats:
    lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(one)
    return np.asarray(rows @ one / lengths)
