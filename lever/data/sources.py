"""Read questions from the easy-vqa package or official VQA files, and split them by picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np

from lever.config import FilesConfig, SplitConfig
from lever.data.strict_json import load_json
from lever.data.vqa_files import Question, read_questions

SHAPES = ("circle", "rectangle", "triangle")
ANNOTATORS = 10
# Added to the ids of easy-vqa's test half: both halves count pictures and questions from 0.
_TEST_OFFSET = 1_000_000


@dataclass(frozen=True)
class Item:
    """A question and its picture.

    Attributes:
        question: with the annotators' answers.
        answer: the answer shown when the item is a demonstration.
        picture: file of the picture; None if there is none.
        tags: names of the objects in the picture; may be empty.
    """

    question: Question
    answer: str
    picture: Path | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Splits:
    """Items of a run, in the order of their ids: the bank, then validation, then test.

    Attributes:
        items: all of them.
        demos: ids of the bank, which is in random order.
        train: ids of the training queries, the first of the bank.
        val: ids of the validation queries.
        test: ids of the test queries.
    """

    items: tuple[Item, ...]
    demos: range
    train: range
    val: range
    test: range


def most_common(answers: Sequence[str]) -> str:
    """Return the most frequent answer; of several, the first."""
    return Counter(answers).most_common(1)[0][0]


def read_easyvqa() -> tuple[list[Item], list[Item]]:
    """Read training and test questions of the easy-vqa package: rendered pictures of 64 x 64.

    They have no annotators: the single answer is repeated ten times, so that the official metric
    is 1 for the right answer and 0 for any other.

    Raises:
        ImportError: the package is not installed.
    """
    try:
        package = import_module("easy_vqa")
    except ImportError as error:
        raise ImportError(
            "data_mix=lever_easyvqa needs easy-vqa: pip install 'people-focus-rl[easyvqa]'"
        ) from error
    train = package.get_train_questions(), package.get_train_image_paths()
    test = package.get_test_questions(), package.get_test_image_paths()
    return _easyvqa(*train, 0), _easyvqa(*test, _TEST_OFFSET)


def read_files(files: FilesConfig, base: Path | None) -> tuple[list[Item], list[Item]]:
    """Read official files, e.g. of OK-VQA or VQAv2.

    Args:
        files: their names.
        base: folder of relative names; None = the current one.

    Returns:
        Training and test questions; no test questions if `files` names none.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is not as `lever.data.vqa_files` describes, or tags are not lists of
            names.
    """
    train = _file_items(base or Path(), files)
    if not files.test_questions:
        return train, []
    test = FilesConfig(
        files.test_questions,
        files.test_annotations,
        pictures=files.test_pictures,
        picture_name=files.test_picture_name,
        tags=files.test_tags,
    )
    return train, _file_items(base or Path(), test)


def split_items(train: Sequence[Item], test: Sequence[Item], config: SplitConfig) -> Splits:
    """Split at random by picture, and sample at most the configured number of questions.

    Args:
        train: questions for the bank and validation, and for the test if `test` is empty.
        test: questions about other pictures.
        config: shares and sizes.

    Raises:
        ValueError: a question or a picture is in both lists, or a split would be empty.
    """
    _check_apart(train, test)
    rng = np.random.default_rng([config.seed, 23])
    pictures = sorted({item.question.image_id for item in train})
    rng.shuffle(pictures)
    held_val = round(config.val_share * len(pictures))
    held_test = 0 if test else round(config.test_share * len(pictures))
    val_of, test_of = set(pictures[:held_val]), set(pictures[held_val : held_val + held_test])

    def drawn(items: Sequence[Item], limit: int) -> list[Item]:
        return [items[i] for i in rng.permutation(len(items))[:limit]]

    held_out = val_of | test_of
    bank = drawn([one for one in train if one.question.image_id not in held_out], config.demos)
    val = drawn([one for one in train if one.question.image_id in val_of], config.val)
    rest = list(test) or [one for one in train if one.question.image_id in test_of]
    tested = drawn(rest, config.test)
    for name, part in (("demos", bank), ("val", val), ("test", tested)):
        if not part:
            raise ValueError(
                f"data_mix.split.{name}: none of the {len(train)} questions about {len(pictures)} "
                "pictures is left for it: expected more questions or other shares"
            )
    val_from, test_from = len(bank), len(bank) + len(val)
    return Splits(
        items=(*bank, *val, *tested),
        demos=range(val_from),
        train=range(min(config.train, val_from)),
        val=range(val_from, test_from),
        test=range(test_from, test_from + len(tested)),
    )


def _easyvqa(
    questions: tuple[list[str], list[str], list[int]], pictures: dict[int, str], offset: int
) -> list[Item]:
    return [
        Item(
            Question(
                question_id=offset + number,
                image_id=offset + image,
                text=text,
                answers=(answer,) * ANNOTATORS,
                answer_type="yes/no" if answer in ("yes", "no") else "other",
                question_type=_asks_of(answer),
            ),
            answer,
            Path(pictures[image]),
        )
        for number, (text, answer, image) in enumerate(zip(*questions, strict=True))
    ]


def _asks_of(answer: str) -> str:
    if answer in ("yes", "no"):
        return "presence"
    return "shape" if answer in SHAPES else "colour"


def _file_items(base: Path, files: FilesConfig) -> list[Item]:
    """Read the pair of `questions` and `annotations`, with pictures and tags."""
    asked = read_questions(base / files.questions, base / files.annotations)
    seen = _read_tags(base / files.tags) if files.tags else {}

    def item(one: Question) -> Item:
        name = files.picture_name.format(image_id=one.image_id)
        picture = base / files.pictures / name if files.pictures else None
        tags = seen.get(one.question_id, seen.get(one.image_id, ()))
        return Item(one, most_common(one.answers), picture, tags)

    return [item(one) for one in asked]


def _read_tags(path: Path) -> dict[int, tuple[str, ...]]:
    """Read object tags: `{"<question or image id>": ["dog", ..]}`."""
    whole = load_json(path, "a JSON file of object tags")
    if not isinstance(whole, dict):
        raise ValueError(f"{path}: expected an object of lists of names")
    for key, names in whole.items():
        named = isinstance(names, list) and all(isinstance(name, str) for name in names)
        if not key.isdecimal() or not named:
            raise ValueError(
                f"{path}: {key}={names!r}: expected a question_id or image_id with a list of names"
            )
    return {int(key): tuple(names) for key, names in whole.items()}


def _check_apart(train: Sequence[Item], test: Sequence[Item]) -> None:
    for name in ("question_id", "image_id"):
        known = {getattr(item.question, name) for item in train}
        both = sorted(known & {getattr(item.question, name) for item in test})
        if both:
            raise ValueError(
                f"data_mix.files.test_questions: {len(both)} values of {name} are among the "
                f"training questions too (first {both[:3]}): expected other pictures"
            )
