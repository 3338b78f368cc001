"""Prompts as published, and where an answer ends."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from lever.answerers.templates import FLAMINGO, IDEFICS, ChatTemplate, Shown, pictures_of

PICTURE = Image.new("RGB", (4, 4))
CAT = Shown("What is it?", "cat", PICTURE)
WHO = Shown("Who is it?", "Anna", PICTURE)
TAGS = Shown("Which one?", "dog", None, "In the picture: dog, ball.")


def test_flamingo_joins_chunks() -> None:
    assert FLAMINGO.text([CAT], WHO) == (
        "<image>Question:What is it? Short answer:cat<|endofchunk|>"
        "<image>Question:Who is it? Short answer:"
    )


def test_idefics_joins_lines_and_tags_stand_in_for_a_picture() -> None:
    assert IDEFICS.text([TAGS], CAT) == (
        "In the picture: dog, ball. Question:Which one? Short answer: dog\n"
        "<image>Question:What is it? Short answer:"
    )


def test_a_chat_alternates_and_ends_with_the_question() -> None:
    messages = ChatTemplate("Be brief.", "One word.").messages([CAT, TAGS], WHO)
    assert messages is not None
    assert [turn["role"] for turn in messages] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
        "user",
    ]
    assert messages[1]["content"] == [
        {"type": "image"},
        {"type": "text", "text": "What is it?\nOne word."},
    ]
    assert messages[3]["content"] == [
        {"type": "text", "text": "In the picture: dog, ball.\nWhich one?\nOne word."}
    ]


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (" cat", "cat"),
        ("cat Question:Who", "cat"),
        ("cat<|endofchunk|>", "cat<|endofchunk|>"),
        ("cat Answer", "cat"),
        ("cat, a dog", "cat"),
        ("1,000", "1,000"),
        ("Short hair", ""),  # the published rule's weakness
    ],
)
def test_a_plain_answer_is_cut_as_published(said: str, answer: str) -> None:
    assert FLAMINGO.cut(said) == answer


def test_a_chat_answer_is_its_first_line() -> None:
    assert ChatTemplate().cut(" Short hair, brown\nBecause") == "Short hair, brown"


def test_every_setting_makes_another_key() -> None:
    templates = (ChatTemplate(), ChatTemplate("x"), ChatTemplate("", "x"), FLAMINGO, IDEFICS)
    assert len({one.key for one in templates}) == 5


def test_pictures_are_opened_in_the_order_of_the_prompt(tmp_path: Path) -> None:
    red = tmp_path / "red.png"
    Image.new("L", (2, 2), 7).save(red)
    first, second = pictures_of([Shown("?", "!", red), TAGS], CAT)
    assert first.mode == "RGB" and first.size == (2, 2) and second.size == (4, 4)


def test_a_missing_or_broken_picture_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_text("no picture")
    with pytest.raises(FileNotFoundError, match=r"absent\.png"):
        pictures_of([], Shown("?", "!", tmp_path / "absent.png"))
    with pytest.raises(ValueError, match=r"broken\.png"):
        pictures_of([], Shown("?", "!", broken))
