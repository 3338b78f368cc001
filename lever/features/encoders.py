"""Encoders of questions and pictures, chosen by the configuration.

Two encoders need no weights and are the defaults:

tfidf        TF-IDF and a truncated SVD (latent semantic analysis), fitted on the bank only
statistics   histograms of colours and of edge directions; enough for plain shapes, no substitute
             for a trained encoder on photographs

`hf` is a sentence encoder of Hugging Face, `clip` both towers of CLIP (`lever.features.clip`),
`tags` the names of objects through the text encoder, `file` embeddings from a file.  All rows have
unit length.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from core_rl.fingerprint import checkpoint_digest
from lever.config import ImageEncoderConfig, ImageEncoderKind, TextEncoderConfig, TextEncoderKind
from lever.features.clip import load_clip
from lever.features.embeddings import cached_rows, read_embeddings
from lever.features.pictures import CURE, open_picture
from lever.features.pretrained import device_of_choice, load_or_say

log = logging.getLogger(__name__)

ENCODERS_VERSION = 1  # raise when any embedding made here changes
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Seen:
    """The parts of each item that are embedded, in the order of ids.

    Attributes:
        question_ids: ids of the items in files and messages.
        texts: the questions.
        pictures: file of each picture; None if there is none.
        tags: names of the objects in each picture.
        bank: ids that an encoder may be fitted on.
        order: ids of all questions in the order of their files, the training pair first.
    """

    question_ids: Sequence[int]
    texts: Sequence[str]
    pictures: Sequence[Path | None]
    tags: Sequence[Sequence[str]]
    bank: range
    order: Sequence[int] = ()


def encode_questions(config: TextEncoderConfig, seen: Seen, cache: Path) -> Tensor:
    """Embed the questions, [N, D]."""
    if config.kind is TextEncoderKind.file:
        assert config.path is not None
        return read_embeddings(config.path, seen.question_ids, "text embedding", seen.order)
    return _encode_texts(config, seen.texts, seen.bank, cache)


def encode_pictures(
    config: ImageEncoderConfig, text: TextEncoderConfig, seen: Seen, cache: Path
) -> Tensor:
    """Embed the pictures, [N, D]; tags are embedded by the text encoder.

    Raises:
        FileNotFoundError: a picture is missing.
        ValueError: an item has no picture or no tags.
    """
    if config.kind is ImageEncoderKind.file:
        assert config.path is not None
        return read_embeddings(config.path, seen.question_ids, "image embedding", seen.order)
    if config.kind is ImageEncoderKind.tags:
        return _encode_texts(text, _tag_texts(seen), seen.bank, cache)
    paths = _picture_files(seen)
    stats = {path: path.stat() for path in dict.fromkeys(paths)}
    about = [(str(path), stats[path].st_size, stats[path].st_mtime_ns) for path in paths]
    if config.kind is ImageEncoderKind.statistics:
        key = _key("statistics", about)
        return cached_rows(cache, key, lambda: _once(paths, picture_statistics))
    assert config.path is not None
    source = config.path
    key = _key("clip", checkpoint_digest(source, config.adapters), about)

    def encode(some: Sequence[Path]) -> Tensor:
        return load_clip(source, config.adapters).pictures(some, config.batch_size)

    return cached_rows(cache, key, lambda: _once(paths, encode))


def tfidf(texts: Sequence[str], bank: Sequence[str], dims: int) -> Tensor:
    """Latent semantic analysis: TF-IDF of words and pairs of words, and a truncated SVD.

    It is fitted on the bank.  There are at most `dims` columns, fewer if the bank's words span
    fewer dimensions.

    Returns:
        Rows [texts, D] of unit length; zeros for a text without a known word.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer(
        sublinear_tf=True, ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b", dtype=np.float64
    )
    known = words.fit_transform(bank)
    dims = min(dims, min(known.shape) - 1)
    if dims < 1:
        raise ValueError("data_mix.text_encoder.kind=tfidf: the bank holds a single text or word")
    directions = TruncatedSVD(dims, random_state=0).fit(known)
    rows = directions.transform(words.transform(texts))
    return normalize(torch.from_numpy(rows.astype(np.float32)), dim=-1)


def picture_statistics(paths: Sequence[Path]) -> Tensor:
    """Histograms of colours and edges, [N, 100]; both parts have the same length.

    Colours: square roots of the shares of 4 x 4 x 4 bins of RGB; the root raises small objects
    against a large background.  Edges: in each quarter of their bounding box, square roots of the
    shares of 9 directions, weighted by strength; the box makes them independent of the position.

    Raises:
        ValueError: a file is not a complete picture, or too small.
    """
    return torch.stack([_statistics(_rgb(path)) for path in paths])


class HFTexts:
    """Sentence encoder: mean of the last hidden states over the tokens of a text.

    `path` is a local folder or hub id of an encoder that `AutoModel` can load; texts of more than
    `max_length` tokens are cut.
    """

    def __init__(self, path: str, max_length: int = 128, batch_size: int = 64) -> None:
        from transformers import AutoModel, AutoTokenizer

        field = "data_mix.text_encoder.path"
        self.tokenizer: Any = load_or_say(field, path, AutoTokenizer.from_pretrained)
        self.model: Any = load_or_say(field, path, AutoModel.from_pretrained)
        self.model.eval().to(device_of_choice())
        # Beyond its own limit an encoder fails or has untrained positions.
        self.max_length = min(max_length, self.tokenizer.model_max_length)
        self.batch_size = batch_size

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Embed texts, [N, D], unit length."""
        # Batches of texts of similar length need less padding.
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        rows: dict[int, Tensor] = {}
        for start in range(0, len(order), self.batch_size):
            places = order[start : start + self.batch_size]
            inputs = self.tokenizer(
                [texts[i] for i in places],
                padding=True,
                truncation=True,
                max_length=self.max_length,
                return_tensors="pt",
            ).to(self.model.device)
            hidden_BTD = self.model(**inputs).last_hidden_state.float()
            mask_BT1 = inputs["attention_mask"].unsqueeze(-1)
            mean_BD = (hidden_BTD * mask_BT1).sum(dim=1) / mask_BT1.sum(dim=1)
            rows.update(zip(places, normalize(mean_BD, dim=-1).cpu(), strict=True))
        return torch.stack([rows[i] for i in range(len(texts))])


def _encode_texts(
    config: TextEncoderConfig, texts: Sequence[str], bank: range, cache: Path
) -> Tensor:
    if config.kind is TextEncoderKind.tfidf:
        known = texts[bank.start : bank.stop]
        key = _key("tfidf", texts, bank, config.dims)
        return cached_rows(cache, key, lambda: tfidf(texts, known, config.dims))
    if config.kind is TextEncoderKind.file:
        raise ValueError(
            "data_mix.image_encoder.kind=tags: tags go through the text encoder, which reads a "
            "file of questions: choose another text encoder, or image_encoder.kind=file"
        )
    assert config.path is not None
    path, digest = config.path, checkpoint_digest(config.path, config.adapters)
    if config.kind is TextEncoderKind.hf:
        key = _key("hf", digest, config.max_length, texts)

        def encode(some: Sequence[str]) -> Tensor:
            return HFTexts(path, config.max_length, config.batch_size)(some)
    else:
        key = _key("clip", digest, texts)

        def encode(some: Sequence[str]) -> Tensor:
            return load_clip(path, config.adapters).texts(some, config.batch_size)

    return cached_rows(cache, key, lambda: _once(texts, encode))


def _once(values: Sequence[Key], encode: Callable[[Sequence[Key]], Tensor]) -> Tensor:
    """Encode each distinct value once."""
    different = list(dict.fromkeys(values))
    place = {value: i for i, value in enumerate(different)}
    return encode(different)[[place[value] for value in values]]


def _key(*parts: object) -> str:
    text = repr([ENCODERS_VERSION, *parts])
    return f"{parts[0]}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _tag_texts(seen: Seen) -> list[str]:
    for key, names in zip(seen.question_ids, seen.tags, strict=True):
        if not names:
            raise ValueError(
                f"query {key}: tags: it has none; data_mix.image_encoder.kind=tags needs "
                "data_mix.files.tags with every question or picture"
            )
    return [", ".join(names) for names in seen.tags]


def _picture_files(seen: Seen) -> list[Path]:
    paths = []
    for key, path in zip(seen.question_ids, seen.pictures, strict=True):
        if path is None:
            raise ValueError(
                f"query {key}: picture: it has none; give data_mix.files.pictures, or choose "
                "data_mix.image_encoder.kind=tags or file"
            )
        if not path.is_file():
            raise FileNotFoundError(f"query {key}: picture: {path}: no such file")
        paths.append(path)
    return paths


def _rgb(path: Path) -> NDArray[np.float64]:
    small = open_picture(path)
    small.thumbnail((128, 128))
    if min(small.size) < 2:
        raise ValueError(
            f"{path}: {small.width} x {small.height} pixels within 128 x 128: expected at least 2 "
            f"each way, or there are no edges to look at: {CURE}"
        )
    return np.asarray(small, dtype=np.float64) / 255


def _statistics(picture_HWC: NDArray[np.float64]) -> Tensor:
    bins, _ = np.histogramdd(picture_HWC.reshape(-1, 3), bins=4, range=[(0, 1)] * 3)
    colours = np.sqrt(bins.ravel() / bins.sum())
    down, right = (np.gradient(picture_HWC, axis=axis) for axis in (0, 1))
    strongest = (down**2 + right**2).argmax(axis=2)[..., None]
    down_HW = np.take_along_axis(down, strongest, axis=2)[..., 0]
    right_HW = np.take_along_axis(right, strongest, axis=2)[..., 0]
    strength_HW = np.hypot(down_HW, right_HW)
    edge_HW = strength_HW > 0.1
    if not edge_HW.any():
        return torch.from_numpy(np.concatenate([colours, np.zeros(36)]).astype(np.float32))
    rows, columns = np.nonzero(edge_HW)
    box = slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)
    strength_HW = strength_HW[box]
    # Opposite directions count as one.
    place_HW = (np.arctan2(down_HW[box], right_HW[box]) % np.pi / np.pi * 9).astype(int) % 9
    tall, wide = strength_HW.shape
    quarter_HW = 2 * (np.arange(tall) >= tall / 2)[:, None] + (np.arange(wide) >= wide / 2)
    edges = np.bincount((quarter_HW * 9 + place_HW).ravel(), strength_HW.ravel(), minlength=36)
    both = np.concatenate([colours, np.sqrt(edges / edges.sum())]) / np.sqrt(2)
    return torch.from_numpy(both.astype(np.float32))
