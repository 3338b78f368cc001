"""Rule rewards over groups, and what the Stage 4 total makes of honest and dishonest texts."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from core_rl.config import RewardConfig
from core_rl.types import Actions
from omni_rl.data import scenes
from omni_rl.data.record import Record
from omni_rl.rewards.rules import (
    Accuracy,
    Format,
    Grounding,
    PeopleFocus,
    Repetition,
    judgeable,
)

FACTS = {"colour": "red", "voice": "calm", "gesture": "waves"}
HONEST = "a person in red waves, the voice sounds calm, two people talk"


def record(problem_type: str = "multiple choice", answer: str = "A", facts: bool = True) -> Record:
    return Record(
        id="r1",
        source="social_iq",
        problem="What does the person do?",
        problem_type=problem_type,
        options=("A. waves", "B. points", "C. bows"),
        answer=answer,
        solution="",
        data_type="video",
        videos=(),
        images=(),
        audios=(),
        facts=FACTS if facts else {},
        origin="test:1",
    )


def points(number: int) -> float:
    """Value of a number of points of people_focus."""
    return number**2 / (number**2 + 4.7**2)


def told(context: str, answer: str = "A", think: str = "the person waves") -> str:
    return f"<context>{context}</context><think>{think}</think><answer>{answer}</answer>"


def actions(*texts: tuple[str, ...]) -> Actions:
    ids_BGT = torch.zeros(len(texts), len(texts[0]), 1, dtype=torch.long)
    return Actions(ids_BGT=ids_BGT, mask_BGT=torch.ones_like(ids_BGT).bool(), texts=texts)


# text, strict, lenient
FORMATS = [
    (told("c"), 1, 1),
    ("\n" + told("c") + "\n", 1, 0),  # the published form does not allow a line break in front
    ("<context>a\n</context>\n<think>x < 3</think> <answer>A</answer>", 1, 1),
    (told("c") + " and more", 0, 1),
    (told("c") + "tired tired</answer>", 0, 1),  # a loophole of `.*?` with a full match
    (told("c") + told("c"), 0, 1),
    ("well, " + told("c"), 0, 0),
    (told(" "), 0, 1),
    (told("c", think=""), 0, 1),
    (told("<answer>B</answer>"), 0, 1),
    ("<think>t</think><context>c</context><answer>A</answer>", 0, 0),
    ("<context>c</context><think>t</think>", 0, 0),
    ("<context>c</context>x<think>t</think><answer>A</answer>", 0, 0),
    ("<contextsystemsystemsystem", 0, 0),
    ("", 0, 0),
]


@pytest.mark.parametrize(("text", "strict", "lenient"), FORMATS)
def test_format(text: str, strict: float, lenient: float) -> None:
    assert Format().score(record(), text) == strict
    assert Format(strict=False).score(record(), text) == lenient


def test_groups_are_judged_by_their_own_record() -> None:
    queries = [record(), record("numerical", "2")]
    group = actions((told(HONEST), told(HONEST, "B")), (told("x", "2"), told("x", "A")))
    assert Accuracy()(queries, group) == [[1.0, 0.0], [1.0, 0.0]]
    assert Format()(queries, group) == [[1.0, 1.0], [1.0, 1.0]]
    assert PeopleFocus()(queries, group) == [[points(5), points(5)], [0.0, 0.0]]
    assert Grounding()(queries, group) == [[1.0, 1.0], [None, None]]


def test_what_cannot_be_judged_is_none() -> None:
    assert Grounding().score(record(facts=False), told(HONEST)) is None
    assert Grounding(recall=True).score(record(facts=False), told(HONEST)) is None
    assert Accuracy().score(record(answer=""), told("c")) is None
    assert Accuracy(free_form=False).score(record("free-form", "x"), told("c")) is None
    word = record("instruction", "ready")
    assert Format().score(word, "ready") is None
    assert PeopleFocus().score(word, "ready") is None


def test_silence_costs_only_with_recall() -> None:
    silent = told("the light is soft")
    assert Grounding().score(record(), silent) is None
    assert Grounding(recall=True).score(record(), silent) == 0.0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("one two three four", 0.0),
        ("system " * 12, 1 / 10 - 1),  # ten trigrams, all the same
        ("a b c a b c", 3 / 4 - 1),
        ("a b c, a b c\na b c", 3 / 7 - 1),
        ("<context>the voice is calm</context><think>the voice is calm</think>", 0.0),
        ("short", 0.0),
        ("", 0.0),
    ],
)
def test_repetition(text: str, value: float) -> None:
    assert Repetition().score(record(), text) == pytest.approx(value)


def test_bad_settings_are_named() -> None:
    with pytest.raises(ValueError, match="ngram=0"):
        Repetition(ngram=0)
    with pytest.raises(ValueError, match="half=-1"):
        PeopleFocus(half=-1)


# what the text is, the text; all but the first must get less than the honest one
RIVALS = [
    ("of other people", told("a person in blue points, the voice sounds angry, two people talk")),
    ("half of it true", told("a person in red bows, the voice sounds calm, two people talk")),
    (
        "all gestures at once",
        told("a person in red waves and bows, the voice sounds calm, people talk here"),
    ),
    ("of other sources", told("a person in red smiles, the voice sounds calm, two people talk")),
    ("wrong answer", told(HONEST, "B")),
    ("keywords", told("person, face, voice, waves, smiles, talks, eyes, hand, child, nods")),
    ("scenery", told("the wall is grey, the light is soft, a table is in the room")),
    ("trailing text", told("the light is soft") + HONEST),
    ("repeated", told("a person in red waves, " * 4)),
    ("no tags", HONEST),
    ("garbled", "<contextsystemsystemsystem"),
    ("empty", ""),
]


@pytest.mark.parametrize("rival", [r[1] for r in RIVALS], ids=[r[0] for r in RIVALS])
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (0.2, 0.3, 0.5, 0.5)])
def test_honesty_wins_the_stage_4_total(rival: str, weights: tuple[float, ...]) -> None:
    rewards = (Format(), Accuracy(), PeopleFocus(), Grounding())

    def total(text: str) -> float:
        values = [reward.score(record(), text) for reward in rewards]
        return sum(w * v for w, v in zip(weights, values, strict=True) if v is not None)

    assert total(told(HONEST)) > total(rival) + 0.05


def generated(family: str, style: scenes.Style) -> list[tuple[Record, str]]:
    """Tell a few scenes of the embedded world, whose clips are not needed here."""
    rng = np.random.default_rng(0)
    drawn = itertools.islice(scenes.draw_scenes(family, "train", 0), 60)
    return [
        (
            replace(
                record(scenes.PROBLEM_TYPES[family], scenes.answer(scene)),
                facts=dict(scene.facts),
                options=scenes.options(scene),
            ),
            scenes.narrate(scene, style, rng),
        )
        for scene in drawn
    ]


@pytest.mark.parametrize("family", scenes.FAMILIES)
def test_honest_words_of_the_embedded_world_earn_everything_there_is(family: str) -> None:
    for item, text in generated(family, scenes.HONEST):
        assert Format().score(item, text) == 1.0
        assert Accuracy().score(item, text) == 1.0
        # `two people talk` and `the face moves` have no detail: one point of six less.
        earned = points(6 if family == "general" else 5)
        assert PeopleFocus().score(item, text) == pytest.approx(earned), text
        assert Grounding().score(item, text) == 1.0, text
        assert Grounding(recall=True).score(item, text) == 1.0, text
        assert Repetition().score(item, text) == 0.0, text


@pytest.mark.parametrize("family", scenes.FAMILIES)
def test_what_is_said_of_another_clip_is_punished(family: str) -> None:
    told_of = generated(family, scenes.HONEST)[:20]
    scores = [
        Grounding().score(item, text)
        for (item, _), (other, text) in itertools.product(told_of, told_of)
        if not set(item.facts.items()) & set(other.facts.items())
    ]
    assert scores
    assert set(scores) == {0.0}


def test_the_scenery_of_the_embedded_world_earns_nothing() -> None:
    text = told(", ".join(scenes.SCENERY))
    assert PeopleFocus().score(record(), text) == 0.0
    assert Grounding().score(record(), text) is None
    weak = [pair for family in scenes.FAMILIES for pair in generated(family, scenes.WEAK)]
    scores = [PeopleFocus().score(item, text) for item, text in weak]
    assert np.mean([score for score in scores if score is not None]) < 0.3


def test_grounding_is_left_out_where_nothing_is_known() -> None:
    functions = {
        "accuracy": {"_target_": "omni_rl.rewards.rules.Accuracy"},
        "grounding": {"_target_": "omni_rl.rewards.rules.Grounding", "recall": True},
    }
    config = RewardConfig(functions, {"accuracy": 2.0, "grounding": 0.5})
    assert judgeable(config, [record(facts=False), record()]) is config
    kept = judgeable(config, [record(facts=False)])
    assert (list(kept.functions), kept.weights) == (["accuracy"], {"accuracy": 2.0})
    alone = RewardConfig({"grounding": functions["grounding"]}, {"grounding": 1.0})
    assert judgeable(alone, [record(facts=False)]) is alone  # a warning is better than nothing
