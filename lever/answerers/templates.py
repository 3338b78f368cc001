"""The layout of a prompt, and the end of an answer.

`ChatTemplate` is for models with a chat template: each demonstration is a turn of the user and one
of the assistant.  `PlainTemplate` is one text, as in the training of Flamingo and Idefics:

    <image>Question:Who? Short answer:a cat<|endofchunk|><image>Question:Where? Short answer:

`answer_prefix` is what joins the answer to the prompt, so that a score covers exactly the tokens of
the answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from lever.data.datasets import Prompted
from lever.features.pictures import open_picture

Picture = Path | Image.Image
IMAGE = "<image>"
# The first words of a model that continues with the next question.
_NEXT_QUESTION = re.compile("Question|Answer|Short")


@dataclass(frozen=True)
class Shown:
    """The parts of an item that a prompt shows.

    Attributes:
        question: the question.
        answer: shown if the item is a demonstration.
        picture: a file or an open picture; None if there is none.
        context: text that replaces or accompanies the picture: object tags, a caption.
    """

    question: str
    answer: str
    picture: Picture | None = None
    context: str = ""


Show = Callable[[int], Shown]


@dataclass(frozen=True)
class ChatTemplate:
    """Demonstrations as turns of a chat.

    Args:
        system: system prompt; empty for none.
        instruction: text after every question.
        answer_prefix: text between the prompt and the answer, scored with the answer.
    """

    system: str = ""
    instruction: str = "Answer with one word or a short phrase."
    answer_prefix: str = ""

    @property
    def key(self) -> str:
        """Name of the template and its settings, part of the key of an answer."""
        return f"chat|{self.system}|{self.instruction}"

    def messages(self, shots: Sequence[Shown], query: Shown) -> list[dict[str, Any]] | None:
        """Return the turns of the chat, pictures as `{"type": "image"}`."""
        turns = [_turn("system", self.system)] if self.system else []
        for shot in shots:
            turns += [self._question(shot), _turn("assistant", shot.answer)]
        return [*turns, self._question(query)]

    def text(self, shots: Sequence[Shown], query: Shown) -> str:
        """Return the whole prompt as one text, `<image>` for a picture."""
        lines = []
        for turn in self.messages(shots, query) or []:
            said = "".join(part.get("text", IMAGE) for part in turn["content"])
            lines.append(f"{turn['role']}: {said}")
        return "\n".join([*lines, "assistant: "])

    def cut(self, said: str) -> str:
        """Extract the answer from a model's text: its first line."""
        return said.strip().split("\n")[0].strip()

    def _question(self, item: Shown) -> dict[str, Any]:
        words = (item.context, item.question, self.instruction)
        turn = _turn("user", "\n".join(filter(None, words)))
        if item.picture is not None:
            turn["content"].insert(0, {"type": "image"})
        return turn


@dataclass(frozen=True)
class PlainTemplate:
    """Demonstrations one after another in one text.

    Args:
        join: end of a demonstration.
        answer_prefix: text between the colon and the answer.
    """

    join: str = "<|endofchunk|>"
    answer_prefix: str = ""

    @property
    def key(self) -> str:
        return f"plain|{self.join!r}|{self.answer_prefix!r}"

    def messages(self, shots: Sequence[Shown], query: Shown) -> list[dict[str, Any]] | None:
        """Return None: the prompt is no chat."""
        return None

    def text(self, shots: Sequence[Shown], query: Shown) -> str:
        shown = [f"{_asked(shot)}{self.answer_prefix}{shot.answer}{self.join}" for shot in shots]
        return "".join([*shown, _asked(query)])

    def cut(self, said: str) -> str:
        """Cut where the model continues with a next question, then at the first comma.

        As published; an answer that begins with "Question", "Answer" or "Short" becomes empty.
        """
        return _NEXT_QUESTION.split(said, maxsplit=1)[0].split(", ")[0].strip()


Template = ChatTemplate | PlainTemplate
FLAMINGO = PlainTemplate("<|endofchunk|>")
IDEFICS = PlainTemplate("\n", answer_prefix=" ")


@dataclass(frozen=True)
class Prompts:
    """Prompts about the items of a data set.

    Attributes:
        template: their layout.
        show: item id -> the parts of the item that are shown.
    """

    template: Template
    show: Show

    def shown(self, prompt: Prompted) -> tuple[list[Shown], Shown]:
        """Look up the demonstrations and the query of a prompt."""
        return [self.show(shot) for shot in prompt.shots], self.show(prompt.query)

    def text(self, prompt: Prompted) -> str:
        """Return a prompt as one text."""
        return self.template.text(*self.shown(prompt))


def pictures_of(shots: Sequence[Shown], query: Shown) -> list[Image.Image]:
    """Open the pictures of a prompt, in its order."""
    pictures = [one.picture for one in (*shots, query) if one.picture is not None]
    return [
        one.convert("RGB") if isinstance(one, Image.Image) else open_picture(one)
        for one in pictures
    ]


def _turn(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}]}


def _asked(item: Shown) -> str:
    picture = IMAGE if item.picture is not None else ""
    context = f"{item.context} " if item.context else ""
    return f"{picture}{context}Question:{item.question} Short answer:"
