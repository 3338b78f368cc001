"""Score a results file in the official format against the questions it answers."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from lever.config import DataKind
from lever.data.datasets import load_data
from lever.data.sources import read_files, split_items
from lever.data.vqa_accuracy import Scores, evaluate
from lever.data.vqa_files import Question, Stems, read_questions, read_results, read_stems, stemmed
from lever.generation_config import Matching, Split
from lever.settings import Settings

log = logging.getLogger(__name__)


def score_results(settings: Settings, seed: int, rule: Matching) -> Scores:
    """Score the file that `choose.results` names.

    Of official files only the tested pair is read: the test pair where it is named, else the one
    pair there is.  All its questions count, whatever `data_mix.split.test` is.  A file that answers
    just the questions of `choose.split`, as `+exp=lever_eval` writes it, is scored on those.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file breaks its layout, or answers other questions.
    """
    assert settings.choose.results is not None
    said = read_results(settings.choose.results)
    asked = _questions(settings, seed, said)
    if settings.choose.stem_predictions:
        said = stem_all(settings, said)
    return evaluate(asked, said, rule)


def stem_all(settings: Settings, said: Mapping[int, str]) -> dict[int, str]:
    """Stem answers as the annotations of the tested pair are stemmed.

    Raises:
        ValueError: the annotations are not stemmed, or there are no annotation files.
    """
    stems = _stems(settings)
    return {key: stemmed(answer, stems) for key, answer in said.items()}


def _stems(settings: Settings) -> Stems:
    data = settings.data_mix
    where = "choose.stem_predictions=true"
    if data.kind is not DataKind.files:
        raise ValueError(f"{where}: only OK-VQA's official files are stemmed: expected false")
    stems = read_stems(_tested_pair(settings)[1])
    if not stems:
        raise ValueError(
            f"{where}: {_tested_pair(settings)[1]} holds no raw_answer beside its answers, so they "
            "are not stemmed: expected false"
        )
    return stems


def _tested_pair(settings: Settings) -> tuple[Path, Path]:
    files, base = settings.data_mix.files, Path(settings.paths.data or "")
    if files.test_questions:
        return base / files.test_questions, base / files.test_annotations
    return base / files.questions, base / files.annotations


def _questions(settings: Settings, seed: int, said: Mapping[int, str]) -> list[Question]:
    if settings.data_mix.kind is not DataKind.files:
        data = load_data(settings.data_mix, settings.paths, seed)
        return [data.question_of(one.query) for one in data.split(settings.choose.split)]
    asked = read_questions(*_tested_pair(settings))
    if said.keys() == {one.question_id for one in asked}:
        return asked
    held_out = _split_questions(settings)
    if said.keys() == {one.question_id for one in held_out}:
        log.info("scoring the %d questions of choose.split, a part of the files", len(held_out))
        return held_out
    return asked


def _split_questions(settings: Settings) -> list[Question]:
    """Questions of `choose.split`; none where the training pair is not there."""
    data, base = settings.data_mix, Path(settings.paths.data or "")
    if not all((base / one).is_file() for one in (data.files.questions, data.files.annotations)):
        return []
    splits = split_items(*read_files(data.files, base), data.split)
    ids = splits.val if settings.choose.split is Split.val else splits.test
    return [splits.items[one].question for one in ids]
