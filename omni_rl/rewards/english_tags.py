"""Tags the words of English sentences from word lists, their endings and their neighbours."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from omni_rl.rewards import english_words as words
from omni_rl.rewards.lexicon import adjective_forms, entries, noun_forms, verb_forms

# Tags.  OTHER is any word that is on no list.
PERSON, BODY, PRONOUN, VERB, FEELING, NOUN = "P", "Y", "O", "V", "F", "N"
DET, POSSESSIVE, GENITIVE, PREPOSITION, AUXILIARY, LINK = "D", "H", "G", "I", "A", "L"
CONNECTIVE, ADVERB, OTHER = "C", "R", "X"
SUBJECTS, CONTENT, NOMINAL = {PERSON, BODY, PRONOUN}, set("PYVFNX"), set("DHGFX")
FUNCTION = set("DHGIALCRO")

_WORD = re.compile(r"[^\W_]+(?:-[^\W_]+)*|'s\b")
_INTENDED = re.compile(r"\b(?:going|about|supposed|meant|ought|used|able|ready) to\b")
_DEFINED = re.compile(
    r"(?<!there )\b(?:is|are) (?:someone|somebody|anyone|a person|people) (?:who|that)\b"
)
_SEEN = re.compile(r"\b(?:can|could) (?:be|clearly be) (seen|heard)\b")
_NAMED = frozenset(words.PRONOUNS.replace("/", " ").split())
_NO_VERBS = frozenset(words.NO_VERBS.split())
_DEGREES = frozenset(words.DEGREES.split())
_OWN = {"his", "her", "their"}


def _table() -> dict[str, dict[str, str]]:
    lists = (
        (DET, entries(words.DETERMINERS)),
        (PREPOSITION, entries(words.PREPOSITIONS)),
        (AUXILIARY, entries(words.AUXILIARIES)),
        (CONNECTIVE, entries(words.CONNECTIVES)),
        (ADVERB, entries(words.ADVERBS)),
        (LINK, entries(words.LINKS, verb_forms)),
        (PERSON, entries(words.PEOPLE, noun_forms)),
        (BODY, entries(words.BODY, noun_forms)),
        (VERB, entries(words.ACTIONS, verb_forms)),
        (FEELING, entries(words.FEELINGS, adjective_forms)),
        (NOUN, entries(words.NOUNS, noun_forms)),
    )
    table: dict[str, dict[str, str]] = {}
    for tag, listed in lists:
        for lemma, forms in listed.items():
            for form in forms:
                table.setdefault(form, {}).setdefault(tag, lemma)
    return table


_TABLE = _table()


class Token(NamedTuple):
    """A word with its tag and dictionary form."""

    word: str
    tag: str
    lemma: str


def split_words(text: str) -> list[str]:
    """Split a clause into lower-case words, `'s` apart and hyphens dropped."""
    plain = text.casefold().replace("\u2019", "'").replace("n't", " not")
    plain = _INTENDED.sub("will", _SEEN.sub(r"is \1", _DEFINED.sub("means", plain)))
    return [word.replace("-", "") for word in _WORD.findall(plain)]


def tagged(piece: list[str]) -> list[Token]:
    """Tag the words of a clause from left to right."""
    tokens: list[Token] = []
    for index, word in enumerate(piece):
        before = tokens[-1].tag if tokens else ""
        after = piece[index + 1] if index + 1 < len(piece) else ""
        tag = _tag(word, before, after, tokens)
        if tag == OTHER and _is_new_verb(word, before, after):
            tag = VERB
        tokens.append(Token(word, tag, _TABLE.get(word, {}).get(tag, word)))
    return tokens


def terms(clause: str) -> set[str]:
    """Dictionary forms of the words of a clause."""
    return {token.lemma for token in tagged(split_words(clause))}


def _is_new_verb(word: str, before: str, after: str) -> bool:
    """Whether a word on no list has the place and the ending of a verb after a person."""
    if len(word) < 5 or word in _NO_VERBS:
        return False
    follows = set(_TABLE.get(after, {})) | ({"H"} if after in _NAMED else set())
    if word.endswith("ing"):
        return before in {*SUBJECTS, AUXILIARY, ADVERB, LINK, CONNECTIVE, ""}
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return before in {PERSON, PRONOUN, ADVERB} and bool(follows & set("DHIR"))
    return word.endswith("ed") and before in {*SUBJECTS, AUXILIARY} and bool(follows & set("DHI"))


def _tag(word: str, before: str, after: str, tokens: list[Token]) -> str:
    known = _TABLE.get(word, {})
    follows = set(_TABLE.get(after, {}))
    if word == "'s":
        is_verb = after.endswith("ing") or bool(follows & {FEELING, DET, ADVERB, PREPOSITION})
        bare = bool(tokens) and tokens[-1].word in {"he", "she", "it", "there", "who", "that"}
        return AUXILIARY if is_verb or bare else GENITIVE
    if word in _OWN and after and not follows & set("DIACLR"):
        return POSSESSIVE
    if word in _NAMED:
        return PRONOUN
    if word == "that" and before in ("", PREPOSITION):
        return DET
    noun_place = before in NOMINAL or (before == PREPOSITION and VERB not in known)
    if PERSON in known and VERB in known and not noun_place:
        return VERB
    if BODY in known and before in SUBJECTS:
        return OTHER  # `he faces the camera`
    if word == "hands" and before == CONNECTIVE and (follows & {DET} or after in _NAMED):
        return VERB
    if LINK in known and VERB in known:
        return LINK if FEELING in follows or after in _DEGREES or after.endswith("ly") else VERB
    if FEELING in known and PERSON in known:
        return PERSON if before == DET and not follows & {PERSON, BODY, NOUN} else FEELING
    if VERB in known and not word.endswith(("ing", "ed")) and before in {"D", "H", "G", "F"}:
        return NOUN if NOUN in known else FEELING if FEELING in known else OTHER
    if VERB in known and NOUN in known:
        placed = before == PREPOSITION or (before == OTHER and has_tag(tokens[-3:], "DHI"))
        placed = placed and not (has_tag(tokens, "PYO") and not has_tag(tokens, "VAL"))
        return NOUN if placed and not word.endswith(("ing", "ed")) else VERB
    return next(iter(known), OTHER)


def segments(tokens: list[Token]) -> list[list[Token]]:
    """Cut a clause at connectives that stand between two predicates."""
    parts: list[list[Token]] = [[]]
    for index, token in enumerate(tokens):
        rest = tokens[index + 1 :]
        if token.tag == CONNECTIVE and has_tag(parts[-1], "VFN") and has_tag(rest, "VLA"):
            parts.append([])
            continue
        parts[-1].append(token)
    return [part for part in parts if part]


def has_tag(tokens: Iterable[Token], tags: str) -> bool:
    """Whether one of the tokens has one of the tags."""
    return any(token.tag in tags for token in tokens)


def verb_form(token: Token) -> str:
    """Return the form of a verb: base, third (`waves`), ing or past."""
    if token.word == token.lemma and token.word in _TABLE:  # of an unknown verb the ending tells
        return "base"
    if token.word.endswith("ing"):
        return "ing"
    return "third" if token.word.endswith("s") else "past"
