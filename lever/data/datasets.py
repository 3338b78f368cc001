"""The data of a run: items, splits of queries, one pool of demonstrations a query, embeddings.

An item is a question with its picture.  Items have ids from 0; the first ones are the bank, from
which demonstrations are chosen.  A query keeps ONE pool, in one order, from generation to
inference: pools are drawn here and nowhere else.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from core_rl.config import PathsConfig
from core_rl.fingerprint import fingerprint
from lever.config import DataKind, EncodingConfig, LeverDataConfig, SamplerKind
from lever.data.pools import POOLS_VERSION, draw_pools
from lever.data.sources import Item, Splits, most_common, read_easyvqa, read_files, split_items
from lever.data.vqa_files import Question
from lever.data.world import WORLD_VERSION, World, make_world, shifted_settings
from lever.features.encoders import Seen, encode_pictures, encode_questions
from lever.features.pictures import written
from lever.features.slate_features import SlateQuery
from lever.generation_config import Split

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prompted:
    """A question with its demonstrations.

    Attributes:
        query: id of the question.
        shots: ids of the demonstrations in prompt order, the last one nearest to the question.
    """

    query: int
    shots: tuple[int, ...] = ()


@dataclass(frozen=True)
class LeverData:
    """The data of a run.

    Attributes:
        name: of the data set, for tables.
        fingerprint: digest of items, splits, pools and embeddings.
        items_fingerprint: digest of the items and their order; part of the key of an answer, which
            depends on nothing else of the data.
        items: by id.
        demos: ids of the bank.
        train: training queries; they may be in the bank, but never in their own pool.
        val: validation queries, for the choice of a checkpoint.
        test: test queries.
        image_ND: embeddings of the pictures, by id, unit length.
        text_ND: embeddings of the questions, by id, unit length.
        encoding: whether a selector sees the picture and the question.
        world: the generated world, for exact scores; None for other data.
    """

    name: str
    fingerprint: str
    items_fingerprint: str
    items: tuple[Item, ...]
    demos: range
    train: tuple[SlateQuery, ...]
    val: tuple[SlateQuery, ...]
    test: tuple[SlateQuery, ...]
    image_ND: Tensor
    text_ND: Tensor
    encoding: EncodingConfig
    world: World | None = None

    @cached_property
    def queries(self) -> dict[int, SlateQuery]:
        """Every query of the three splits by its id."""
        return {one.query: one for one in (*self.train, *self.val, *self.test)}

    @cached_property
    def answers(self) -> dict[int, tuple[str, ...]]:
        """The annotators' answers to each query."""
        return {query: self.question_of(query).answers for query in self.queries}

    @cached_property
    def references(self) -> dict[int, str]:
        """The most frequent answer to each query; beams raise its probability."""
        return {query: most_common(said) for query, said in self.answers.items()}

    def split(self, split: Split) -> tuple[SlateQuery, ...]:
        """The queries of a split."""
        return {Split.train: self.train, Split.val: self.val, Split.test: self.test}[split]

    @property
    def pools(self) -> dict[int, tuple[int, ...]]:
        """Pool of each query."""
        return {query: one.pool for query, one in self.queries.items()}

    def question_of(self, item: int) -> Question:
        """Look up a question.

        Raises:
            ValueError: there is no such item.
        """
        if not 0 <= item < len(self.items):
            raise ValueError(f"item {item}: expected an id from 0 to {len(self.items) - 1}")
        return self.items[item].question


def load_data(config: LeverDataConfig, paths: PathsConfig, seed: int) -> LeverData:
    """Load or generate the data of a run.

    Args:
        config: of the data.
        paths: `data` holds the files that `config` names, `cache` the embeddings.
        seed: of the generated world.  Real data are split by `data_mix.split.seed`, so that all
            runs test on the same questions.

    Raises:
        FileNotFoundError: a file, a picture or a checkpoint is missing.
        ImportError: the package of `easyvqa` is not installed.
        ValueError: a file breaks its layout, or has too few questions for the splits or the pools.
    """
    if config.kind is DataKind.synthetic:
        return generated_data(config, seed)
    if config.kind is DataKind.easyvqa:
        train, test = read_easyvqa()
    else:
        train, test = read_files(config.files, Path(paths.data) if paths.data else None)
    splits = split_items(train, test, config.split)
    log.info(
        "%s: %d demonstrations, %d training, %d validation and %d test queries",
        config.name,
        *map(len, (splits.demos, splits.train, splits.val, splits.test)),
    )
    order = [item.question.question_id for item in (*train, *test)]
    return encoded_data(config, splits, Path(paths.cache) / "lever" / "embeddings", order)


def encoded_data(
    config: LeverDataConfig, splits: Splits, cache: Path, order: Sequence[int] = ()
) -> LeverData:
    """Embed the items, or read their embeddings from the cache, and draw the pools.

    `order` has the ids of all questions in the order of their files.
    """
    items, asked = splits.items, [item.question for item in splits.items]
    seen = Seen(
        question_ids=[one.question_id for one in asked],
        texts=[one.text for one in asked],
        pictures=[item.picture for item in items],
        tags=[item.tags for item in items],
        bank=splits.demos,
        order=order,
    )
    _check_pictures(items)
    text_ND = encode_questions(config.text_encoder, seen, cache)
    image_ND = encode_pictures(config.image_encoder, config.text_encoder, seen, cache)
    queries = [*splits.train, *splits.val, *splits.test]
    shown = [one.image_id for one in asked]
    rows = image_ND, text_ND
    pools = draw_pools(config, rows, splits.demos, queries, config.split.seed, shown)
    pool_of = dict(zip(queries, map(tuple, pools.tolist()), strict=True))

    def chosen(ids: range) -> tuple[SlateQuery, ...]:
        return tuple(SlateQuery(query, pool_of[query]) for query in ids)

    # A replaced picture is another item: answers about the old one do not belong to it.
    files = {path: written(path) for path in {item.picture for item in items} if path is not None}
    about = [
        (asdict(item.question), item.answer, item.picture and files[item.picture], item.tags)
        for item in items
    ]
    drawn = fingerprint(about)
    digests = [hashlib.sha256(part.numpy().data).hexdigest() for part in rows]
    return LeverData(
        name=config.name,
        fingerprint=fingerprint(drawn, splits.train, pools.tolist(), digests, config.encoding),
        items_fingerprint=drawn,
        items=items,
        demos=splits.demos,
        train=chosen(splits.train),
        val=chosen(splits.val),
        test=chosen(splits.test),
        image_ND=image_ND,
        text_ND=text_ND,
        encoding=config.encoding,
    )


def _check_pictures(items: Sequence[Item]) -> None:
    """Raise FileNotFoundError if a picture is missing, before any costly work."""
    for path in dict.fromkeys(item.picture for item in items):
        if path is not None and not path.is_file():
            raise FileNotFoundError(
                f"{path}: no such picture: check data_mix.files.pictures and picture_name"
            )


def generated_data(config: LeverDataConfig, seed: int) -> LeverData:
    """Generate the world of a seed; with `shifted`, draw its settings first."""
    settings = shifted_settings(config.world, seed) if config.shifted else config.world
    world = make_world(settings, seed)
    image_ND, text_ND = torch.from_numpy(world.image), torch.from_numpy(world.text)
    queries = range(settings.demos, len(world.gold))
    if config.sampler is not SamplerKind.world:
        demos = range(settings.demos)
        pool = draw_pools(config, (image_ND, text_ND), demos, queries, seed)
        world = replace(world, pool=pool)
    splits = [
        tuple(SlateQuery(query, tuple(world.pool_of(query).tolist())) for query in ids)
        for ids in (world.train, world.val, world.test)
    ]
    drawn = fingerprint(settings, seed, WORLD_VERSION)
    return LeverData(
        name=config.name,
        fingerprint=fingerprint(
            drawn, config.sampler, config.candidate_num, config.encoding, POOLS_VERSION
        ),
        items_fingerprint=drawn,
        items=tuple(_world_item(world, item) for item in range(len(world.gold))),
        demos=range(settings.demos),
        train=splits[0],
        val=splits[1],
        test=splits[2],
        image_ND=image_ND,
        text_ND=text_ND,
        encoding=config.encoding,
        world=world,
    )


def _world_item(world: World, item: int) -> Item:
    """Put an item into words, for people and prompts; its embedding does not come from them."""
    kind, attribute = world.kind[item], world.attribute[item]
    question = Question(
        question_id=item,
        image_id=item,
        text=f"Which name and value, by kind {kind} and attribute {attribute}?",
        answers=world.answers_of(item),
        question_type=f"kind {kind}",
    )
    tags = (f"entity {world.entity[item]}", f"topic {world.topic[item]}")
    return Item(question, world.answer_text(world.gold[item]), tags=tags)
