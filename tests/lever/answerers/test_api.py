"""A server that speaks HTTP: what it is asked, what is scored, what happens when it fails."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from core_rl.servers.endpoint import Endpoint, EndpointError
from lever.answerers.api import ApiAnswerer
from lever.answerers.cache import CachedAnswerer
from lever.answerers.templates import FLAMINGO, IDEFICS, ChatTemplate, Prompts, Shown, Template
from lever.data.datasets import Prompted
from tests.lever.completion_server import CompletionServer, logprob_of, serving, text_of, tokens_of
from tests.limits import HUNG

PROMPTS = [Prompted(query, shots) for query in range(4) for shots in ((), (7,), (7, 8))]


def plain(item: int) -> Shown:
    return Shown(f"What is item {item}?", f"thing {item}", None, "tags: ball.")


def seen(item: int) -> Shown:
    return Shown(f"What is item {item}?", f"thing {item}", Image.new("RGB", (4 + item, 4)))


def asking(
    server: CompletionServer, template: Template, show: Any = plain, **changes: Any
) -> ApiAnswerer:
    endpoint = Endpoint("answerer.url", server.url, "run again", **{"backoff": 0.001, **changes})
    return ApiAnswerer(endpoint, "tiny", Prompts(template, show))


def test_texts_are_answered_in_order_and_cut() -> None:
    with serving() as server:
        said = asking(server, FLAMINGO).generate(PROMPTS)
        texts = [
            FLAMINGO.text([plain(shot) for shot in one.shots], plain(one.query)) for one in PROMPTS
        ]
        assert said == [f"{len(tokens_of(text))} words" for text in texts]
        assert sorted(body["prompt"] for body in server.bodies) == sorted(texts)
        assert {(body["model"], body["temperature"]) for body in server.bodies} == {("tiny", 0)}


def test_a_chat_carries_its_pictures() -> None:
    with serving() as server:
        said = asking(server, ChatTemplate(), seen).generate([Prompted(1, (2,))])
        assert said[0].endswith("words")
        [body] = server.bodies
        urls = [
            part["image_url"]["url"]
            for turn in body["messages"]
            for part in turn["content"]
            if part["type"] == "image_url"
        ]
        assert len(set(urls)) == 2
        assert all(url.startswith("data:image/png;base64,") for url in urls)


def test_the_score_of_a_text_is_of_the_answers_tokens_alone() -> None:
    answers = [f"an answer of {count} words" for count in range(len(PROMPTS))]
    with serving() as server:
        scores = asking(server, IDEFICS).answer_logprob(PROMPTS, answers)
    for one, answer, score in zip(PROMPTS, answers, scores, strict=True):
        text = IDEFICS.text([plain(shot) for shot in one.shots], plain(one.query))
        tokens, start = tokens_of(f"{text} {answer}"), len(tokens_of(text))
        values = [logprob_of(tokens, place) for place in range(start, len(tokens))]
        assert len(values) == 5
        assert score == pytest.approx(sum(values) / len(values))


def test_the_score_of_a_chat_is_of_the_answers_tokens_alone() -> None:
    with serving() as server:
        [score] = asking(server, ChatTemplate(), seen).answer_logprob([PROMPTS[1]], ["two words"])
        [body] = server.bodies
    assert body["messages"][-1] == {"role": "assistant", "content": "two words"}
    tokens = tokens_of(text_of(body["messages"]))
    assert tokens[-2:] == ["two", " words"]
    places = [len(tokens) - 2, len(tokens) - 1]
    assert score == pytest.approx(sum(logprob_of(tokens, place) for place in places) / 2)


@pytest.mark.parametrize("template", [ChatTemplate(), IDEFICS])
def test_a_server_that_does_not_score_is_an_error_that_says_so(template: Template) -> None:
    with serving(scores=False) as server, pytest.raises(EndpointError, match="scores prompts"):
        asking(server, template).answer_logprob(PROMPTS[:1], ["dog"])


def test_a_token_across_the_end_of_the_prompt_is_not_scored() -> None:
    class Sticky(ChatTemplate):
        """A plain text that ends inside a word."""

        def messages(self, shots: Any, query: Any) -> None:
            return None

        def text(self, shots: Any, query: Any) -> str:
            return "Answer: th"

    with serving() as server, pytest.raises(EndpointError, match="cover exactly the answer"):
        asking(server, Sticky()).answer_logprob(PROMPTS[:1], ["ing"])


def test_failures_are_tried_again_and_then_named() -> None:
    with serving(lambda times, path: 503 if times < 3 else None) as server:
        assert len(asking(server, FLAMINGO).generate(PROMPTS)) == len(PROMPTS)
        assert len(server.bodies) == 3 * len(PROMPTS)
    with (
        serving(lambda times, path: 503) as server,
        pytest.raises(EndpointError, match=r"^answerer.url=http.*status 503.*run again"),
    ):
        asking(server, FLAMINGO, retries=2).generate(PROMPTS[:1])


def test_as_many_requests_as_allowed_are_under_way() -> None:
    """Every request waits until three are there, so fewer at a time would never be answered."""
    barrier = threading.Barrier(3, timeout=HUNG)

    def wait(times: int, path: str) -> None:
        barrier.wait()

    with serving(wait) as server:
        asking(server, FLAMINGO, concurrency=3).generate(PROMPTS)
        assert server.most_under_way == 3


def test_a_run_again_asks_only_for_what_is_missing(tmp_path: Path) -> None:
    down = True

    def fails_late(times: int, path: str) -> int | None:
        return 400 if down and len(server.bodies) > 8 else None

    with serving(fails_late) as server:
        answerer = asking(server, FLAMINGO, concurrency=4)
        cached = CachedAnswerer(answerer, tmp_path / "answers.sqlite", batch_size=4)
        with pytest.raises(EndpointError):
            cached.generate(PROMPTS)
        assert cached.calls == 8
        down = False
        server.bodies.clear()
        again = CachedAnswerer(answerer, tmp_path / "answers.sqlite", batch_size=4)
        assert len(again.generate(PROMPTS)) == len(PROMPTS)
        assert len(server.bodies) == len(PROMPTS) - 8


def test_another_server_model_or_data_set_is_another_answerer() -> None:
    names = {
        ApiAnswerer(Endpoint("", url, ""), model, Prompts(FLAMINGO, plain), data=data).fingerprint
        for url in ("http://a/v1", "http://b/v1")
        for model in ("one", "two")
        for data in ("x", "y")
    }
    assert len(names) == 8


def test_pictures_need_a_chat() -> None:
    with serving() as server, pytest.raises(ValueError, match="template=chat"):
        asking(server, FLAMINGO, seen).generate(PROMPTS[:1])
