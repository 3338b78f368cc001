from __future__ import annotations

import dataclasses

import pytest
import torch

from core_rl.config import PathsConfig
from lever.answerers import KernelICLAnswerer
from lever.config import DataKind, LeverDataConfig, SamplerKind
from lever.datasets import LeverData, load_data, most_common
from tests.lever.worlds import SMALL, small_world


def small_config(**more: object) -> LeverDataConfig:
    return dataclasses.replace(LeverDataConfig(world=SMALL, candidate_num=12), **more)


def load(config: LeverDataConfig, seed: int = 0) -> LeverData:
    return load_data(config, PathsConfig(), seed)


def test_the_generated_data_are_the_world_of_the_seed() -> None:
    data, world = load(small_config()), small_world()
    assert data.world is not None
    assert [len(split) for split in (data.train, data.val, data.test)] == [6, 3, 5]
    assert [one.query for one in data.test] == list(world.test)
    assert data.test[0].pool == tuple(world.pool_of(data.test[0].query).tolist())
    assert torch.equal(data.image_ND, torch.from_numpy(world.image))
    assert torch.equal(data.text_ND, torch.from_numpy(world.text))
    assert data.demos == range(60)
    assert data.answers[world.train[0]] == world.answers_of(world.train[0])
    assert data.items[3].answer == world.answer_text(world.gold[3])


def test_the_fingerprint_follows_seed_settings_and_pools() -> None:
    prints = {
        load(config, seed).fingerprint
        for config, seed in (
            (small_config(), 0),
            (small_config(), 1),
            (small_config(shifted=True), 0),
            (small_config(sampler=SamplerKind.mix), 0),
            (small_config(sampler=SamplerKind.mix, candidate_num=8), 0),
        )
    }
    assert len(prints) == 5
    assert load(small_config()).fingerprint == load(small_config()).fingerprint


def test_a_shifted_world_has_other_settings_and_other_items() -> None:
    data = load(small_config(shifted=True))
    assert data.world is not None
    assert data.world.settings.noise > SMALL.noise
    assert not torch.equal(data.image_ND, load(small_config()).image_ND)


def test_another_sampler_changes_the_world_that_scores_exactly() -> None:
    data = load(small_config(sampler=SamplerKind.text_sim, candidate_num=5))
    assert data.world is not None
    for one in data.test:
        assert len(one.pool) == 5
        assert tuple(data.world.pool_of(one.query).tolist()) == one.pool
        nearest = (data.text_ND[:60] @ data.text_ND[one.query]).topk(5).indices
        assert set(one.pool) == set(nearest.tolist())


def test_a_prompt_is_what_the_answerer_takes() -> None:
    data = load(small_config())
    assert data.world is not None
    one = data.val[0]
    prompt = data.prompted(one.query, one.pool[:2])
    assert (prompt.query, prompt.shots) == (one.query, one.pool[:2])
    assert KernelICLAnswerer(data.world).generate([prompt, data.prompted(one.query)])


def test_a_prompt_outside_the_pool_names_query_and_field() -> None:
    data = load(small_config())
    one = data.val[0]
    outside = next(item for item in data.demos if item not in one.pool)
    with pytest.raises(ValueError, match=rf"query {one.query}: demos \[{outside}\]: .*pool of 12"):
        data.prompted(one.query, [outside])
    with pytest.raises(ValueError, match="different ids"):
        data.prompted(one.query, [one.pool[0], one.pool[0]])
    with pytest.raises(ValueError, match="query 0: not a query of lever_synthetic"):
        data.prompted(0)
    with pytest.raises(ValueError, match="item 74: expected an id from 0 to 73"):
        data.answers_of(74)


def test_the_reference_is_what_most_annotators_said() -> None:
    assert most_common(["cat", "dog", "dog"]) == "dog"
    assert most_common(["cat", "dog"]) == "cat"
    data = load(small_config())
    query = data.train[0].query
    assert data.references[query] == most_common(data.answers_of(query))


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match=r"data_mix\.candidate_num=9: expected 12"):
        LeverDataConfig(world=SMALL, candidate_num=9)
    with pytest.raises(ValueError, match=r"data_mix\.sampler='world'"):
        LeverDataConfig(kind=DataKind.files, world=SMALL, candidate_num=12)
