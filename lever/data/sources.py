"""Where questions come from: the easy-vqa package and official VQA files, split by picture."""

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
# Of easy-vqa's test: both halves number their pictures and questions from 0.
_TEST_OFFSET = 1_000_000


@dataclass(frozen=True)
class Item:
    """A question with what stands for its picture.

    Attributes:
        question: with the annotators' answers.
        answer: what a demonstration of it shows.
        picture: file of the picture; None where there is none.
        tags: names of what the picture shows; may be empty.
    """

    question: Question
    answer: str
    picture: Path | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Splits:
    """Items of a run: first the bank, then validation, then test.

    Attributes:
        items: in the order of their ids.
        demos: ids of the bank, in random order; the first `train` are also queries to learn from.
        train: ids of those.
        val: ids.
        test: ids.
    """

    items: tuple[Item, ...]
    demos: range
    train: range
    val: range
    test: range


def most_common(answers: Sequence[str]) -> str:
    """Return the answer given most often; of several, the one given first."""
    return Counter(answers).most_common(1)[0][0]


def read_easyvqa() -> tuple[list[Item], list[Item]]:
    """Read training and test questions of the easy-vqa package: rendered pictures of 64 x 64.

    Nobody annotated them: the one answer is repeated ten times, so that the official metric is 1
    where the answer is right and 0 elsewhere.

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
        base: folder that relative names are taken from; None = the current one.

    Returns:
        Training and test questions; no test questions where `files` names none.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is not as `lever.data.vqa_files` describes, or tags are not lists of
        names.
    """
    base = base or Path()
    train = _file_items(
        base, files.questions, files.annotations, files.pictures, files.picture_name, files.tags
    )
    if not files.test_questions:
        return train, []
    test = _file_items(
        base,
        files.test_questions,
        files.test_annotations,
        files.test_pictures,
        files.test_picture_name,
        files.test_tags,
    )
    return train, test


def split_items(train: Sequence[Item], test: Sequence[Item], config: SplitConfig) -> Splits:
    """Split by picture, at random, and take as many questions as are asked for.

    Args:
        train: questions of the bank and the validation, and of the test where `test` is empty.
        test: questions of other pictures.
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


def _file_items(
    base: Path, questions: str, annotations: str, pictures: str, picture_name: str, tags: str
) -> list[Item]:
    asked = read_questions(base / questions, base / annotations)
    seen = _read_tags(base / tags) if tags else {}

    def item(one: Question) -> Item:
        picture = None
        if pictures:
            picture = base / pictures / picture_name.format(image_id=one.image_id)
        names = seen.get(one.question_id, seen.get(one.image_id, ()))
        return Item(one, most_common(one.answers), picture, names)

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
