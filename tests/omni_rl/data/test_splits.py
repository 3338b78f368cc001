"""What a run trains on, selects by and is tested with."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core_rl.config import OnBadRecord, PathsConfig, TrainerConfig
from omni_rl.config import MediaConfig, OmniDataConfig, SourceConfig
from omni_rl.data import scenes
from omni_rl.data import splits as data
from omni_rl.data.media import load_clip
from omni_rl.data.record import Record
from omni_rl.data.record_files import read_file
from omni_rl.data.splits import (
    Splits,
    load_splits,
    load_test,
    most_used,
    with_instructions,
    with_solution,
)

MEDIA = MediaConfig(fps=8.0, max_frames=8, min_pixels=3136, max_pixels=3136)


def sources(records: list[Record]) -> Counter[str]:
    return Counter(record.source for record in records)


# -- generated -----------------------------------------------------------------------------------


def test_shares_are_exact(splits: Splits) -> None:
    assert sources(splits.train) == {"social_iq": 5, "emer": 3, "video_r1": 2}
    assert sources(splits.val) == {"social_iq": 2, "emer": 1, "video_r1": 1}
    assert sources(splits.test) == {
        "social_iq": 5,
        "emer": 3,
        "video_r1": 2,
        "instruction": 2,
    }


def test_splits_share_no_scene(splits: Splits) -> None:
    uses = [splits.train, splits.val, [r for r in splits.test if r.facts]]
    clips = [record.videos[0] for records in uses for record in records]
    assert len(set(clips)) == len(clips)
    waves = {load_clip(clip, MEDIA).waveform_S.tobytes() for clip in clips}
    assert len(waves) == len(clips)
    ids = [record.id for records in uses for record in records]
    assert len(set(ids)) == len(ids)


def test_instructions_come_last_each_on_its_own_clip(splits: Splits) -> None:
    asked = splits.test[-2:]
    assert [record.answer for record in asked] == list(scenes.WORDS[:2])
    assert [record.videos for record in asked] == [record.videos for record in splits.test[:2]]


def test_instructions_are_no_more_than_the_clips(splits: Splits) -> None:
    assert len(with_instructions(splits.val, 100)) == 8


def test_the_same_seed_gives_the_same_splits_in_the_same_order(
    splits: Splits, world: OmniDataConfig, sizes: TrainerConfig, cache: PathsConfig
) -> None:
    again = load_splits(world, sizes, cache, seed=0)
    assert [record.id for record in again.train] == [record.id for record in splits.train]
    assert [record.facts for record in again.test] == [record.facts for record in splits.test]


def test_another_seed_draws_other_scenes(
    splits: Splits, world: OmniDataConfig, cache: PathsConfig
) -> None:
    other = load_test(world, TrainerConfig(test_size=10), cache, seed=1)
    assert [record.facts for record in other] != [record.facts for record in splits.test]
    assert not {r.videos[0] for r in other} & {r.videos[0] for r in splits.test}


def test_the_test_records_alone_are_those_of_the_splits(
    splits: Splits, world: OmniDataConfig, sizes: TrainerConfig, cache: PathsConfig
) -> None:
    alone = load_test(world, sizes, cache, seed=0)
    assert [record.id for record in alone] == [record.id for record in splits.test]


def test_the_shifted_test_shows_the_same_facts_in_another_look(
    splits: Splits, world: OmniDataConfig, sizes: TrainerConfig, cache: PathsConfig
) -> None:
    shifted = load_splits(replace(world, shifted=True), sizes, cache, seed=0)
    assert [r.videos for r in shifted.train] == [r.videos for r in splits.train]
    assert [r.videos for r in shifted.val] == [r.videos for r in splits.val]
    assert [r.facts for r in shifted.test] == [r.facts for r in splits.test]
    assert not {r.videos for r in shifted.test} & {r.videos for r in splits.test}

    def brightness(records: list[Record]) -> float:
        frames = [load_clip(record.videos[0], MEDIA).frames_THWC for record in records[:4]]
        return float(np.mean([clip[:, :8].mean() for clip in frames]))

    assert brightness(shifted.test) < 150 < brightness(splits.test)


def test_another_generator_has_another_folder(
    cache: PathsConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = data.scene_folder(cache, 0, scenes.drawing.DEFAULT)
    assert data.scene_folder(cache, 0, scenes.drawing.DEFAULT) == one
    others = {
        data.scene_folder(cache, 1, scenes.drawing.DEFAULT),
        data.scene_folder(cache, 0, scenes.drawing.SHIFTED),
    }
    assert len(others | {one}) == 3


def test_a_run_may_go_without_validation(
    world: OmniDataConfig, sizes: TrainerConfig, cache: PathsConfig
) -> None:
    got = load_splits(world, replace(sizes, val_size=0), cache, seed=0)
    assert not got.val
    assert len(got.train) == 10


def test_a_split_too_small_for_a_source_goes_without_it(
    world: OmniDataConfig, sizes: TrainerConfig, cache: PathsConfig
) -> None:
    test = load_test(world, replace(sizes, test_size=2), cache, seed=0)
    assert sources(test) == {"social_iq": 1, "emer": 1, "instruction": 2}


def test_a_short_run_draws_no_more_clips_than_it_can_use(
    world: OmniDataConfig, tmp_path: Path
) -> None:
    trainer = TrainerConfig(max_steps=1, batch_size=1, val_size=3, test_size=3)
    assert most_used(trainer) == 10
    paths = PathsConfig(cache=str(tmp_path))
    splits = load_splits(replace(world, size=1500), trainer, paths, seed=0)
    assert len(splits.train) == 10
    assert sources(splits.train) == {"social_iq": 5, "emer": 3, "video_r1": 2}
    assert most_used(TrainerConfig()) >= 10**6


# -- real ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(splits: Splits, world: OmniDataConfig, cache: PathsConfig) -> OmniDataConfig:
    """The files of the generated world, read as anybody's data."""
    folder = str(data.scene_folder(cache, 0, scenes.drawing.DEFAULT))
    families = {name: source.family for name, source in world.sources.items()}
    return OmniDataConfig(
        name="real",
        sources={
            name: SourceConfig(path=f"{folder}/{family}_train.jsonl", data_root=folder)
            for name, family in families.items()
        },
        ratios=dict(world.ratios),
        size=10,
        generated=False,
        val_path=f"{folder}/social_val.jsonl",
        val_root=folder,
        test_path="social_test.jsonl",  # found under `paths.data`
        test_root=folder,
    )


def at(config: OmniDataConfig) -> PathsConfig:
    return PathsConfig(data=config.val_root)


def test_real_files_are_mixed_and_held_out_by_file(
    real: OmniDataConfig, splits: Splits, sizes: TrainerConfig
) -> None:
    got = load_splits(real, replace(sizes, val_size=1), at(real), seed=0)
    assert sources(got.train) == {"social_iq": 5, "emer": 3, "video_r1": 2}
    assert len(got.val) == 1
    assert [record.answer for record in got.test] == [r.answer for r in splits.test[:5]]
    assert {record.facts.get("colour") for record in got.train} <= set(scenes.drawing.COLOURS)


def test_the_size_of_the_test_limits_real_records_where_it_is_set(
    real: OmniDataConfig, sizes: TrainerConfig
) -> None:
    got = {
        size: len(load_test(real, replace(sizes, test_size=size), at(real), seed=0))
        for size in (2, None)
    }
    assert got == {2: 2, None: 5}


def test_the_folder_of_the_test_is_looked_for_in_the_data(
    real: OmniDataConfig, sizes: TrainerConfig
) -> None:
    folder = Path(real.test_root)
    within = replace(real, test_path=f"{folder.name}/social_test.jsonl", test_root=folder.name)
    paths = PathsConfig(data=str(folder.parent))
    assert len(load_test(within, replace(sizes, test_size=2), paths, seed=0)) == 2


def test_held_out_records_without_a_general_source_are_named(
    real: OmniDataConfig, sizes: TrainerConfig, caplog: pytest.LogCaptureFixture
) -> None:
    config = replace(real, general=["video_r1"])
    held_out = load_test(config, sizes, at(config), seed=0)
    (source,) = sources(held_out)
    assert (
        f"no general_accuracy: no test record is of data_mix.general=['video_r1'], all are "
        f"of ['{source}']" in caplog.text
    )
    caplog.clear()
    load_test(replace(config, general=[]), sizes, at(config), seed=0)
    assert not caplog.text


def test_a_test_of_nothing_is_refused_before_anything_is_read(
    real: OmniDataConfig, world: OmniDataConfig, sizes: TrainerConfig
) -> None:
    nothing = replace(sizes, test_size=0)
    for config in (world, real):
        with pytest.raises(ValueError, match=r"trainer\.test_size=0: expected null"):
            load_splits(config, nothing, PathsConfig(cache="nowhere"), seed=0)


@pytest.mark.parametrize("use", ["val", "test"])
def test_held_out_files_must_be_named(use: str, real: OmniDataConfig, sizes: TrainerConfig) -> None:
    config = replace(real, **{f"{use}_path": ""})
    with pytest.raises(ValueError, match=rf"data_mix\.{use}_path is empty: name the held-out"):
        load_splits(config, sizes, at(config), seed=0)


def test_a_missing_held_out_file_is_named(real: OmniDataConfig, sizes: TrainerConfig) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.json"):
        load_splits(replace(real, val_path="nowhere.json"), sizes, at(real), seed=0)


@pytest.fixture
def damaged(real: OmniDataConfig, tmp_path: Path) -> OmniDataConfig:
    """The same with one social clip cut short."""
    folder = Path(real.val_root)
    lines = (folder / "social_train.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    for row in rows:
        row["path"] = str(folder / row["path"])
    broken = tmp_path / "cut.mp4"
    broken.write_bytes(Path(rows[2]["path"]).read_bytes()[:900])
    rows[2]["path"] = str(broken)
    file = tmp_path / "social.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    return replace(real, sources=real.sources | {"social_iq": SourceConfig(path=str(file))})


def test_a_clip_that_cannot_be_decoded_stops_the_run_before_it_starts(
    damaged: OmniDataConfig, sizes: TrainerConfig
) -> None:
    with pytest.raises(ValueError, match=r"social\.jsonl:3.*cut\.mp4"):
        load_splits(damaged, sizes, at(damaged), seed=0)


def test_or_is_counted_and_skipped(
    damaged: OmniDataConfig, sizes: TrainerConfig, caplog: pytest.LogCaptureFixture
) -> None:
    config = replace(damaged, on_bad_record=OnBadRecord.skip)
    got = load_splits(config, sizes, at(config), seed=0)
    assert len(got.train) == 9
    assert "cut.mp4" in caplog.text


@pytest.fixture
def untaught(real: OmniDataConfig, tmp_path: Path) -> OmniDataConfig:
    """The same with one social record that has no solution."""
    folder = Path(real.val_root)
    rows = [json.loads(line) for line in (folder / "social_train.jsonl").read_text().splitlines()]
    del rows[2]["solution"]
    file = tmp_path / "social.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    source = SourceConfig(path=str(file), data_root=str(folder))
    return replace(real, sources=real.sources | {"social_iq": source})


def test_a_record_without_a_solution_stops_a_run_that_learns_from_them(
    untaught: OmniDataConfig, sizes: TrainerConfig
) -> None:
    assert len(load_splits(untaught, sizes, at(untaught), seed=0).train) == 10
    with pytest.raises(ValueError, match=r"social\.jsonl:3.*no solution to imitate"):
        load_splits(untaught, sizes, at(untaught), seed=0, taught=True)


def test_or_is_counted_and_another_takes_its_place(
    untaught: OmniDataConfig, sizes: TrainerConfig, caplog: pytest.LogCaptureFixture
) -> None:
    config = replace(untaught, on_bad_record=OnBadRecord.skip)
    got = load_splits(config, sizes, at(config), seed=0, taught=True)
    assert sources(got.train) == {"social_iq": 5, "emer": 3, "video_r1": 2}
    assert all(record.solution for record in got.train)
    assert "solutions: skipped 1 records" in caplog.text


def test_supervision_says_what_it_teaches(
    untaught: OmniDataConfig, caplog: pytest.LogCaptureFixture
) -> None:
    records = read_file(Path(untaught.val_path), untaught.val_root).records[:3]
    whole = "<context>c</context><think>t</think><answer>A</answer>"
    bare = [replace(one, solution="<answer>A</answer>") for one in records]
    assert with_solution([replace(records[0], solution=whole)], OnBadRecord.error)
    assert caplog.text == ""
    assert with_solution(bare, OnBadRecord.error) == bare
    said = f"teaches answers WITHOUT <context>, <think>: {len(bare)} of {len(bare)} solutions"
    assert said in caplog.text
    assert bare[0].where in caplog.text
