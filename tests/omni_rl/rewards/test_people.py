"""What each kind of text gets from the keyword version of people_focus."""

from __future__ import annotations

import pytest

from omni_rl.rewards.people import PeopleWords

HONEST = "a person in red waves, the voice sounds calm, two people talk"
HONEST_ZH = "一个穿红衣服的人在挥手，声音听起来很平静，两个人在交谈。"
FULL, HALF = 6 / 7, 3 / 7

# what the text is, the text, its score
TABLE = [
    ("honest", f"<context>{HONEST}</context><think>t</think><answer>A</answer>", FULL),
    (
        "honest, a face",
        "<context>a man in blue frowns, the voice sounds angry, the face moves</context>",
        FULL,
    ),
    (
        "honest, counting",
        "<context>a person in red stands, the voice sounds calm, a man counts 3 balls</context>",
        FULL,
    ),
    ("pronouns are no keywords", "<context>she smiles, he nods</context>", 4 / 7),
    (
        "prose",
        "<context>The woman on the left is smiling while she listens to her friend. "
        "He looks nervous and keeps pointing at the screen.</context>",
        4 / 7,
    ),
    ("Chinese, honest", f"<context>{HONEST_ZH}</context>", FULL),
    ("Chinese, a mobile phone is not a hand", "<context>手机很贵，其他都好</context>", 0.0),
    ("only a person", "<context>a man is there</context>", 1 / 7),
    ("only a behaviour", "<context>it is very calm today</context>", 1 / 7),
    ("no context: the whole text", HONEST, FULL),
    ("empty", "", 0.0),
    ("empty context", "<context></context><think>a man waves</think>", 0.0),
    (
        "broken tags: the context ends where the thought begins",
        f"<context>{HONEST}<think>a boy sings to us",
        FULL,
    ),
    (
        "scenery",
        "<context>the wall is grey, the light is soft, a table is in the room</context>",
        0.0,
    ),
    (
        "half scenery",
        "<context>a person in red waves, the light is soft, two people talk</context>",
        4 / 7 - 0.1,
    ),
    (
        "scenery in a clause about a person",
        "<context>a man waves in the room</context>",
        2 / 7 - 0.1,
    ),
    # What does not pay.
    (
        "keyword list",
        "<context>person, face, voice, waves, smiles, talks, eyes, hand, child, nods</context>",
        0.0,
    ),
    (
        "keyword heap",
        "<context>person man woman child face voice waves smiles talks points bows</context>",
        0.0,
    ),
    (
        "keywords in pairs",
        "<context>person waves, man smiles, woman talks, child nods</context>",
        0.0,
    ),
    (
        "a heap with filler is worth its one clause",
        "<context>the person the man the woman and the child all of them in here</context>",
        1 / 7,
    ),
    (
        "one clause too full",
        "<context>a person waves and smiles and points and bows</context>",
        0.0,
    ),
    ("a clause again", "<context>" + "a person in red waves, " * 5 + "</context>", 2 / 7),
    (
        "a clause again in other words",
        "<context>a person in red waves, in blue persons were waving</context>",
        2 / 7,
    ),
    (
        "the same of others",
        "<context>a man here talks, a woman here talks, a child here talks</context>",
        2 / 7,
    ),
    ("after the answer", f"<context>x</context><think>x</think><answer>A</answer>{HONEST}", 0.0),
    ("in the thought", f"<context>x</context><think>{HONEST}</think><answer>A</answer>", 0.0),
    ("a second context", f"<context>x</context><context>{HONEST}</context>", 0.0),
    ("Chinese, keyword list", "<context>人、手、脸、眼睛、微笑、说话、挥手、点头</context>", 0.0),
    ("Chinese, keyword heap", "<context>男人女人孩子微笑说话挥手点头</context>", 0.0),
    ("Chinese, a clause again", "<context>" + "一个穿红衣服的人在挥手，" * 5 + "</context>", 2 / 7),
]


@pytest.mark.parametrize(("text", "score"), [row[1:] for row in TABLE], ids=[r[0] for r in TABLE])
def test_what_each_text_gets(text: str, score: float) -> None:
    assert PeopleWords()(text).value == pytest.approx(score)


def test_the_score_stays_between_0_and_1() -> None:
    told = "a man in red waves, a woman over there smiles, the boy in front talks, he is calm"
    assert PeopleWords()(told).value == 1.0
    assert PeopleWords()(told).points == 8
    assert PeopleWords()("<context>" + "a wall and a table, " * 20 + "</context>").value == 0.0


def test_target_scales_the_score() -> None:
    assert PeopleWords(target=6)(HONEST).value == 1.0
    with pytest.raises(ValueError, match="target=0"):
        PeopleWords(target=0)
