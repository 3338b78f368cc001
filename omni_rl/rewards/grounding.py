"""Truth of what a text states about a clip whose facts are known.

The facts of a generated clip are slot -> value.  A statement is a value of a slot that a clause
names.  It is true if the value is the fact, false if the fact is another one or the clip has no
such slot.  Each (slot, value) counts once, so repeating a truth does not outweigh a falsehood.
Clauses with a negation are ignored: a list of what is not the case could be endless.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from omni_rl.rewards import chinese_words as chinese
from omni_rl.rewards import english_words as english
from omni_rl.rewards.answers import judged_text
from omni_rl.rewards.lexicon import (
    Lexicon,
    Term,
    adjective_forms,
    clauses,
    entries,
    merged,
    noun_forms,
    units,
    verb_forms,
)

# Kinds of nouns that a value can belong to.
HUMAN, CLOTHES, SPEECH, BALL, PLACE = "human", "clothes", "speech", "ball", "place"
_NOUNS = {
    HUMAN: merged(entries(english.PEOPLE, noun_forms), entries(chinese.PEOPLE)),
    CLOTHES: merged(
        entries("clothes cloth shirt coat dress jacket sweater suit", noun_forms),
        entries(chinese.CLOTHES),
    ),
    SPEECH: merged(
        entries("voice tone", noun_forms),
        entries("sound talk speak/spoke/spoken say/said", verb_forms),
        entries(chinese.VOICE_WORDS),
    ),
    BALL: merged(entries("ball object sphere", noun_forms), entries(chinese.BALLS)),
    PLACE: merged(entries(english.PLACES, noun_forms), entries(chinese.SETTING)),
}
_NEGATIONS = merged(entries("not no never nobody without neither nor"), entries(chinese.NEGATIONS))


@dataclass(frozen=True)
class Slot:
    """A kind of fact.

    Attributes:
        name: its key in `Record.facts`.
        values: dictionary form -> forms of every value that can be named, also of values that no
            clip has and that are therefore always false.
        nouns: kinds of nouns that a value must belong to; empty: it needs none.
        looks_ahead: the value belongs to the next noun (`two balls`), not to the last (`in red`).
        required: statements are false for a clip without this fact; otherwise they are ignored.
        about_people: counts for `grounded_focus`.
    """

    name: str
    values: Mapping[str, Iterable[str]]
    nouns: frozenset[str] = frozenset()
    looks_ahead: bool = False
    required: bool = True
    about_people: bool = True


# Values that can be named, by slot; also some that no clip has.
_COLOURS = entries("red green blue yellow black white orange purple pink brown grey/gray")
_VOICES = entries("calm cheerful angry sad nervous excited bored scared happy", adjective_forms)
_GESTURES = entries(
    "wave point bow nod clap walk run/ran jump dance hug kick shrug kneel/knelt", verb_forms
)
_EXPRESSIONS = entries("smile frown gasp laugh cry grin wink scowl pout sob", verb_forms)
_NUMBERS = merged(
    entries("0/zero 1/one 2/two 3/three 4/four 5/five 6/six 7/seven 8/eight 9/nine 10/ten"),
    entries(chinese.NUMBERS),
)

EMBEDDED_SLOTS = (
    Slot("colour", merged(_COLOURS, entries(chinese.COLOURS)), frozenset({HUMAN, CLOTHES})),
    Slot("voice", merged(_VOICES, entries(chinese.VOICES)), frozenset({SPEECH})),
    Slot("gesture", merged(_GESTURES, entries(chinese.GESTURES))),
    Slot("expression", merged(_EXPRESSIONS, entries(chinese.EXPRESSIONS))),
    Slot("count", _NUMBERS, frozenset({BALL}), looks_ahead=True, about_people=False),
    Slot("people", _NUMBERS, frozenset({HUMAN}), looks_ahead=True, required=False),
)


@dataclass(frozen=True)
class Statement:
    """A value named for a slot.

    Attributes:
        slot: name of the slot.
        value: dictionary form of the value.
        true: whether the facts say so.
        about_people: whether the slot is about people.
    """

    slot: str
    value: str
    true: bool
    about_people: bool


class Grounder:
    """Finds statements in text and compares them with facts.

    Args:
        slots: what can be stated; a fact of another slot is stated where its own word occurs.
    """

    def __init__(self, slots: tuple[Slot, ...] = EMBEDDED_SLOTS) -> None:
        self._slots = slots
        self._values = {slot.name: Lexicon({slot.name: slot.values}) for slot in slots}
        self._nouns = Lexicon(_NOUNS)
        self._negations = Lexicon({"not": _NEGATIONS})

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the slots."""
        return tuple(slot.name for slot in self._slots)

    def __call__(self, text: str, facts: Mapping[str, str]) -> list[Statement]:
        """List the distinct statements of a completion's description that facts can decide.

        Args:
            text: a completion (see `answers.judged_text`).
            facts: slot -> value of the clip; without facts nothing can be decided.
        """
        if not facts:
            return []
        extra = tuple(
            Slot(name, {value: {value}})
            for name, value in facts.items()
            if name not in self._values
        )
        found: dict[tuple[str, str], Statement] = {}
        for clause in clauses(judged_text(text)):
            tokens = units(clause)
            if self._negations.find(tokens):
                continue
            for slot in self._slots + extra:
                for value in self._stated(slot, tokens):
                    if slot.required or slot.name in facts:
                        found[slot.name, value] = self._decide(slot, value, facts)
        return list(found.values())

    def _decide(self, slot: Slot, value: str, facts: Mapping[str, str]) -> Statement:
        fact = facts.get(slot.name)
        lexicon = self._values.get(slot.name)
        if fact is not None and lexicon is not None:
            fact = lexicon.word(slot.name, fact)
        return Statement(slot.name, value, value == fact, slot.about_people)

    def _stated(self, slot: Slot, tokens: list[str]) -> list[str]:
        lexicon = self._values.get(slot.name) or Lexicon({slot.name: slot.values})
        values = lexicon.find(tokens)
        if not slot.nouns:
            return [term.word for term in values]
        nouns = self._nouns.find(tokens)
        return [
            term.word for term in values if self._owner(slot, term, values, nouns) in slot.nouns
        ]

    def _owner(self, slot: Slot, value: Term, values: list[Term], nouns: list[Term]) -> str | None:
        """Return the kind of noun that a value belongs to; None in a clause without nouns."""
        after = [noun for noun in nouns if noun.start >= value.end]
        before = [noun for noun in nouns if noun.end <= value.start]
        # `red clothes`, `two red balls`: the value belongs to a noun directly after it.
        edge = value.end
        while any(other.start == edge for other in values):
            edge = next(other.end for other in values if other.start == edge)
        touching = [noun for noun in after if noun.start == edge]
        if touching:
            return touching[0].kind
        order = (after[:1], before[-1:]) if slot.looks_ahead else (before[-1:], after[:1])
        return next((nearest[0].kind for nearest in order if nearest), None)


def share_true(statements: Iterable[Statement]) -> float | None:
    """Share of statements that are true; None without any."""
    verdicts = [statement.true for statement in statements]
    return sum(verdicts) / len(verdicts) if verdicts else None


def grounding_f1(statements: Iterable[Statement], facts: Mapping[str, str]) -> float | None:
    """F1 of statements against facts: false statements and missing facts both cost.

    Returns:
        A value in [0, 1]; None without facts.
    """
    verdicts = [statement.true for statement in statements]
    known = len(facts)
    return 2 * sum(verdicts) / (len(verdicts) + known) if known else None
