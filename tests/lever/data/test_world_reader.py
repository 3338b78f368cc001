from __future__ import annotations

import numpy as np
import pytest

from lever.data.world_reader import KernelReader
from tests.lever.worlds import default_world, small_world


@pytest.mark.parametrize("query", [61, 69, 73])
def test_all_pairs_at_once_equal_one_by_one(query: int) -> None:
    world, reader = small_world(), KernelReader(small_world())
    pool = world.pool_of(query)
    answers = reader.pair_answers(query)
    for i, first in enumerate(pool):
        for j, last in enumerate(pool):
            slow = reader.logits(query, np.array([[first, last]])).argmax()
            assert answers[i, j] == (-1 if i == j else slow)


def test_rewards_are_the_accuracy_of_the_answers() -> None:
    world, reader = small_world(), KernelReader(small_world())
    answers, rewards = reader.pair_answers(70), reader.pair_rewards(70)
    assert np.isnan(np.diag(rewards)).all()
    assert rewards[2, 3] == world.accuracy[70, answers[2, 3]]


def test_order_matters() -> None:
    world, reader = default_world(), KernelReader(default_world())
    answers = np.stack([reader.pair_answers(query) for query in world.test[:20]])
    assert (answers != answers.transpose(0, 2, 1)).mean() > 0.02


def test_the_last_demonstration_weighs_most() -> None:
    weights = KernelReader(small_world()).weights(3)
    assert weights.tolist() == pytest.approx([0.85**2, 0.85, 1.0])


def test_a_second_demonstration_helps_only_if_it_says_something_else() -> None:
    world, reader = default_world(), KernelReader(default_world())
    demos = np.arange(world.settings.demos)
    for query in world.test:
        said = reader.evidence(query, demos)
        plain = said.for_answer == 0
        named = np.flatnonzero((said.for_name == 6) & (said.for_value == 0) & plain)
        valued = np.flatnonzero((said.for_value == 6) & (said.for_name == 0) & plain)
        if len(named) >= 2 and len(valued):
            break
    slates = np.array([[named[0], named[1]], [named[1], named[1]], [valued[0], named[1]]])
    gold = (
        reader.logits(query, slates)[:, world.gold[query]] - world.prior[query, world.gold[query]]
    )
    assert gold == pytest.approx([6.0, 6.0, 6.0 + 0.85 * 6.0], abs=1e-5)


def test_a_lookalike_pulls_its_whole_answer() -> None:
    world, reader = default_world(), KernelReader(default_world())
    query = world.test[0]
    said = reader.evidence(query, np.arange(world.settings.demos))
    assert said.for_answer.max() <= 9 * 1.5
    demo = int(np.argmax(said.for_answer * (said.for_name == 0) * (said.for_value == 0)))
    pulled = reader.logits(query, np.array([[demo]]))[0] - world.prior[query]
    assert np.flatnonzero(pulled > 1e-6).tolist() == [world.gold[demo]]
    assert pulled[world.gold[demo]] == pytest.approx(said.for_answer[demo], abs=1e-5)


def test_no_demonstration_leaves_the_prior() -> None:
    world, reader = small_world(), KernelReader(small_world())
    assert np.array_equal(reader.logits(70, np.empty((1, 0), dtype=np.int64))[0], world.prior[70])
