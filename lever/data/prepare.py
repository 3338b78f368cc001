"""Official downloads of OK-VQA and VQAv2 made into a folder that `data_mix` reads.

    OUT/<questions>.json, OUT/<annotations>.json  both pairs, without questions whose picture lacks
    OUT/train2014, OUT/val2014                    links to the folders of pictures, if there are any

Training and validation questions are split by picture when a run reads them (`data_mix.split`).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core_rl.config import OnBadRecord
from core_rl.files import write_json
from lever.config import FilesConfig
from lever.data.strict_json import load_json
from lever.data.vqa_files import read_questions

log = logging.getLogger(__name__)

PARTS = ("train", "val")


@dataclass(frozen=True)
class Layout:
    """Names of an official download's files; `{part}` is train or val."""

    questions: str
    annotations: str
    published: str


LAYOUTS = {
    "okvqa": Layout(
        "OpenEnded_mscoco_{part}2014_questions.json",
        "mscoco_{part}2014_annotations.json",
        "https://okvqa.allenai.org/download.html (pictures: https://cocodataset.org, 2014)",
    ),
    "vqav2": Layout(
        "v2_OpenEnded_mscoco_{part}2014_questions.json",
        "v2_mscoco_{part}2014_annotations.json",
        "https://visualqa.org/download.html (pictures: https://cocodataset.org, 2014)",
    ),
}


def prepare(dataset: str, raw: Path, out: Path, on_bad_record: OnBadRecord) -> dict[str, int]:
    """Check a download and write what is usable of it.

    A part whose files are there already is written again only if the download is newer.

    Args:
        dataset: okvqa or vqav2.
        raw: folder of the download, unpacked.
        out: folder to write to, the `paths.data` of later runs.
        on_bad_record: whether a question whose picture is missing stops this or is left out.

    Returns:
        For each part that is there the numbers of `<part>_questions`, `<part>_pictures` (0 without
        a folder of pictures) and `<part>_skipped` questions.

    Raises:
        FileNotFoundError: the training pair or one file of a pair is missing, or a picture (unless
            skipped).
        ValueError: a file breaks its layout, or no picture is there.
    """
    layout = LAYOUTS[dataset]
    counts: dict[str, int] = {}
    for part in PARTS:
        pair = [raw / name.format(part=part) for name in (layout.questions, layout.annotations)]
        missing = [path.name for path in pair if not path.is_file()]
        if missing and (part == "train" or len(missing) == 1):
            raise FileNotFoundError(
                f"raw={raw}: holds no {' and no '.join(missing)}; unpack the archives published at "
                f"{layout.published}"
            )
        if missing:
            log.warning(
                "no %s: without the test pair a share of the pictures is tested",
                " and no ".join(missing),
            )
            continue
        counts |= _part(part, pair, out, on_bad_record, layout)
    return counts


def _part(
    part: str, pair: list[Path], out: Path, on_bad_record: OnBadRecord, layout: Layout
) -> dict[str, int]:
    questions = read_questions(*pair)
    pictures = pair[0].parent / f"{part}2014"
    seen = {path.name for path in pictures.iterdir()} if pictures.is_dir() else None
    if seen is None:
        log.warning("no folder %s: the pictures are published at %s", pictures, layout.published)
    name = getattr(FilesConfig(), "picture_name" if part == "train" else "test_picture_name")
    usable = {
        one.question_id
        for one in questions
        if seen is None or name.format(image_id=one.image_id) in seen
    }
    lacking = len(questions) - len(usable)
    if lacking and (on_bad_record is OnBadRecord.error or not usable):
        raise FileNotFoundError(
            f"{pictures}: lacks the pictures of {lacking} of {len(questions)} questions; published "
            f"at {layout.published}; on_bad_record=skip leaves such questions out"
        )
    for path in pair:
        _write(path, out / path.name, usable)
    if seen is not None and not (out / pictures.name).exists():
        (out / pictures.name).symlink_to(pictures.resolve(), target_is_directory=True)
    shown = {one.image_id for one in questions if one.question_id in usable}
    return {
        f"{part}_questions": len(usable),
        f"{part}_pictures": len(shown) if seen is not None else 0,
        f"{part}_skipped": lacking,
    }


def _write(source: Path, target: Path, usable: set[int]) -> None:
    whole: Any = load_json(source, "an official VQA JSON file")
    [name] = {"questions", "annotations"} & whole.keys()
    kept = [row for row in whole[name] if row["question_id"] in usable]
    if target.is_file() and target.stat().st_mtime_ns > source.stat().st_mtime_ns:
        known: Any = load_json(target, "a file prepared earlier")
        if len(known[name]) == len(kept):
            return
    write_json(target, {**whole, name: kept})
