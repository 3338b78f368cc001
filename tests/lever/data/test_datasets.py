from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from PIL import Image

from core_rl.config import PathsConfig
from lever.answerers.protocol import KernelICLAnswerer
from lever.config import (
    DataKind,
    EncodingConfig,
    ImageEncoderConfig,
    ImageEncoderKind,
    LeverDataConfig,
    SamplerKind,
    SplitConfig,
    TextEncoderConfig,
)
from lever.data.datasets import LeverData, Prompted, load_data
from lever.data.sources import most_common
from tests.lever.vqa_folder import FILES, folder_config, write_vqa_folder
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
    prompts = [Prompted(one.query, one.pool[:2]), Prompted(one.query)]
    assert KernelICLAnswerer(data.world).generate(prompts)
    with pytest.raises(ValueError, match="item 74: expected an id from 0 to 73"):
        data.question_of(74)


def test_the_reference_is_what_most_annotators_said() -> None:
    assert most_common(["cat", "dog", "dog"]) == "dog"
    assert most_common(["cat", "dog"]) == "cat"
    data = load(small_config())
    query = data.train[0].query
    assert data.references[query] == most_common(data.question_of(query).answers)


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match=r"data_mix\.candidate_num=9: expected 12"):
        LeverDataConfig(world=SMALL, candidate_num=9)
    with pytest.raises(ValueError, match=r"data_mix\.sampler='world'"):
        LeverDataConfig(kind=DataKind.easyvqa)


def read(folder: Path, config: LeverDataConfig, seed: int = 0) -> LeverData:
    return load_data(config, PathsConfig(cache=str(folder / "cache"), data=str(folder)), seed)


def test_official_files_become_queries_with_pools_from_the_bank(tmp_path: Path) -> None:
    data = read(write_vqa_folder(tmp_path), folder_config())
    assert [len(part) for part in (data.demos, data.train, data.val, data.test)] == [30, 8, 4, 6]
    assert data.image_ND.shape[0] == data.text_ND.shape[0] == len(data.items) == 40
    for one in data.queries.values():
        assert len(one.pool) == 8
        assert set(one.pool) <= set(data.demos)
        picture = data.question_of(one.query).image_id
        assert picture not in {data.question_of(item).image_id for item in one.pool}
    assert data.world is None


def test_real_data_do_not_follow_the_seed_of_the_run(tmp_path: Path) -> None:
    write_vqa_folder(tmp_path)
    first, again = (read(tmp_path, folder_config(), seed) for seed in (0, 1))
    assert first.pools == again.pools
    assert first.fingerprint == again.fingerprint
    split = SplitConfig(demos=30, train=8, val=4, test=6, seed=1)
    assert read(tmp_path, folder_config(split=split)).fingerprint != first.fingerprint


def test_fingerprints_tell_items_from_what_is_made_of_them(tmp_path: Path) -> None:
    data = read(write_vqa_folder(tmp_path), folder_config())
    for more in (
        {"text_encoder": TextEncoderConfig(dims=5)},
        {"encoding": EncodingConfig(query_image=False)},
        {"candidate_num": 6},
    ):
        other = read(tmp_path, folder_config(**more))
        assert other.fingerprint != data.fingerprint
        assert other.items_fingerprint == data.items_fingerprint
    fewer = folder_config(split=SplitConfig(demos=29, train=8, val=4, test=6))
    assert read(tmp_path, fewer).items_fingerprint != data.items_fingerprint


def test_a_replaced_picture_is_another_item(tmp_path: Path) -> None:
    write_vqa_folder(tmp_path)
    files = dataclasses.replace(
        FILES, pictures="pictures", picture_name="picture_{image_id:04d}.png"
    )
    data = read(tmp_path, folder_config(files=files))
    again = read(tmp_path, folder_config(files=files))
    assert (again.fingerprint, again.items_fingerprint) == (
        data.fingerprint,
        data.items_fingerprint,
    )
    used = next(item.picture for item in data.items if item.picture is not None)
    Image.new("RGB", (30, 30), "red").save(used)
    # The selector sees tags alone, so that nothing else gives the new picture away.
    replaced = read(tmp_path, folder_config(files=files))
    assert replaced.fingerprint != data.fingerprint
    assert replaced.items_fingerprint != data.items_fingerprint


def test_pictures_are_looked_for_before_anything_is_spent(tmp_path: Path) -> None:
    write_vqa_folder(tmp_path)
    files = dataclasses.replace(
        FILES, pictures="pictures", picture_name="picture_{image_id:04d}.png"
    )
    encoder = ImageEncoderConfig(kind=ImageEncoderKind.statistics)
    data = read(tmp_path, folder_config(files=files, image_encoder=encoder))
    assert data.image_ND.shape == (40, 100)
    (tmp_path / "pictures" / "picture_0003.png").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"picture_0003\.png: no such picture: check data_m"
    ):
        read(tmp_path, folder_config(files=files))


def test_files_that_are_not_named_are_asked_for() -> None:
    with pytest.raises(ValueError, match=r"data_mix\.files\.questions=''"):
        LeverDataConfig(kind=DataKind.files, sampler=SamplerKind.mix)
