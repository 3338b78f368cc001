from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lever.answerers.protocol import KernelICLAnswerer
from lever.data.datasets import Prompted
from lever.data.world import make_world
from tests.lever.worlds import SMALL, small_world


@pytest.fixture(scope="module")
def answerer() -> KernelICLAnswerer:
    return KernelICLAnswerer(small_world())


def test_a_mixed_batch_is_answered_as_one_by_one(answerer: KernelICLAnswerer) -> None:
    prompts = [Prompted(70, (3, 4)), Prompted(71), Prompted(70, (4, 3)), Prompted(70, (5,))]
    assert answerer.generate(prompts) == [answerer.generate([one])[0] for one in prompts]
    assert answerer.generate([]) == []


def test_generation_is_the_answer_of_all_pairs(answerer: KernelICLAnswerer) -> None:
    world = small_world()
    pool = world.pool_of(72)
    answers = answerer.reader.pair_answers(72)
    (said,) = answerer.generate([Prompted(72, (int(pool[1]), int(pool[5])))])
    assert said == world.answer_text(answers[1, 5])


def test_probabilities_sum_to_one_and_peak_at_the_generation(answerer: KernelICLAnswerer) -> None:
    prompt = Prompted(70, (3, 4))
    texts = [small_world().answer_text(i) for i in range(SMALL.answers)]
    logp = answerer.answer_logprob([prompt] * len(texts), texts)
    assert np.exp(logp).sum() == pytest.approx(1)
    assert [texts[int(np.argmax(logp))]] == answerer.generate([prompt])


def test_an_answer_of_another_world_is_an_error(answerer: KernelICLAnswerer) -> None:
    with pytest.raises(ValueError, match=r"answers \['dog'\]: expected the form name0 value0"):
        answerer.answer_logprob([Prompted(70)], ["dog"])


def test_the_fingerprint_names_settings_and_seed(answerer: KernelICLAnswerer) -> None:
    same = KernelICLAnswerer(make_world(SMALL, 0))
    other_seed = KernelICLAnswerer(make_world(SMALL, 1))
    other_settings = KernelICLAnswerer(make_world(replace(SMALL, copying=8.0), 0))
    assert same.fingerprint == answerer.fingerprint
    names = {answerer.fingerprint, other_seed.fingerprint, other_settings.fingerprint}
    assert len(names) == 3
