"""Answers from a server with an OpenAI-compatible interface, such as vLLM's.

A request without an answer (see `core_rl.servers.endpoint`) is an error.  Answers are cached
(`lever.answerers.cache`), so the next run asks only for the missing ones.

To score a given answer, the server must return log-probabilities of its prompt.  A plain text is
scored by `/completions` with `echo`, where offsets tell which tokens belong to the answer.  A chat,
pictures included, is scored by `/chat/completions` with `prompt_logprobs`, an extension of vLLM.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Sequence
from typing import Any

from PIL import Image

from core_rl.config import is_number
from core_rl.servers.endpoint import Client, Endpoint, EndpointError, ask_all
from lever.answerers.templates import Prompts, pictures_of
from lever.data.datasets import Prompted

API_VERSION = 1  # raise when a request changes

Json = dict[str, Any]


class ApiAnswerer:
    """A model on a server.

    Args:
        endpoint: the server.
        model: the model's name there.
        prompts: about the items.
        max_new_tokens: longest answer.
        data: name of the data set, for the fingerprint.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        model: str,
        prompts: Prompts,
        max_new_tokens: int = 5,
        data: str = "",
    ) -> None:
        self.endpoint = endpoint
        self.model = model
        self.prompts = prompts
        self.template = prompts.template
        self.max_new_tokens = max_new_tokens
        named = f"{endpoint.url}|{model}|{data}"
        self._fingerprint = f"api-{API_VERSION}-{hashlib.sha256(named.encode()).hexdigest()[:16]}"

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    def generate(self, prompts: Sequence[Prompted]) -> list[str]:
        return ask_all(self.endpoint, prompts, self._answer)

    def answer_logprob(self, prompts: Sequence[Prompted], answers: Sequence[str]) -> list[float]:
        """Return the log-probability of each answer, in nats, averaged over its tokens.

        Raises:
            EndpointError: the server did not answer, or does not score prompts.
        """
        pairs = list(zip(prompts, answers, strict=True))
        return ask_all(self.endpoint, pairs, self._score)

    async def _answer(self, client: Client, prompt: Prompted) -> str:
        messages = self._messages(prompt)
        length = {"max_tokens": self.max_new_tokens}
        if messages is None:
            body = {"prompt": self._text(prompt), **length}
            reply = await self._post(client, "completions", body)
            said = _dig(reply, "choices", 0, "text")
        else:
            reply = await self._post(client, "chat/completions", {"messages": messages, **length})
            said = _dig(reply, "choices", 0, "message", "content")
        if not isinstance(said, str):
            raise EndpointError(f"query {prompt.query}: {self.endpoint.url} replied without a text")
        return self.template.cut(said)

    async def _score(self, client: Client, asked: tuple[Prompted, str]) -> float:
        prompt, answer = asked
        answer = f"{self.template.answer_prefix}{answer}"
        messages = self._messages(prompt)
        if messages is None:
            scores = await self._score_text(client, self._text(prompt), answer)
        else:
            scores = await self._score_chat(client, messages, answer)
        if not scores:
            raise EndpointError(
                f"query {prompt.query}: {self.endpoint.url} gave no log-probabilities that cover "
                f"exactly the answer {answer!r}: expected a server that scores prompts (vLLM: echo "
                "on /completions, prompt_logprobs on /chat/completions); generating needs none, "
                "so rl_data works with rl_data.gt_prob=false"
            )
        return sum(scores) / len(scores)

    async def _score_text(self, client: Client, text: str, answer: str) -> list[float] | None:
        """Score the answer's tokens at the end of a text; None if the server does not."""
        body = {"prompt": text + answer, "echo": True, "logprobs": 1, "max_tokens": 1}
        found = _dig(await self._post(client, "completions", body), "choices", 0, "logprobs")
        offsets, values = _dig(found, "text_offset"), _dig(found, "token_logprobs")
        if not isinstance(offsets, list) or not isinstance(values, list) or not offsets:
            return None
        end = len(text) + len(answer)  # generated tokens follow
        inside = [place for place, at in enumerate(offsets) if len(text) <= at < end]
        # A token that spans the end of the prompt would include a part of the prompt.
        if not inside or offsets[inside[0]] != len(text):
            return None
        return _numbers([values[place] for place in inside])

    async def _score_chat(
        self, client: Client, messages: list[Json], answer: str
    ) -> list[float] | None:
        """Score the answer's tokens at the end of a chat; None if the server does not."""
        body = {
            "messages": [*messages, {"role": "assistant", "content": answer}],
            "add_generation_prompt": False,
            "continue_final_message": True,
            "prompt_logprobs": 0,  # of the prompt's tokens only, without alternatives
            "max_tokens": 1,
        }
        found = _dig(await self._post(client, "chat/completions", body), "prompt_logprobs")
        scores: list[Any] = []
        text = ""
        for entry in reversed(found if isinstance(found, list) else []):
            if not isinstance(entry, dict) or len(entry) != 1:
                break
            token = next(iter(entry.values()))
            text = f"{_dig(token, 'decoded_token')}{text}"
            scores.append(_dig(token, "logprob"))
            if text == answer:
                return _numbers(scores)
            if len(text) > len(answer):
                break
        return None

    async def _post(self, client: Client, path: str, body: Json) -> Json:
        asked = {"model": self.model, "temperature": 0, **body}
        return await client.ask(path, asked, lambda response: dict(response.json()))

    def _text(self, prompt: Prompted) -> str:
        shots, query = self.prompts.shown(prompt)
        if any(one.picture is not None for one in (*shots, query)):
            raise ValueError(
                "answerer.template: pictures go to a server in a chat only: expected "
                "answerer.template=chat, or data without pictures"
            )
        return self.template.text(shots, query)

    def _messages(self, prompt: Prompted) -> list[Json] | None:
        shots, query = self.prompts.shown(prompt)
        messages = self.template.messages(shots, query)
        if messages is None:
            return None
        pictures = iter(pictures_of(shots, query))
        for turn in messages:
            for part in turn["content"]:
                if part["type"] == "image":
                    part["type"] = "image_url"
                    part["image_url"] = {"url": _data_url(next(pictures))}
        return messages


def _data_url(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")  # lossless, as for a local model
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _dig(reply: object, *path: str | int) -> Any:
    """Return the part of a reply at a path of keys and places; None if there is none."""
    value: Any = reply
    for key in path:
        try:
            value = value[key]
        except (LookupError, TypeError):
            return None
    return value


def _numbers(values: Sequence[Any]) -> list[float] | None:
    return [float(value) for value in values] if all(map(is_number, values)) else None
