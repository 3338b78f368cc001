"""Clauses, units and inflection."""

from __future__ import annotations

import pytest

from omni_rl.rewards.lexicon import (
    Lexicon,
    adjective_forms,
    clauses,
    entries,
    noun_forms,
    units,
    verb_forms,
)


def test_clauses_end_at_english_and_chinese_marks_but_not_inside_numbers() -> None:
    assert clauses("He waves, she smiles. It is 3.5 m; yes") == [
        "He waves",
        "she smiles",
        "It is 3.5 m",
        "yes",
    ]
    assert clauses("\u4ed6\u6325\u624b\uff0c\u5979\u7b11\u3002") == [
        "\u4ed6\u6325\u624b",
        "\u5979\u7b11",
    ]
    assert clauses(" , . ") == []


def test_units_are_words_and_single_chinese_characters() -> None:
    assert units("She's not 3.5, doesn't \u4ed6\u7b11!") == [
        "she",
        "not",
        "3.5",
        "does",
        "not",
        "\u4ed6",
        "\u7b11",
    ]


@pytest.mark.parametrize(
    ("verb", "forms"),
    [
        ("wave", {"wave", "waves", "waved", "waving"}),
        ("cry", {"cry", "cries", "cried", "crying"}),
        ("watch", {"watch", "watches", "watched", "watching"}),
        ("nod", {"nods", "nodded", "nodding"}),
        ("agree", {"agrees", "agreed", "agreeing"}),
        ("play", {"plays", "played", "playing"}),
    ],
)
def test_verbs(verb: str, forms: set[str]) -> None:
    assert forms <= verb_forms(verb)


def test_nouns_and_adjectives() -> None:
    assert noun_forms("baby") == {"baby", "babies"}
    assert noun_forms("boy") == {"boy", "boys"}
    assert adjective_forms("angry") == {"angry", "angrily"}
    assert adjective_forms("gentle") == {"gentle", "gently"}
    assert adjective_forms("calm") == {"calm", "calmly"}


def test_find_takes_the_longest_form_and_gives_the_dictionary_form() -> None:
    lexicon = Lexicon(
        {
            "person": entries("\u4eba \u624b man/men"),
            "other": entries("\u624b\u673a"),  # a telephone, not a hand
        }
    )
    found = lexicon.find(units("two men \u624b\u673a \u624b"))
    assert [(t.kind, t.word, t.start, t.end) for t in found] == [
        ("person", "man", 1, 2),
        ("other", "\u624b\u673a", 2, 4),
        ("person", "\u624b", 4, 5),
    ]
    assert lexicon.word("person", "Men") == "man"
    assert lexicon.word("person", "Ox") == "ox"


def test_a_form_on_two_lists_is_caught() -> None:
    with pytest.raises(AssertionError, match="is both"):
        Lexicon({"a": entries("light"), "b": entries("light")})
