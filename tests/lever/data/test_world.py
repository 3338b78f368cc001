from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from lever.data.vqa_accuracy import vqa_accuracy
from lever.data.world import Floats, make_world, shifted_settings
from lever.data.world_reader import KernelReader
from lever.world_config import DEFAULT, SHIFTED, WorldSettings
from tests.lever.worlds import SMALL, all_rewards, default_world, small_world

QUERIES = 300
LEVELS = (0.0, 0.3, 0.6, 0.9, 1.0)


@pytest.fixture(scope="module")
def rewards() -> Floats:
    return all_rewards(default_world(), default_world().test[:QUERIES])


def nearest(embeddings: np.ndarray, query: int, count: int) -> list[int]:
    """Places in the pool, the nearest last."""
    pool = default_world().pool_of(query)
    return np.argsort(embeddings[pool] @ embeddings[query])[-count:].tolist()


def worth(rewards: Floats, pairs: list[list[int]]) -> float:
    return float(np.mean([table[tuple(pair)] for table, pair in zip(rewards, pairs, strict=True)]))


def test_the_choice_of_demonstrations_matters(rewards: Floats) -> None:
    oracle = np.nanmax(rewards, axis=(1, 2)).mean()
    assert oracle - np.nanmean(rewards) >= 0.2
    assert oracle >= 0.8


def test_random_groups_are_often_mixed(rewards: Floats) -> None:
    pairs = rewards[:, ~np.eye(rewards.shape[1], dtype=bool)]
    # Chance that eight pairs are not all of one level, exact but for drawing with replacement.
    flat = sum((np.abs(pairs - level) < 1e-6).mean(axis=1) ** 8 for level in LEVELS)
    assert (1 - flat).mean() >= 0.3


def test_simple_choices_fall_far_short_of_the_best(rewards: Floats) -> None:
    world = default_world()
    queries = world.test[:QUERIES]
    oracle = np.nanmax(rewards, axis=(1, 2)).mean()
    text = worth(rewards, [nearest(world.text, query, 2) for query in queries])
    image = worth(rewards, [nearest(world.image, query, 2) for query in queries])
    both = [
        [nearest(world.image, query, 1)[0], nearest(world.text, query, 1)[0]] for query in queries
    ]
    both = [pair if pair[0] != pair[1] else [(pair[1] + 1) % 64, pair[1]] for pair in both]
    assert text <= oracle - 0.4
    assert image <= oracle - 0.4
    assert worth(rewards, both) <= oracle - 0.25


def test_no_constant_pair_of_demonstrations_is_good(rewards: Floats) -> None:
    world, reader = default_world(), KernelReader(default_world())
    pairs = np.random.default_rng(0).integers(world.settings.demos, size=(60, 2))

    def worth_of(queries: range) -> Floats:
        answers = [reader.logits(query, pairs).argmax(axis=1) for query in queries]
        return np.take_along_axis(world.accuracy[list(queries)], np.stack(answers), 1).mean(axis=0)

    best = int(worth_of(world.train[:60]).argmax())
    oracle = np.nanmax(rewards, axis=(1, 2)).mean()
    assert worth_of(world.test[:100])[best] <= oracle - 0.4


def test_the_answer_cannot_be_read_from_the_query_alone() -> None:
    world = default_world()
    test = list(world.test[:QUERIES])
    zero_shot = world.accuracy[test, world.prior[test].argmax(axis=1)].mean()
    seen = np.concatenate([world.image, world.text], axis=1)
    known = [*range(world.settings.demos), *world.train]
    targets = np.eye(world.settings.answers, dtype=np.float32)[world.gold[known]]
    guess = Ridge(alpha=10.0).fit(seen[known], targets).predict(seen[test]).argmax(axis=1)
    assert zero_shot <= 0.3
    assert world.accuracy[test, guess].mean() <= 0.3


def test_accuracy_is_the_official_metric() -> None:
    world = small_world()
    for item in world.test:
        for answer in {*world.said[item].tolist(), int(world.gold[item]), 0, 200}:
            official = vqa_accuracy(world.answer_text(answer), world.answers_of(item))
            assert world.accuracy[item, answer] == pytest.approx(official)


def test_annotators_agree_as_often_as_the_settings_say() -> None:
    world = default_world()
    agreed = (world.said == world.gold[:, None]).mean()
    assert agreed == pytest.approx((DEFAULT.agreement_low + DEFAULT.agreement_high) / 2, abs=0.02)
    certain = make_world(replace(SMALL, agreement_low=1.0, agreement_high=1.0), 0)
    assert (certain.said == certain.gold[:, None]).all()


def test_a_pool_holds_the_nearest_and_strangers_once_each_without_the_query() -> None:
    world = default_world()
    for query in (world.train[0], world.val[0], world.test[0]):
        pool = world.pool_of(query)
        assert len(set(pool.tolist())) == 64
        assert pool.max() < world.settings.demos <= query
        by_text = np.argsort(-(world.text[: world.settings.demos] @ world.text[query]))[:16]
        assert set(by_text.tolist()) <= set(pool.tolist())
        by_image = np.argsort(-(world.image[: world.settings.demos] @ world.image[query]))
        rest = [demo for demo in by_image.tolist() if demo not in by_text][:16]
        assert set(rest) <= set(pool.tolist())


def test_a_place_in_the_pool_says_nothing() -> None:
    world = default_world()
    place = [
        int(np.argmax(world.text[world.pool_of(query)] @ world.text[query]))
        for query in range(world.train.start, world.test.stop)
    ]
    assert np.bincount(place, minlength=64).max() <= 0.05 * len(place)


def test_a_query_outside_the_world_has_no_pool() -> None:
    with pytest.raises(ValueError, match="query 5: expected an id from 60 to 73"):
        small_world().pool_of(5)


def test_one_seed_makes_one_world() -> None:
    again, other = make_world(SMALL, 0), make_world(SMALL, 1)
    for item in fields(again):
        same = np.array_equal(getattr(again, item.name), getattr(small_world(), item.name))
        assert same or item.name in ("settings", "seed"), item.name
    assert not np.array_equal(again.gold, other.gold)
    assert not np.allclose(again.image, other.image)


def test_shifted_settings_are_outside_what_was_trained_on() -> None:
    shifted = shifted_settings(DEFAULT, 3)
    assert shifted == shifted_settings(DEFAULT, 3) != shifted_settings(DEFAULT, 4)
    for item in fields(SHIFTED):
        low, high = getattr(SHIFTED, item.name)
        assert low <= getattr(shifted, item.name) <= high
        assert not low <= getattr(DEFAULT, item.name) <= high


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"demos": 0}, "data_mix.world.demos=0: expected at least 1"),
        ({"values": 3}, "data_mix.world.values=3: expected at least the 6 attributes"),
        ({"err_name": 0.6}, "data_mix.world.err_value=0.55: expected at most 1"),
        ({"agreement_low": 0.95}, "data_mix.world.agreement_low=0.95: expected from 0 to 0.9"),
        ({"earlier_weight": 0.0}, "data_mix.world.earlier_weight=0.0: expected above 0"),
        ({"pool_random": 5000}, r"pool_random=5032: expected from 2 to the 2000"),
    ],
)
def test_settings_out_of_range(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WorldSettings(**change)  # type: ignore[arg-type]
