from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from lever.config import ImageEncoderConfig, ImageEncoderKind, TextEncoderConfig, TextEncoderKind
from lever.features.embeddings import write_embeddings
from lever.features.encoders import (
    HFTexts,
    Seen,
    encode_pictures,
    encode_questions,
    picture_statistics,
    tfidf,
)

TEXTS = ["what animal is this", "what animal is that", "how many boats", "how many boats", "zzz"]


def seen(**more: object) -> Seen:
    nothing = [None] * len(TEXTS)
    return replace(Seen([7, 8, 9, 10, 11], TEXTS, nothing, [("dog",)] * 5, range(4)), **more)


def draw(path: Path, shape: str, colour: str, place: int = 8, background: str = "white") -> Path:
    picture = Image.new("RGB", (64, 64), background)
    pen, box = ImageDraw.Draw(picture), (place, place, place + 30, place + 30)
    if shape == "circle":
        pen.ellipse(box, fill=colour)
    elif shape == "square":
        pen.rectangle(box, fill=colour)
    else:
        pen.polygon([(place, place + 30), (place + 30, place + 30), (place + 15, place)], colour)
    picture.save(path)
    return path


@pytest.fixture(scope="module")
def sentence_encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A sentence encoder of the real class with random weights, in a folder."""
    folder = tmp_path_factory.mktemp("encoder")
    words = sorted({word for text in TEXTS for word in text.split()})
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=32
    )
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    BertModel(
        BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=32,
        )
    ).save_pretrained(folder)
    return str(folder)


def test_like_questions_are_near_and_unknown_words_are_zero() -> None:
    rows = tfidf(TEXTS, TEXTS[:4], dims=3)
    alike = rows @ rows.T
    assert torch.allclose(rows[:4].norm(dim=-1), torch.ones(4), atol=1e-6)
    assert alike[0, 1] > alike[0, 2] + 0.3
    assert alike[2, 3] == pytest.approx(1, abs=1e-6)
    assert torch.equal(rows[4], torch.zeros(rows.shape[1]))


def test_no_more_columns_than_the_bank_spans() -> None:
    assert tfidf(TEXTS, TEXTS[:4], dims=100).shape == (5, 3)
    with pytest.raises(ValueError, match="the bank holds a single text"):
        tfidf(TEXTS, ["word"], dims=4)


def test_the_mean_is_over_the_tokens_of_a_text_alone(sentence_encoder: str) -> None:
    alone = torch.cat([HFTexts(sentence_encoder)([text]) for text in TEXTS])
    together = HFTexts(sentence_encoder, batch_size=3)(["how many", *TEXTS])[1:]
    assert torch.allclose(alone, together, atol=1e-5)
    assert torch.allclose(alone.norm(dim=-1), torch.ones(5), atol=1e-5)
    encoder = HFTexts(sentence_encoder)
    inputs = encoder.tokenizer(TEXTS[2], return_tensors="pt")
    hidden = encoder.model(**inputs).last_hidden_state[0].mean(dim=0)
    assert torch.allclose(alone[2], torch.nn.functional.normalize(hidden, dim=-1), atol=1e-5)


def test_long_texts_are_cut(sentence_encoder: str) -> None:
    encoder = HFTexts(sentence_encoder, max_length=3)
    assert torch.allclose(encoder(["how many boats zzz"]), encoder(["how many boats"]), atol=1e-6)
    assert HFTexts(sentence_encoder)(["boats " * 90]).isfinite().all()  # it has 32 positions


def test_a_checkpoint_that_is_not_there_names_the_field() -> None:
    config = TextEncoderConfig(kind=TextEncoderKind.hf, path="no/such-encoder")
    with pytest.raises(FileNotFoundError, match=r"data_mix\.text_encoder\.path=no/such-encoder"):
        encode_questions(config, seen(), Path("unused"))


def test_rows_are_kept_until_what_they_depend_on_changes(tmp_path: Path) -> None:
    config = TextEncoderConfig(dims=3)
    first = encode_questions(config, seen(), tmp_path)
    assert torch.equal(first, encode_questions(config, seen(), tmp_path))
    assert len(list(tmp_path.iterdir())) == 1
    encode_questions(config, seen(bank=range(3)), tmp_path)
    encode_questions(config, seen(texts=[*TEXTS[:4], "boats"]), tmp_path)
    encode_questions(TextEncoderConfig(dims=2), seen(), tmp_path)
    assert len(list(tmp_path.iterdir())) == 4


def test_another_checkpoint_is_another_key(sentence_encoder: str, tmp_path: Path) -> None:
    config = TextEncoderConfig(kind=TextEncoderKind.hf, path=sentence_encoder)
    first = encode_questions(config, seen(), tmp_path)
    (Path(sentence_encoder) / "note.txt").write_text("retrained")
    assert torch.equal(first, encode_questions(config, seen(), tmp_path))
    assert len(list(tmp_path.iterdir())) == 2


def test_tags_go_through_the_text_encoder(tmp_path: Path) -> None:
    tags = [("dog", "sky"), ("dog", "grass"), ("boat",), ("boat", "sea"), ("dog", "sky")]
    config = ImageEncoderConfig(kind=ImageEncoderKind.tags)
    rows = encode_pictures(config, TextEncoderConfig(dims=2), seen(tags=tags), tmp_path)
    assert torch.allclose(rows[0], rows[4])
    assert rows[0] @ rows[1] > rows[0] @ rows[2] + 0.3
    bare = seen(tags=[("dog",), ("dog",), (), (), ("dog",)])
    with pytest.raises(ValueError, match="query 9: tags: it has none"):
        encode_pictures(config, TextEncoderConfig(), bare, tmp_path)
    text = TextEncoderConfig(kind=TextEncoderKind.file, path="rows.safetensors")
    with pytest.raises(ValueError, match="tags go through the text encoder"):
        encode_pictures(config, text, seen(tags=tags), tmp_path)


def test_statistics_tell_shapes_and_colours_wherever_they_stand(tmp_path: Path) -> None:
    drawn = {
        (shape, colour, place): draw(tmp_path / f"{shape}{colour}{place}.png", shape, colour, place)
        for shape in ("circle", "square", "triangle")
        for colour in ("red", "blue")
        for place in (4, 25)
    }
    rows = dict(zip(drawn, picture_statistics(list(drawn.values())), strict=True))
    for (shape, colour, _), row in rows.items():
        assert row.norm() == pytest.approx(1, abs=1e-5)
        moved = min(float(row @ rows[shape, colour, place]) for place in (4, 25))
        others = [float(row @ other) for key, other in rows.items() if key[:2] != (shape, colour)]
        assert moved > max(others)


def test_a_plain_picture_has_colours_and_no_edges(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8, 3), 200, dtype=np.uint8)).save(tmp_path / "plain.png")
    (row,) = picture_statistics([tmp_path / "plain.png"])
    assert row.norm() == pytest.approx(1)
    assert not row[64:].any()


@pytest.mark.parametrize("size", [(1, 1), (1000, 2)])
def test_a_picture_without_edges_to_look_at_is_named(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size).save(tmp_path / "thin.png")
    with pytest.raises(ValueError, match=r"thin\.png: .* pixels .*check data_mix\.files\.pictures"):
        picture_statistics([tmp_path / "thin.png"])


def test_pictures_are_encoded_once_each(tmp_path: Path) -> None:
    one, two = (draw(tmp_path / f"{name}.png", name, "red") for name in ("circle", "square"))
    config = ImageEncoderConfig(kind=ImageEncoderKind.statistics)
    rows = encode_pictures(
        config, TextEncoderConfig(), seen(pictures=[one, two, one, one, two]), tmp_path / "cache"
    )
    assert torch.equal(rows, picture_statistics([one, two])[[0, 1, 0, 0, 1]])


def test_a_missing_picture_names_the_query(tmp_path: Path) -> None:
    config, text = ImageEncoderConfig(kind=ImageEncoderKind.statistics), TextEncoderConfig()
    with pytest.raises(ValueError, match="query 7: picture: it has none"):
        encode_pictures(config, text, seen(), tmp_path)
    gone = [tmp_path / "gone.png"] * 5
    with pytest.raises(FileNotFoundError, match=r"query 7: picture: .*gone\.png: no such file"):
        encode_pictures(config, text, seen(pictures=gone), tmp_path)


def test_rows_made_elsewhere_are_read_for_either(tmp_path: Path) -> None:
    path = tmp_path / "rows.safetensors"
    write_embeddings(path, [11, 10, 9, 8, 7], torch.eye(5))
    text = TextEncoderConfig(kind=TextEncoderKind.file, path=str(path))
    image = ImageEncoderConfig(kind=ImageEncoderKind.file, path=str(path))
    assert torch.equal(encode_questions(text, seen(), tmp_path), torch.eye(5).flip(0))
    assert torch.equal(encode_pictures(image, text, seen(), tmp_path), torch.eye(5).flip(0))


@pytest.mark.parametrize("kind", [TextEncoderKind.hf, TextEncoderKind.clip, TextEncoderKind.file])
def test_an_encoder_with_weights_needs_a_path(kind: TextEncoderKind) -> None:
    with pytest.raises(ValueError, match=r"data_mix\.text_encoder\.path=None"):
        TextEncoderConfig(kind=kind)
