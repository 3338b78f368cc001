"""A generated world of visual questions in which the choice of demonstrations matters.

An item is a question about a picture.  The picture shows an entity of some topic, the question has
a kind, and both contain an attribute.  The answer is a pair: a name, given by a random table of
entities, and a value, given by kind and attribute.  One demonstration of the same entity shows the
name, one of the same kind and attribute shows the value; a pair that shows both is better than a
pair that shows the same part twice.

Embeddings of pictures contain entity and topic, embeddings of questions kind and attribute.  Both
contain more nuisance (scene, wording) than content, so the nearest neighbour is often a wrong
choice, and demonstrations that only look similar mislead the reader (`lever.data.world_reader`).

The world is a function of its settings and seed.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lever.world_config import SHIFTED, ShiftedRange, WorldSettings

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Embeddings = NDArray[np.float32]

# Widths of the parts of an embedding before they are mapped into its full width.
TOPIC_D, ENTITY_D, KIND_D, ATTRIBUTE_D, NUISANCE_D = 12, 20, 8, 6, 24


WORLD_VERSION = 1  # raise when a generated world changes


@dataclass(frozen=True)
class World:
    """N items: the demonstrations, then the training, validation and test queries.

    Attributes:
        settings: of the world.
        seed: of its draws.
        entity: of each item, [N]; likewise topic, kind and attribute.
        gold: index of the true answer, name * values + value, [N].
        said: the annotators' answers, [N, annotators].
        prior: the reader's logits without demonstrations, [N, answers].
        scene: nuisance of the picture, [N, NUISANCE_D], unit length on average.
        wording: nuisance of the question, [N, NUISANCE_D].
        image: embeddings of the pictures, [N, width], unit length.
        text: embeddings of the questions, [N, width], unit length.
        pool: the pool of each query, [queries, pool_size].
    """

    settings: WorldSettings
    seed: int
    entity: Ints
    topic: Ints
    kind: Ints
    attribute: Ints
    gold: Ints
    said: Ints
    prior: Embeddings
    scene: Floats
    wording: Floats
    image: Embeddings
    text: Embeddings
    pool: Ints

    @property
    def train(self) -> range:
        return self._split(0, self.settings.train)

    @property
    def val(self) -> range:
        return self._split(self.settings.train, self.settings.val)

    @property
    def test(self) -> range:
        return self._split(self.settings.train + self.settings.val, self.settings.test)

    def _split(self, start: int, size: int) -> range:
        first = self.settings.demos + start
        return range(first, first + size)

    def pool_of(self, query: int) -> Ints:
        """The pool of a query: the same in training and inference."""
        place = query - self.settings.demos
        if not 0 <= place < len(self.pool):
            last = self.settings.demos + len(self.pool) - 1
            raise ValueError(f"query {query}: expected an id from {self.settings.demos} to {last}")
        return self.pool[place]

    @cached_property
    def accuracy(self) -> Floats:
        """VQA accuracy of every answer to every item, [N, answers]."""
        count = np.zeros((len(self.gold), self.settings.answers))
        np.add.at(count, (np.arange(len(self.gold))[:, None], self.said), 1)
        people = self.settings.annotators
        # An annotator is compared with the others only; see `lever.data.vqa_accuracy`.
        own = np.minimum((count - 1).clip(min=0) / 3, 1)
        others = np.minimum(count / 3, 1)
        return (count * own + (people - count) * others) / people

    def answer_text(self, answer: int) -> str:
        """Return an answer as text, in normalised form."""
        name, value = divmod(int(answer), self.settings.values)
        return f"name{name} value{value}"

    def answers_of(self, item: int) -> tuple[str, ...]:
        """The annotators' answers as text."""
        return tuple(self.answer_text(answer) for answer in self.said[item])


def make_world(settings: WorldSettings, seed: int) -> World:
    """Draw a world."""
    rng = np.random.default_rng([seed, 7])
    count = settings.demos + settings.train + settings.val + settings.test
    weights = 1 / (np.arange(settings.entities) + 1 + settings.zipf_offset)
    entity = rng.choice(settings.entities, count, p=weights / weights.sum())
    kind = rng.integers(settings.kinds, size=count)
    attribute = rng.integers(settings.attributes, size=count)

    name_of = rng.integers(settings.names, size=settings.entities)
    families = [rng.permutation(settings.values) for _ in range(settings.kinds)]
    family = np.stack(families)[:, : settings.attributes]
    name, value = name_of[entity], family[kind, attribute]
    gold = name * settings.values + value

    nuisance = scene, wording = _nuisance(rng, count), _nuisance(rng, count)
    image, text = _embed(settings, rng, (entity, kind, attribute), nuisance)
    return World(
        settings=settings,
        seed=seed,
        entity=entity,
        topic=entity % settings.topics,
        kind=kind,
        attribute=attribute,
        gold=gold,
        said=_annotate(settings, rng, name, kind, attribute, family),
        prior=_prior(settings, rng, kind, gold, family),
        scene=scene,
        wording=wording,
        image=image,
        text=text,
        pool=_pools(settings, rng, image, text),
    )


def shifted_settings(
    settings: WorldSettings, seed: int, shift: ShiftedRange = SHIFTED
) -> WorldSettings:
    """Draw settings from the ranges kept out of all tuning."""
    rng = np.random.default_rng([seed, 11])
    drawn: dict[str, Any] = {
        item.name: float(rng.uniform(*getattr(shift, item.name))) for item in fields(shift)
    }
    return replace(settings, **drawn)


def _nuisance(rng: np.random.Generator, count: int) -> Floats:
    return np.asarray(rng.normal(size=(count, NUISANCE_D)) / np.sqrt(NUISANCE_D))


def _embed(
    settings: WorldSettings,
    rng: np.random.Generator,
    facts: tuple[Ints, Ints, Ints],
    nuisance: tuple[Floats, Floats],
) -> tuple[Embeddings, Embeddings]:
    """Embed pictures and questions: parts of set lengths side by side, rotated, with noise.

    `facts` are entity, kind and attribute of each item, `nuisance` its scene and wording.
    """
    (entity, kind, attribute), (scene, wording) = facts, nuisance
    topics = _codes(rng, settings.topics, TOPIC_D)
    entities = _codes(rng, settings.entities, ENTITY_D)
    kinds = _codes(rng, settings.kinds, KIND_D)
    attributes = _codes(rng, settings.attributes, ATTRIBUTE_D)
    image = [
        settings.image_topic * topics[entity % settings.topics],
        settings.image_entity * entities[entity],
        settings.nuisance * scene,
        settings.image_attribute * attributes[attribute],
    ]
    text = [
        settings.text_kind * kinds[kind],
        settings.text_attribute * attributes[attribute],
        settings.nuisance * wording,
        settings.text_topic * topics[entity % settings.topics],
    ]
    return _project(settings, rng, image), _project(settings, rng, text)


def _codes(rng: np.random.Generator, count: int, width: int) -> Floats:
    codes = rng.normal(size=(count, width))
    return codes / np.linalg.norm(codes, axis=1, keepdims=True)


def _project(settings: WorldSettings, rng: np.random.Generator, parts: list[Floats]) -> Embeddings:
    content = np.concatenate(parts, axis=1)
    basis, _ = np.linalg.qr(rng.normal(size=(settings.width, content.shape[1])))
    noise = rng.normal(size=(len(content), settings.width)) / np.sqrt(settings.width)
    embedded = content @ basis.T + settings.noise * noise
    return (embedded / np.linalg.norm(embedded, axis=1, keepdims=True)).astype(np.float32)


def _annotate(
    settings: WorldSettings,
    rng: np.random.Generator,
    name: Ints,
    kind: Ints,
    attribute: Ints,
    family: Ints,
) -> Ints:
    """Draw the annotators' answers: the true one, another value, another name, or any answer."""
    shape = len(name), settings.annotators
    agree = rng.uniform(settings.agreement_low, settings.agreement_high, size=(len(name), 1))
    roll = rng.uniform(size=shape)
    # Where the answer is not the true one, the same roll, rescaled, decides the kind of error.
    error = (roll - agree) / (1 - agree).clip(min=1e-9)
    value = family[kind, attribute][:, None]
    other_value = family[kind, (attribute + 1) % settings.attributes][:, None]
    other_name = (name[:, None] + 1) % settings.names
    anything = rng.integers(settings.answers, size=shape)
    return np.select(
        [roll < agree, error < settings.err_value, error < settings.err_value + settings.err_name],
        [
            name[:, None] * settings.values + value,
            name[:, None] * settings.values + other_value,
            other_name * settings.values + value,
        ],
        anything,
    )


def _prior(
    settings: WorldSettings, rng: np.random.Generator, kind: Ints, gold: Ints, family: Ints
) -> Embeddings:
    """Draw the reader's prior logits: noise, the kind's family, and known answers."""
    count = len(kind)
    prior = rng.normal(size=(count, settings.names, settings.values))
    in_family = np.zeros((settings.kinds, settings.values))
    np.put_along_axis(in_family, family, settings.prior_family, axis=1)
    prior += in_family[kind][:, None, :]
    known = rng.uniform(size=count) < settings.known_share
    bonus = rng.uniform(0, settings.known_bonus, size=count) * known
    prior = prior.reshape(count, settings.answers)
    prior[np.arange(count), gold] += bonus
    return prior.astype(np.float32)


def _pools(
    settings: WorldSettings, rng: np.random.Generator, image: Embeddings, text: Embeddings
) -> Ints:
    """Choose each query's pool: nearest by question, nearest by picture, random; shuffled."""
    queries = range(settings.demos, len(image))
    pools = np.empty((len(queries), settings.pool_size), dtype=np.int64)
    for row, query in enumerate(queries):
        rank = rng.uniform(size=settings.demos)
        chosen: list[int] = []
        sources = (
            (text[: settings.demos] @ text[query], settings.pool_text),
            (image[: settings.demos] @ image[query], settings.pool_image),
            (rank, settings.pool_random),
        )
        for score, size in sources:
            score[chosen] = -np.inf
            chosen += np.argpartition(-score, size - 1)[:size].tolist() if size else []
        pools[row] = rng.permutation(chosen)
    return pools
