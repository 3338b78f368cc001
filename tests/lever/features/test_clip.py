"""CLIP as an encoder, on one of the real class with random weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from lever.config import ImageEncoderConfig, ImageEncoderKind, TextEncoderConfig, TextEncoderKind
from lever.features.clip import load_clip
from lever.features.encoders import Seen, encode_pictures, encode_questions
from tests.lever.tiny_clip import TEXTS, write_clip, write_pictures


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_pictures(tmp_path_factory.mktemp("pictures"))


def test_batches_do_not_change_rows(folder: str, pictures: list[Path]) -> None:
    clip = load_clip(folder)
    for embed, values in ((clip.texts, TEXTS), (clip.pictures, pictures)):
        whole, single = embed(values, 3), embed(values, 1)  # type: ignore[operator]
        assert whole.shape == (3, clip.width)
        assert torch.allclose(whole, single, atol=1e-5)
        assert torch.allclose(whole.norm(dim=-1), torch.ones(3), atol=1e-5)
        assert not whole.requires_grad


def test_a_loaded_clip_is_frozen(folder: str) -> None:
    assert not any(one.requires_grad for one in load_clip(folder).parameters())


def test_adapters_are_saved_and_loaded_and_change_the_rows_that_are_kept(
    folder: str, pictures: list[Path], tmp_path: Path
) -> None:
    clip = load_clip(folder).adapted(rank=2)
    with torch.no_grad():
        for name, one in clip.named_parameters():
            if "lora_" in name:
                one.add_(0.3)
    clip.save_adapters(tmp_path / "adapters")
    again = load_clip(folder, str(tmp_path / "adapters"))
    assert torch.allclose(again.texts(TEXTS, 3), clip.texts(TEXTS, 3), atol=1e-6)
    assert not any(one.requires_grad for one in again.parameters())

    rows = [
        _rows(folder, pictures, tmp_path / "cache", adapters)
        for adapters in (None, str(tmp_path / "adapters"))
    ]
    assert not torch.allclose(rows[0], rows[1], atol=1e-3)
    assert torch.allclose(rows[1], clip.pictures(pictures, 3), atol=1e-6)


def test_clip_embeds_questions_by_configuration(folder: str, tmp_path: Path) -> None:
    config = TextEncoderConfig(kind=TextEncoderKind.clip, path=folder)
    seen = Seen([1, 2, 3], TEXTS, [None] * 3, [()] * 3, range(2))
    assert torch.allclose(
        encode_questions(config, seen, tmp_path), load_clip(folder).texts(TEXTS, 1), atol=1e-5
    )


def test_what_is_missing_is_named(folder: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"image_encoder\.path=no/clip: nothing there"):
        load_clip("no/clip")
    with pytest.raises(FileNotFoundError, match=r"image_encoder\.adapters=.*adapter_config"):
        load_clip(folder, str(tmp_path))


def test_adapters_without_peft_name_the_extra(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = load_clip(folder)
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(ImportError, match=r"pip install 'people-focus-rl\[hf\]'"):
        clip.adapted()
    with pytest.raises(ImportError, match="adapters need peft"):
        load_clip(folder, str(tmp_path))


def _rows(folder: str, pictures: list[Path], cache: Path, adapters: str | None) -> Tensor:
    config = ImageEncoderConfig(kind=ImageEncoderKind.clip, path=folder, adapters=adapters)
    seen = Seen([1, 2, 3], TEXTS, pictures, [()] * 3, range(2))
    return encode_pictures(config, TextEncoderConfig(), seen, cache)
