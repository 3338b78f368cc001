"""A small data set in the official files, with pictures and object tags."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from lever.config import (
    DataKind,
    FilesConfig,
    ImageEncoderConfig,
    ImageEncoderKind,
    LeverDataConfig,
    SamplerKind,
    SplitConfig,
    TextEncoderConfig,
)

THINGS = ("dog", "cat", "bus", "tree", "boat")
FILES = FilesConfig(questions="questions.json", annotations="annotations.json", tags="tags.json")


def write_vqa_folder(folder: Path, pictures: int = 20, each: int = 3, first: int = 0) -> Path:
    """Write `each` questions about each picture; pictures and questions are numbered on."""
    folder.mkdir(parents=True, exist_ok=True)
    questions, annotations, tags = [], [], {}
    for image in range(first, first + pictures):
        thing = THINGS[image % len(THINGS)]
        _paint(folder / "pictures" / f"picture_{image:04d}.png", image)
        for number in range(each):
            key = 100 * image + number
            text = f"What {('animal', 'thing', 'object')[number % 3]} is number {image % 7}?"
            said = [thing] * 8 + ["bird"] * 2
            answers = [{"answer": one, "answer_id": i} for i, one in enumerate(said)]
            questions.append({"question_id": key, "image_id": image, "question": text})
            annotations.append({"question_id": key, "image_id": image, "answers": answers})
            tags[str(key)] = [thing, "sky"]
    for name, content in (
        ("questions", {"questions": questions}),
        ("annotations", {"annotations": annotations}),
        ("tags", tags),
    ):
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def folder_config(**more: object) -> LeverDataConfig:
    """Settings that read such a folder as `paths.data`."""
    settings: dict[str, object] = {
        "name": "folder",
        "kind": DataKind.files,
        "files": FILES,
        "split": SplitConfig(demos=30, train=8, val=4, test=6),
        "text_encoder": TextEncoderConfig(dims=6),
        "image_encoder": ImageEncoderConfig(kind=ImageEncoderKind.tags),
        "sampler": SamplerKind.mix,
        "candidate_num": 8,
    }
    return LeverDataConfig(**{**settings, **more})  # type: ignore[arg-type]


def _paint(path: Path, seed: int) -> None:
    path.parent.mkdir(exist_ok=True)
    pixels = np.full((24, 24, 3), 240, dtype=np.uint8)
    place = seed % 8
    pixels[place : place + 10, place : place + 12] = (40 * (seed % 5), 200 - 30 * (seed % 6), 90)
    Image.fromarray(pixels).save(path)
