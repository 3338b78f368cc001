from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lever.config import FilesConfig, SplitConfig
from lever.data.sources import Item, most_common, read_easyvqa, read_files, split_items
from lever.data.vqa_files import Question
from tests.lever.okvqa import okvqa_folder, okvqa_questions
from tests.lever.vqa_folder import FILES, write_vqa_folder

SMALL = SplitConfig(demos=30, train=8, val=4, test=6)


def items(count: int, pictures: int, first: int = 0) -> list[Item]:
    asked = [
        Question(first + number, first + number % pictures, "What?", ("a", "b", "b"))
        for number in range(count)
    ]
    return [Item(one, most_common(one.answers)) for one in asked]


def pictures_of(part: list[Item] | tuple[Item, ...]) -> set[int]:
    return {item.question.image_id for item in part}


def test_no_picture_is_in_two_splits() -> None:
    splits = split_items(items(90, 30), [], SMALL)
    parts = [[splits.items[key] for key in ids] for ids in (splits.demos, splits.val, splits.test)]
    assert [len(part) for part in parts] == [30, 4, 6]
    assert splits.train == range(8)
    pictures = [pictures_of(part) for part in parts]
    assert not (pictures[0] & pictures[1] or pictures[0] & pictures[2] or pictures[1] & pictures[2])
    assert len({item.question.question_id for item in splits.items}) == 40


def test_the_split_follows_its_seed_and_is_no_prefix() -> None:
    drawn = [split_items(items(90, 30), [], replace(SMALL, seed=seed)) for seed in (0, 0, 1)]
    keys = [[item.question.question_id for item in one.items] for one in drawn]
    assert keys[0] == keys[1] != keys[2]
    assert sorted(keys[0][:30]) != keys[0][:30]


def test_what_is_asked_for_is_an_upper_bound() -> None:
    splits = split_items(items(30, 10), [], SplitConfig(demos=1000, train=900, val=50, test=50))
    assert len(splits.items) == 30
    assert splits.train == splits.demos


def test_questions_of_their_own_are_tested_on_whole() -> None:
    splits = split_items(items(30, 10), items(12, 4, first=500), SMALL)
    assert pictures_of([splits.items[key] for key in splits.test]) <= {500, 501, 502, 503}
    assert len(splits.test) == 6
    # No picture is kept back from training for a test that has its own.
    assert len(splits.demos) == 27


def test_a_test_question_or_picture_in_training_is_an_error() -> None:
    with pytest.raises(ValueError, match="3 values of question_id are among the training"):
        split_items(items(30, 10), items(3, 3), SMALL)
    shared = [
        replace(item, question=replace(item.question, question_id=900 + i))
        for i, item in enumerate(items(2, 2))
    ]
    with pytest.raises(ValueError, match=r"2 values of image_id .*first \[0, 1\]"):
        split_items(items(30, 10), shared, SMALL)


def test_too_few_pictures_for_the_splits_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"data_mix\.split\.val: none of the 6 questions about 2"):
        split_items(items(6, 2), [], SMALL)


def test_official_files_become_items(tmp_path: Path) -> None:
    write_vqa_folder(tmp_path, pictures=4)
    files = replace(FILES, pictures="pictures", picture_name="picture_{image_id:04d}.png")
    train, test = read_files(files, tmp_path)
    assert (len(train), test) == (12, [])
    one = train[4]
    assert one.question.question_id == 101
    assert one.answer == "cat"  # what most of the annotators said
    assert one.tags == ("cat", "sky")
    assert one.picture == tmp_path / "pictures" / "picture_0001.png"
    assert one.picture.is_file()


def test_test_files_are_read_beside_the_training_files(tmp_path: Path) -> None:
    write_vqa_folder(tmp_path / "train", pictures=3)
    write_vqa_folder(tmp_path / "val", pictures=2, first=50)
    files = FilesConfig(
        questions="train/questions.json",
        annotations="train/annotations.json",
        test_questions="val/questions.json",
        test_annotations="val/annotations.json",
        test_tags="val/tags.json",
    )
    train, test = read_files(files, tmp_path)
    assert [len(train), len(test)] == [9, 6]
    assert train[0].tags == ()
    assert test[0].tags == ("dog", "sky")


def test_tags_may_be_by_picture(tmp_path: Path) -> None:
    write_vqa_folder(tmp_path, pictures=2, first=3)
    (tmp_path / "tags.json").write_text(json.dumps({"3": ["lamp"]}))
    train, _ = read_files(FILES, tmp_path)
    assert [item.tags for item in train] == [("lamp",)] * 3 + [()] * 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (["dog"], "expected an object of lists of names"),
        ({"x": ["dog"]}, r"x=\['dog'\]: expected a question_id or image_id"),
        ({"7": "dog"}, "7='dog': expected a question_id"),
        ({"7": [1]}, r"7=\[1\]: expected a question_id"),
    ],
)
def test_bad_tags_are_an_error(tmp_path: Path, content: Any, message: str) -> None:
    write_vqa_folder(tmp_path, pictures=2)
    (tmp_path / "tags.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"tags\.json: {message}"):
        read_files(FILES, tmp_path)


@pytest.mark.parametrize("name", ["1.jpg", "{image}.jpg", "{image_id:x.jpg", "{}.jpg"])
def test_a_name_that_the_pictures_id_does_not_fit_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"data_mix\.files\.test_picture_name=.*\{image_id:06d\}"):
        FilesConfig(test_picture_name=name)


def test_easyvqa_is_read_from_its_package() -> None:
    pytest.importorskip("easy_vqa", reason="easy-vqa is not installed: the extra easyvqa has it")
    train, test = read_easyvqa()
    assert [len(train), len(test)] == [38575, 9673]
    assert len(pictures_of(train)) == 4000
    assert not pictures_of(train) & pictures_of(test)
    assert Counter(item.question.answer_type for item in train) == {"yes/no": 28407, "other": 10168}
    assert {item.question.question_type for item in train} == {"presence", "shape", "colour"}
    assert all(len(set(item.question.answers)) == 1 for item in train)
    assert all(len(item.question.answers) == 10 for item in train)
    assert train[0].picture is not None
    assert train[0].picture.is_file()


def test_easyvqa_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "easy_vqa", None)
    with pytest.raises(ImportError, match=r"pip install 'people-focus-rl\[easyvqa\]'"):
        read_easyvqa()


def test_the_okvqa_sample_is_split_by_picture() -> None:
    okvqa_questions()  # skips, and says so, where the sample is not there
    files = FilesConfig(
        questions="OpenEnded_mscoco_train2014_questions.json",
        annotations="mscoco_train2014_annotations.json",
        tags="image_tags.json",
    )
    train, _ = read_files(files, okvqa_folder())
    splits = split_items(train, [], SplitConfig())
    sizes = [len(part) for part in (splits.demos, splits.train, splits.val, splits.test)]
    assert sizes == [2000, 600, 200, 600]
    bank = pictures_of([splits.items[key] for key in splits.demos])
    assert not bank & pictures_of([splits.items[key] for key in splits.test])
