"""Reads English sentences: who does or feels what, clause by clause.

There is no parser here, only word lists, word order and agreement.  A clause is read where a person
is its subject and a predicate follows that agrees with it.  What is not read earns nothing, so that
each check below costs some honest prose and more word heaps.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise

from omni_rl.rewards import english_words as words
from omni_rl.rewards.english_tags import (
    ADVERB,
    AUXILIARY,
    BODY,
    CONNECTIVE,
    CONTENT,
    FEELING,
    FUNCTION,
    GENITIVE,
    LINK,
    NOUN,
    OTHER,
    PERSON,
    POSSESSIVE,
    PREPOSITION,
    PRONOUN,
    SUBJECTS,
    VERB,
    Token,
    has_tag,
    segments,
    split_words,
    tagged,
    verb_form,
)
from omni_rl.rewards.lexicon import entries, noun_forms

_DENIALS, _UNREAL = frozenset(words.DENIALS.split()), frozenset(words.UNREAL.split())
_DEPICTED, _VIEWS = frozenset(words.DEPICTED.split()), frozenset(words.VIEWS.split())
_ASKING, _INDIRECT = frozenset(words.ASKING.split()), frozenset(words.INDIRECT.split())
_WHOLE, _COLLECTIVES = frozenset(words.WHOLE.split()), frozenset(words.COLLECTIVES.split())
_SAYING, _VAGUE = frozenset(words.SAYING.split()), frozenset(words.VAGUE.split())
_PLACES = frozenset(form for forms in entries(words.PLACES, noun_forms).values() for form in forms)
_NUMBERS, _OBJECTS = frozenset(words.NUMBERS.split()), frozenset(words.OBJECT_PRONOUNS.split())
_THINGS = _DEPICTED | {
    form for forms in entries(words.ANIMALS, noun_forms).values() for form in forms
}
_PLURAL_PRONOUNS = {"they", "them", "their", "themselves"}
_UNNAMED = {"someone", "somebody", "people"}
_ARTICLES = {"a", "an", "the"}
_ON = {"on", "in", "of", "across", "from", "down", "over"}
# Tags in an order that no sentence has: heaps, two nouns or verbs without a word between them.
_IMPOSSIBLE = re.compile("[PYXFVN]{6}|V[VP]V|PP|PY|OP|OO|OY|YO|VVV|XXXXX|[IH]A|HC")


@dataclass(frozen=True)
class Told:
    """What a clause tells.

    Attributes:
        persons: nouns for people in it.
        behaviours: what the subject does or feels.
        details: other words of content.
        shape: the clause without its words of content.
        pattern: the same with all of its words of grammar.
        vague: whether the behaviours are too general to tell anything.
        link: whether it tells how somebody looks or sounds.
        setting: words about the setting.
        pronoun: whether its subject is a pronoun.
    """

    persons: frozenset[str] = frozenset()
    behaviours: frozenset[str] = frozenset()
    details: frozenset[str] = frozenset()
    shape: str = ""
    pattern: str = ""
    vague: bool = False
    link: bool = False
    setting: int = 0
    pronoun: bool = False


def read_sentence(parts: Iterable[str]) -> list[Told]:
    """Read the clauses of one sentence, which commas and the like have cut.

    A clause without a subject has that of the clause before.
    """
    told, carried, thing = [], False, False
    pieces = [split_words(part) for part in parts]
    flat = [word for piece in pieces for word in piece]
    unreal = bool(_UNREAL & set(flat)) or (bool(flat) and flat[0] in _ASKING)
    for piece in pieces:
        denied = unreal or bool(_DENIALS & set(piece)) or bool(_INDIRECT & set(piece[:1]))
        tokens = tagged(piece)
        # The voice and face of an animal or a thing, until a person is named.
        thing = not has_tag(tokens, "PO") and (thing or bool(_THINGS & set(piece)))
        denied = denied or thing
        for segment in segments(tokens):
            found, carried = read_segment(segment, carried and not denied)
            told.append(replace(found, behaviours=frozenset()) if denied else found)
        carried = carried and not denied
    return told


def read_segment(tokens: list[Token], carried: bool) -> tuple[Told, bool]:
    """Read one clause.

    Args:
        tokens: its words.
        carried: whether the clause before has a person as its subject.

    Returns:
        What it tells, and whether its subject is a person.
    """
    setting = sum(token.word in _PLACES for token in tokens)
    nothing = Told(setting=setting)
    while tokens and tokens[0].tag in (CONNECTIVE, ADVERB):
        tokens = tokens[1:]
    if not tokens or not is_ordered(tokens):
        return nothing, False
    lacking = _lacks_subject(tokens)
    subject = None if lacking and carried else _subject(tokens)
    if subject is None:
        if not (carried and lacking):
            own = _owned(tokens)
            return (_told(tokens, own, None, setting), False) if own else (nothing, False)
        start, plural = -1, None
    else:
        start, plural = subject, _is_plural(tokens, subject)
    linked = _predicates(tokens, start, plural) | _owned(tokens)
    if not linked:
        person = subject is not None and tokens[subject].tag == PERSON
        named = person and not _is_generic(tokens, start, plural)
        return replace(nothing, persons=_persons(tokens) if named else frozenset()), named
    return _told(tokens, linked, subject, setting), True


def is_ordered(tokens: list[Token]) -> bool:
    """Whether the order of words is possible in a sentence."""
    tags = "".join(token.tag for token in tokens)
    if _IMPOSSIBLE.search(tags):
        return False
    for token, after in zip(tokens, [*tags[1:], ""], strict=True):
        if token.word in _ARTICLES and (not after or after in FUNCTION):
            return False
    for token, next_one in pairwise(tokens):
        if token.tag == AUXILIARY and next_one.tag == VERB and verb_form(next_one) == "third":
            return False
    return sum(tag in FUNCTION for tag in tags) >= len(tags) // 4


def _subject(tokens: list[Token]) -> int | None:
    """Index of the first person that is a subject; None without one."""
    for index, token in enumerate(tokens):
        modifies = has_tag(tokens[index + 1 : index + 2], GENITIVE)
        object_form = token.word in _OBJECTS and not (index and tokens[index - 1].word == "of")
        if token.tag not in SUBJECTS or object_form or modifies:
            continue
        start = _phrase_start(tokens, index)
        if start and tokens[start - 1].tag == PREPOSITION:
            seen = start > 1 and (tokens[start - 2].word in _VIEWS or tokens[start - 2].tag == BODY)
            if tokens[start - 1].word == "of" and seen:
                return index
            continue
        if not _is_person(tokens, start, index):
            return None
        if _is_object(tokens, start):
            # `The video shows ...` apart, an object can still be seen to do something.
            later = tokens[index + 1 : index + 4]
            doing = any(one.tag == VERB and one.word.endswith("ing") for one in later)
            return index if doing else None
        return index
    return None


def _phrase_start(tokens: list[Token], index: int) -> int:
    """Index of the first word of the phrase that a noun ends."""
    start = index
    while start and tokens[start - 1].tag in "DHGFXP":
        start -= 1
        if tokens[start].tag in "DH" and (not start or tokens[start - 1].tag != "D"):
            break
    return start


def _is_person(tokens: list[Token], start: int, index: int) -> bool:
    """Whether the phrase from `start` to the noun at `index` names a person of the clip."""
    token, phrase = tokens[index], tokens[start:index]
    if any(one.word in _DEPICTED for one in phrase):
        return False
    if any(one.tag == GENITIVE and not _person_before(tokens, one) for one in phrase):
        return False
    if token.tag == BODY:
        foreign = any(one.word in {"its", "my", "your"} for one in phrase)
        if foreign or _belongs_to_a_thing(tokens, index):
            return False
    singular = token.tag != PRONOUN and token.word == token.lemma
    return not singular or has_tag(phrase, "DHG") or token.lemma in _UNNAMED


def _person_before(tokens: list[Token], genitive: Token) -> bool:
    index = tokens.index(genitive)
    return bool(index) and tokens[index - 1].tag in SUBJECTS


def _belongs_to_a_thing(tokens: list[Token], index: int) -> bool:
    """`the hands of the clock`: a part that is no person's."""
    after = tokens[index + 1 : index + 5]
    return bool(after) and after[0].word == "of" and not has_tag(after, "PO")


def _is_object(tokens: list[Token], start: int) -> bool:
    """Whether another noun than a person's, or than a view of one, comes first."""
    cut = max((i + 1 for i, one in enumerate(tokens[:start]) if one.tag == CONNECTIVE), default=0)
    before = tokens[cut:start]
    if not before or before[0].tag == PREPOSITION:
        return False
    nouns = [one for one in before if one.tag in {OTHER, NOUN} and not one.word.endswith("ly")]
    return bool(nouns) and not any(one.word in _VIEWS | {"see", "there"} for one in before)


def _is_plural(tokens: list[Token], index: int) -> bool | None:
    """Whether the subject is plural; None if both are possible."""
    token, before = tokens[index], tokens[:index]
    if token.lemma in _COLLECTIVES or any(one.word in _VIEWS - _NUMBERS for one in before):
        return None
    if token.word in _PLURAL_PRONOUNS or any(one.word in _NUMBERS for one in before):
        return True
    if any(one.word == "and" for one in tokens):
        return None
    return token.word != token.lemma if token.tag != PRONOUN else False


def _lacks_subject(tokens: list[Token]) -> bool:
    first = next((one for one in tokens if one.tag != ADVERB and not one.word.endswith("ly")), None)
    if first is None:
        return False
    if first.tag == OTHER:
        return len(first.word) > 4 and first.word.endswith(("ing", "ed"))
    return first.tag in "VAL" or first.word in {"with", "to"}


def _predicates(tokens: list[Token], subject: int, plural: bool | None) -> frozenset[str]:
    """Dictionary forms of the behaviours that the subject is said to show."""
    found: set[str] = set()
    generic = _is_generic(tokens, subject, plural)
    body = subject >= 0 and tokens[subject].tag == BODY
    finite = linked = False
    for index in range(subject + 1, len(tokens)):
        token, before = tokens[index], tokens[index - 1] if index else None
        linked = linked or token.tag in {AUXILIARY, LINK}
        if token.tag == VERB and not (body and token.lemma in _WHOLE):
            form = verb_form(token)
            if form == "ing" or (form == "past" and linked):
                found.add(token.lemma)
                continue
            wrong = (generic and form == "base") or (finite and form == "third")
            if wrong or not _agrees(form, plural, before) or _is_other_verb(tokens, index, subject):
                continue
            found.add(token.lemma)
            finite = token.lemma not in _SAYING
        elif (token.tag == FEELING and (linked or token.word.endswith("ly"))) or (
            token.tag == NOUN and before is not None and index > subject + 1
        ):
            found.add(token.lemma)
    return frozenset(found)


def _is_generic(tokens: list[Token], subject: int, plural: bool | None) -> bool:
    """Whether the subject is no one in particular, as in `men wave`."""
    if subject < 0 or plural is not True or tokens[subject].tag != PERSON:
        return False
    return not has_tag(tokens[:subject], "DHG")


def _agrees(form: str, plural: bool | None, before: Token | None) -> bool:
    if form == "past":
        return True
    if form == "base":
        return plural is not False or (before is not None and before.word == "to")
    return plural is not True


def _is_other_verb(tokens: list[Token], index: int, subject: int) -> bool:
    """Whether an unknown word directly before takes the verb: `the baby seal claps`."""
    before = tokens[index - 1] if index else None
    if before is None or before.tag != OTHER or before.word.endswith("ly"):
        return False
    return not any(one.tag in {PREPOSITION, CONNECTIVE} for one in tokens[subject + 1 : index])


def _owned(tokens: list[Token]) -> frozenset[str]:
    """Behaviours named by a noun that is a person's: `her tone`, `a smile on his face`."""
    found = set()
    said = has_tag(tokens, "VAL") or tokens[0].word == "with"
    for index, token in enumerate(tokens):
        if token.tag != NOUN:
            continue
        before = tokens[index - 1] if index else None
        mine = before is not None and (
            before.tag == POSSESSIVE or (before.tag == GENITIVE and _person_before(tokens, before))
        )
        after = tokens[index + 1 :]
        places = [i for i, one in enumerate(after[:4]) if one.word in _ON]
        after = after[places[0] + 1 : places[0] + 5] if places else []
        if mine and has_tag(tokens[index + 1 :], "FLA"):
            found |= {token.lemma} | {t.lemma for t in tokens[index:] if t.tag == FEELING}
        elif said and has_tag(after, "PYO") and has_tag(after, "DHG"):
            found.add(token.lemma)
    return frozenset(found)


def _told(
    tokens: list[Token], behaviours: frozenset[str], subject: int | None, setting: int
) -> Told:
    # Whether an object is a person or a thing makes no other shape.
    shape = "".join(
        "P" if token.tag == PRONOUN else token.tag
        for token in tokens
        if token.tag in "PYOVFNLI" and not (token.tag == FEELING and token.word.endswith("ly"))
    )
    return Told(
        persons=_persons(tokens),
        behaviours=behaviours,
        details=frozenset(
            token.lemma
            for index, token in enumerate(tokens)
            if (token.tag == OTHER and len(token.word) > 2)
            or token.tag == PREPOSITION
            or (token.tag in {PERSON, BODY} and index != subject)
        ),
        shape=re.sub(r"I[PY]*", "I", re.sub(r"V[PY]+", "VP", re.sub(r"(.)\1+", r"\1", shape))),
        pattern=" ".join(one.tag if one.tag in CONTENT else one.word for one in tokens),
        vague=behaviours <= _VAGUE,
        link=has_tag(tokens, LINK),
        setting=setting,
        pronoun=subject is not None and tokens[subject].tag == PRONOUN,
    )


def _persons(tokens: list[Token]) -> frozenset[str]:
    return frozenset(token.lemma for token in tokens if token.tag == PERSON)
