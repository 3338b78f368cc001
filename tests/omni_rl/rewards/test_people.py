"""What each kind of text gets from people_focus by rule.

The points are counted by hand: two for a clause about a person with a detail of its own and a new
shape, one for another clause, no more of these than there are of the first sort (or two in all).
"""

from __future__ import annotations

import random

import pytest

from omni_rl.rewards.people import PeopleWords
from tests.omni_rl.rewards.descriptions import LADDERS, PEOPLE, SCENERY, SHORT
from tests.omni_rl.rewards.heaps import ATTACKS

HONEST = "a person in red waves, the voice sounds calm, two people talk"
HONEST_ZH = "一个穿红衣服的人在挥手，声音听起来很平静，两个人在交谈。"


def score(points: int) -> float:
    return points**2 / (points**2 + 4.7**2)


# what the text is, the text, its points, clauses about the setting alone
TABLE = [
    ("honest", f"<context>{HONEST}</context><think>t</think><answer>A</answer>", 5, 0),
    (
        "honest, a face",
        "<context>a man in blue frowns, the voice sounds angry, the face moves</context>",
        5,
        0,
    ),
    (
        "honest, counting",
        "<context>a person in red stands, the voice sounds calm, a man counts 3 balls</context>",
        6,
        0,
    ),
    ("Chinese, honest", f"<context>{HONEST_ZH}</context>", 5, 0),
    ("Chinese, a mobile phone is not a hand", "<context>手机很贵，其他都好</context>", 0, 0),
    ("bare clauses", "<context>she smiles, he nods, the man is sad</context>", 2, 0),
    ("only a person", "<context>a man is there</context>", 0, 0),
    ("only a behaviour", "<context>it is very calm today</context>", 0, 0),
    ("no context: the whole text", HONEST, 5, 0),
    ("empty", "", 0, 0),
    ("empty context", "<context></context><think>a man waves</think>", 0, 0),
    (
        "broken tags: the context ends where the thought begins",
        f"<context>{HONEST}<think>a boy sings to us",
        5,
        0,
    ),
    (
        "scenery",
        "<context>the wall is grey, the light is soft, a table is in the room</context>",
        0,
        3,
    ),
    (
        "half scenery",
        "<context>a person in red waves, the light is soft, two people talk</context>",
        3,
        1,
    ),
    ("scenery in a clause about a person", "<context>a man waves in the room</context>", 2, 0),
    ("a clause again", "<context>" + "a person in red waves, " * 5 + "</context>", 2, 0),
    (
        "a template",
        "<context>a man in red waves, a boy in blue nods, a girl in white sings</context>",
        3,
        0,
    ),
    ("what is denied", "<context>the man does not wave, smiling at nobody</context>", 0, 0),
    ("after the answer", f"<context>x</context><think>x</think><answer>A</answer>{HONEST}", 0, 0),
    ("in the thought", f"<context>x</context><think>{HONEST}</think><answer>A</answer>", 0, 0),
    ("a second context", f"<context>x</context><context>{HONEST}</context>", 0, 0),
]


@pytest.mark.parametrize(
    ("text", "points", "setting"), [row[1:] for row in TABLE], ids=[r[0] for r in TABLE]
)
def test_what_each_text_gets(text: str, points: int, setting: int) -> None:
    found = PeopleWords()(text)
    assert (found.points, found.setting) == (points, setting)
    assert found.value == pytest.approx(max(0.0, score(points) - 0.1 * setting))


@pytest.mark.parametrize("kind", ATTACKS)
def test_a_heap_earns_little(kind: str) -> None:
    for text in ATTACKS[kind]:
        assert PeopleWords()(f"<context>{text}</context>").value <= 0.3, text


def test_there_are_enough_heaps_of_both_languages() -> None:
    texts = [text for kind in ATTACKS.values() for text in kind]
    assert len(set(texts)) > 150
    assert sum(not text.isascii() for text in texts) > 40


@pytest.mark.parametrize("text", PEOPLE)
def test_prose_about_people_earns_much_and_leaves_room(text: str) -> None:
    assert 0.6 <= PeopleWords()(text).value <= 0.9


def test_a_short_caption_earns_less_and_scenery_nothing() -> None:
    for text in SHORT:
        assert 0.1 <= PeopleWords()(text).value < 0.6, text
    for text in SCENERY:
        assert PeopleWords()(text).value == 0.0, text


@pytest.mark.parametrize("ladder", LADDERS)
def test_each_further_clause_earns_more(ladder: list[str]) -> None:
    joint = " " if ladder[0].isascii() else ""
    scores = [PeopleWords()(joint.join(ladder[:n])).value for n in range(len(ladder) + 1)]
    assert scores == sorted(set(scores))
    assert scores[-1] < 0.95


@pytest.mark.parametrize("text", [text for text in PEOPLE if text.isascii()])
def test_shuffled_words_earn_little(text: str) -> None:
    words = text.split()
    rng = random.Random(0)
    values = [PeopleWords()(" ".join(rng.sample(words, len(words)))).value for _ in range(20)]
    assert sum(values) / len(values) < 0.3


def test_what_is_copied_from_the_question_earns_nothing() -> None:
    asked = (
        "Why does the man in the red coat wave at the woman",
        "A. the man waves because he is happy to see the woman",
    )
    copied = "The man waves because he is happy to see the woman. A boy behind them laughs."
    own = "A boy behind them laughs."
    assert PeopleWords()(copied, asked) == PeopleWords()(own)
    assert PeopleWords()(copied).points > PeopleWords()(own).points


ASKED = (
    "How does the guest react to the joke of the host?",
    "A. She laughs loudly and claps her hands",
    "B. She pretends to smile but feels uncomfortable",
    "C. She gets angry and leaves the stage",
)


@pytest.mark.parametrize(
    "text",
    [
        "She laughs at the host. The guest feels angry about the joke. She leaves the stage with "
        "her hands. She claps and looks angry.",
        "The host is clapping his hands loudly. The guest looks uncomfortable at the joke. She "
        "smiles, then leaves the stage angry. He laughs at her.",
    ],
)
def test_the_words_of_the_question_in_another_order_earn_nothing(text: str) -> None:
    assert PeopleWords()(text).value > 0.4
    assert PeopleWords()(text, ASKED).value == 0.0


def test_clauses_that_add_to_the_question_count() -> None:
    honest = (
        "The host leans forward and grins as he tells the joke. The guest laughs briefly, but her "
        "eyes look tense. She rubs her arm and glances at the door."
    )
    assert PeopleWords()(honest, ASKED).value > 0.5
    assert PeopleWords()(honest, ("A. tense", "B. calm")) == PeopleWords()(honest)


@pytest.mark.parametrize(
    ("text", "points"),
    [
        ("A comedian mimics his grandmother", 2),
        ("A woman is kneading the dough with her hands", 2),
        ("The women mimics his grandmother", 0),
    ],
)
def test_a_verb_on_no_list_agrees_by_its_ending(text: str, points: int) -> None:
    assert PeopleWords()(text).points == points


def test_the_score_rises_without_reaching_1() -> None:
    prose = PeopleWords()(" ".join(text for text in PEOPLE if text.isascii()))
    assert 0.9 < prose.value < 1.0
    assert PeopleWords()("<context>" + "a wall and a table, " * 20 + "</context>").value == 0.0


def test_half_scales_the_score() -> None:
    assert PeopleWords(half=5)(HONEST).value == 0.5
    with pytest.raises(ValueError, match="half=0"):
        PeopleWords(half=0)
