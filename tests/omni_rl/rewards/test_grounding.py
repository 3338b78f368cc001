"""Statements about a clip against its facts."""

from __future__ import annotations

import pytest

from omni_rl.rewards.grounding import Grounder, grounding_f1, share_true

SOCIAL = {"colour": "red", "voice": "calm", "gesture": "waves"}
GENERAL = {"colour": "blue", "voice": "angry", "count": "3"}
EMOTION = {"colour": "green", "voice": "cheerful", "expression": "smiles"}

# facts, context, statements as (slot, value, true)
TABLE = [
    (
        SOCIAL,
        "a person in red waves, the voice sounds calm, two people talk",
        {("colour", "red", True), ("gesture", "wave", True), ("voice", "calm", True)},
    ),
    (
        SOCIAL,
        "a man in blue points, the voice sounds angry",
        {("colour", "blue", False), ("gesture", "point", False), ("voice", "angry", False)},
    ),
    (SOCIAL, "a person waved, waving again", {("gesture", "wave", True)}),
    (SOCIAL, "the man waves or points", {("gesture", "wave", True), ("gesture", "point", False)}),
    (SOCIAL, "a woman nods", {("gesture", "nod", False)}),  # never seen in these clips
    (SOCIAL, "a person in red smiles", {("colour", "red", True), ("expression", "smile", False)}),
    (SOCIAL, "a person in red with two balls", {("colour", "red", True), ("count", "2", False)}),
    (SOCIAL, "the wall is red, a red wall is behind the man", set()),
    (SOCIAL, "a calm room", set()),
    (SOCIAL, "two people talk calmly", {("voice", "calm", True)}),
    (SOCIAL, "an angry voice", {("voice", "angry", False)}),
    (SOCIAL, "the person does not point, nobody bows", set()),
    (
        SOCIAL,
        "一个穿红衣服的人在挥手，声音很平静",
        {("colour", "red", True), ("gesture", "wave", True), ("voice", "calm", True)},
    ),
    (SOCIAL, "一个穿绿衣服的人在鞠躬", {("colour", "green", False), ("gesture", "bow", False)}),
    (
        GENERAL,
        "a person in blue stands, a man counts 3 balls",
        {("colour", "blue", True), ("count", "3", True)},
    ),
    (GENERAL, "a person holds two red balls", {("count", "2", False)}),
    (
        GENERAL,
        "a person in blue beside three balls",
        {("colour", "blue", True), ("count", "3", True)},
    ),
    (GENERAL, "the balls are four", {("count", "4", False)}),
    (GENERAL, "one person counts three balls", {("count", "3", True)}),
    (GENERAL, "桌上有三个球", {("count", "3", True)}),
    (
        EMOTION,
        "a person in green smiles, the voice is cheerful, the face moves",
        {("colour", "green", True), ("expression", "smile", True), ("voice", "cheerful", True)},
    ),
    ({**SOCIAL, "people": "2"}, "three people talk", {("people", "3", False)}),
    ({**SOCIAL, "hat": "tall"}, "a man in a tall hat", {("hat", "tall", True)}),
    (SOCIAL, "the light is soft", set()),
    (SOCIAL, "", set()),
    ({}, "a person in red waves", set()),
]


@pytest.mark.parametrize(("facts", "context", "expected"), TABLE)
def test_statements(
    facts: dict[str, str], context: str, expected: set[tuple[str, str, bool]]
) -> None:
    found = Grounder()(f"<context>{context}</context>", facts)
    assert {(s.slot, s.value, s.true) for s in found} == expected


def test_repeating_a_truth_does_not_hide_a_falsehood() -> None:
    lie = "a man bows, "
    assert share_true(Grounder()(lie + "a man waves, " * 9, SOCIAL)) == 0.5


def test_share_and_f1() -> None:
    told = Grounder()("a person in red points", SOCIAL)
    assert share_true(told) == 0.5
    assert grounding_f1(told, SOCIAL) == pytest.approx(2 * 1 / (2 + 3))
    assert share_true([]) is None
    assert grounding_f1([], SOCIAL) == 0.0
    assert grounding_f1([], {}) is None


def test_only_the_count_of_balls_is_not_about_people() -> None:
    told = Grounder()("a person in blue counts 3 balls", GENERAL)
    assert {s.slot: s.about_people for s in told} == {"colour": True, "count": False}
