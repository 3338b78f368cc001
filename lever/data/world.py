"""A generated world of visual questions in which the choice of demonstrations matters.

An item is a question about a picture.  The picture shows an entity of some topic, the question asks
of a kind, and both hint at an attribute.  Its answer is a pair: a name, which only the entity
decides, by a table nobody can compute, and a value, which kind and attribute decide.  So one
demonstration of the same entity teaches the name, another of the same kind and attribute the value,
and a pair that does both is better than two that do the same.

Pictures carry entity and topic, questions carry kind and attribute; both carry more nuisance
(scene, wording) than content, so the nearest neighbour by either is often the wrong one, and the
reader (`lever.data.world_reader`) is even misled by demonstrations that merely look alike.

Everything is drawn from one seed: same seed, same world.
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


@dataclass(frozen=True)
class World:
    """N items: first the demonstrations, then the queries to train on, validate on, test on.

    Attributes:
        settings: it was drawn from.
        seed: it was drawn with.
        entity: of each item; so are topic, kind, attribute.
        gold: index of the true answer, name * values + value.
        said: what each annotator answered, [N, annotators].
        prior: the reader's own leaning to each answer before any demonstration, [N, answers].
        scene: nuisance of the picture, [N, NUISANCE_D], unit length on average.
        wording: nuisance of the question, likewise.
        image: embeddings of the pictures, [N, width], unit length.
        text: embeddings of the questions, likewise.
        pool: for each query the demonstrations to choose from, [queries, pool_size].
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
        """Demonstrations that query may choose from: the same in training and inference."""
        place = query - self.settings.demos
        if not 0 <= place < len(self.pool):
            last = self.settings.demos + len(self.pool) - 1
            raise ValueError(f"query {query}: expected an id from {self.settings.demos} to {last}")
        return self.pool[place]

    @cached_property
    def accuracy(self) -> Floats:
        """VQA accuracy of every answer to every item, [N, answers], with ten annotators' levels."""
        count = np.zeros((len(self.gold), self.settings.answers))
        np.add.at(count, (np.arange(len(self.gold))[:, None], self.said), 1)
        people = self.settings.annotators
        # Those who gave the answer see one agreeing annotator less; see `lever.data.vqa_accuracy`.
        own = np.minimum((count - 1).clip(min=0) / 3, 1)
        others = np.minimum(count / 3, 1)
        return (count * own + (people - count) * others) / people

    def answer_text(self, answer: int) -> str:
        """Spell an answer; normalisation leaves it as it is."""
        name, value = divmod(int(answer), self.settings.values)
        return f"name{name} value{value}"

    def answers_of(self, item: int) -> tuple[str, ...]:
        """What the annotators said, spelt."""
        return tuple(self.answer_text(answer) for answer in self.said[item])


def make_world(settings: WorldSettings, seed: int) -> World:
    """Draw a world."""
    rng = np.random.default_rng([seed, 7])
    count = settings.demos + settings.train + settings.val + settings.test
    weights = 1 / (np.arange(settings.entities) + 1 + settings.zipf_offset)
    entity = rng.choice(settings.entities, count, p=weights / weights.sum())
    topic = entity % settings.topics
    kind = rng.integers(settings.kinds, size=count)
    attribute = rng.integers(settings.attributes, size=count)

    name_of = rng.integers(settings.names, size=settings.entities)
    families = [rng.permutation(settings.values) for _ in range(settings.kinds)]
    family = np.stack(families)[:, : settings.attributes]
    name, value = name_of[entity], family[kind, attribute]
    gold = name * settings.values + value

    scene = rng.normal(size=(count, NUISANCE_D)) / np.sqrt(NUISANCE_D)
    wording = rng.normal(size=(count, NUISANCE_D)) / np.sqrt(NUISANCE_D)
    image, text = _embed(settings, rng, entity, topic, kind, attribute, scene, wording)
    return World(
        settings=settings,
        seed=seed,
        entity=entity,
        topic=topic,
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
    """Draw settings from the range that is never trained on."""
    rng = np.random.default_rng([seed, 11])
    drawn: dict[str, Any] = {
        item.name: float(rng.uniform(*getattr(shift, item.name))) for item in fields(shift)
    }
    return replace(settings, **drawn)


def _embed(
    settings: WorldSettings,
    rng: np.random.Generator,
    entity: Ints,
    topic: Ints,
    kind: Ints,
    attribute: Ints,
    scene: Floats,
    wording: Floats,
) -> tuple[Embeddings, Embeddings]:
    """Embed pictures and questions: parts of set lengths side by side, rotated, with noise."""
    topics = _codes(rng, settings.topics, TOPIC_D)
    entities = _codes(rng, settings.entities, ENTITY_D)
    kinds = _codes(rng, settings.kinds, KIND_D)
    attributes = _codes(rng, settings.attributes, ATTRIBUTE_D)
    image = [
        settings.image_topic * topics[topic],
        settings.image_entity * entities[entity],
        settings.nuisance * scene,
        settings.image_attribute * attributes[attribute],
    ]
    text = [
        settings.text_kind * kinds[kind],
        settings.text_attribute * attributes[attribute],
        settings.nuisance * wording,
        settings.text_topic * topics[topic],
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
    """Let each annotator answer: truly, with another value, with another name, or anything."""
    shape = len(name), settings.annotators
    agree = rng.uniform(settings.agreement_low, settings.agreement_high, size=(len(name), 1))
    roll = rng.uniform(size=shape)
    # How the untrue answers err, on the same roll: the part above `agree`, rescaled.
    error = (roll - agree) / (1 - agree).clip(min=1e-9)
    value = family[kind, attribute][:, None]
    other_value = family[kind, (attribute + 1) % settings.attributes][:, None]
    other_name = (name[:, None] + 1) % settings.names
    anything = rng.integers(settings.answers, size=shape)
    return np.select(
        [
            roll < agree,
            error < settings.err_value,
            error < settings.err_value + settings.err_name,
        ],
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
    """Draw the reader's leanings: noise, the kind's family, and what it knows by itself."""
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
    """Choose each query's pool: nearest by text, nearest by image, random, none twice.

    They are then shuffled, so that a place in the pool says nothing.
    """
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
            # Of equally many best in any order; no full sort is needed.
            chosen += np.argpartition(-score, size - 1)[:size].tolist() if size else []
        pools[row] = rng.permutation(chosen)
    return pools
