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


class KernelReader:
    """Answers queries of a world; it sees the latent facts, which a selector does not."""

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
        rows = np.arange(count)
        names = np.zeros((count, settings.names))
        values = np.zeros((count, settings.values))
        copies = np.zeros((count, settings.names, settings.values))
        for place, weight in enumerate(self.weights(shots)):
            name, value = flat.name[place::shots], flat.value[place::shots]
            np.maximum.at(names, (rows, name), weight * flat.for_name[place::shots])
            np.maximum.at(values, (rows, value), weight * flat.for_value[place::shots])
            copies[rows, name, value] += weight * flat.for_answer[place::shots]
        copies += names[:, :, None] + values[:, None, :]
        return (copies.reshape(count, -1) + self.world.prior[query]).astype(np.float32)

    def weights(self, shots: int) -> Floats:
        """Weights of demonstrations in prompt order; that of the last is 1."""
        return self.world.settings.earlier_weight ** np.arange(shots - 1, -1, -1, dtype=np.float64)

    def pair_answers(self, query: int) -> Ints:
        """Answers with all ordered pairs of the query's pool, [K, K]; -1 on the diagonal."""
        pool = self.world.pool_of(query)
        first, last = np.meshgrid(pool, pool, indexing="ij")
        logits = self.logits(query, np.stack([first.ravel(), last.ravel()], axis=1))
        answers = logits.argmax(axis=1).reshape(first.shape)
        np.fill_diagonal(answers, -1)
        return answers

    def pair_rewards(self, query: int) -> Floats:
        """VQA accuracy with all ordered pairs of the query's pool, [K, K]; NaN on the diagonal."""
        answers = self.pair_answers(query)
        return np.where(answers < 0, np.nan, self.world.accuracy[query][answers])


def _cosine(rows: Floats, one: Floats) -> Floats:
    lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(one)
    return np.asarray(rows @ one / lengths)
