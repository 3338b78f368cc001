"""Search for words of a list in English and Chinese text.

Text is split into clauses at punctuation, a clause into units: Latin words and single Chinese
characters, since Chinese has no word boundaries.  A dictionary form is stored under every inflected
form, as a tuple of units; the longest match wins.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

_CJK = "\u3400-\u4dbf\u4e00-\u9fff"
# A full stop between digits is part of a number.  The escapes are Chinese marks.
_CLAUSE_END = re.compile(
    r"(?<!\d)\.|\.(?!\d)|[,;:!?()\[\]\"|/\n]"
    "|[\u2013\u2014\u2026\u201c\u201d\u3001\u3002\uff01\uff08\uff09\uff0c\uff1a\uff1b\uff1f]"
)
_UNIT = re.compile(rf"[^\W_{_CJK}]+(?:\.\d+)?|[{_CJK}]")
_VOWELS = "aeiou"


def clauses(text: str) -> list[str]:
    """Split text into its non-blank clauses at English and Chinese punctuation."""
    return [part.strip() for part in _CLAUSE_END.split(text) if part.strip()]


def units(text: str) -> list[str]:
    """Split text into lower-case Latin words and single Chinese characters."""
    plain = text.casefold().replace("\u2019", "'").replace("n't", " not").replace("'s", "")
    return _UNIT.findall(plain)


def noun_forms(noun: str) -> set[str]:
    """List a noun and its regular plural."""
    if noun.endswith(("s", "x", "z", "ch", "sh")):
        return {noun, noun + "es"}
    if noun.endswith("y") and noun[-2:-1] not in _VOWELS:
        return {noun, noun[:-1] + "ies"}
    return {noun, noun + "s"}


def verb_forms(verb: str) -> set[str]:
    """List a verb with its regular -s, -ed and -ing forms."""
    forms = noun_forms(verb) | ({verb + "es"} if verb.endswith("o") else set())
    if verb.endswith("e"):
        stem = verb if verb.endswith("ee") else verb[:-1]
        return forms | {verb + "d", stem + "ing"}
    if verb.endswith("y") and verb[-2:-1] not in _VOWELS:
        return forms | {verb[:-1] + "ied", verb + "ing"}
    # nod, nodded; where the doubled form does not exist (look, open) it simply never occurs.
    stems = {verb}
    if verb[-1] not in _VOWELS + "wxy" and verb[-2:-1] in tuple(_VOWELS):
        stems.add(verb + verb[-1])
    return forms | {stem + ending for stem in stems for ending in ("ed", "ing")}


def adjective_forms(adjective: str) -> set[str]:
    """List an adjective and its adverb."""
    if adjective.endswith("le"):
        return {adjective, adjective[:-1] + "y"}
    if adjective.endswith("y"):
        return {adjective, adjective[:-1] + "ily"}
    return {adjective, adjective + "ly"}


def plain_forms(word: str) -> set[str]:
    """List a word without inflected forms."""
    return {word}


def entries(words: str, inflect: Callable[[str], set[str]] = plain_forms) -> dict[str, set[str]]:
    """Read a word list: `lemma/irregular/...`, separated by blanks.

    Args:
        words: the list; forms after a slash belong to the word before it.
        inflect: returns the regular forms of the first word of an entry.

    Returns:
        Dictionary form -> all of its forms.
    """
    table = {}
    for entry in words.split():
        lemma, *irregular = entry.split("/")
        table[lemma] = inflect(lemma) | set(irregular)
    return table


def merged(*tables: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Join word tables; a word in several has the forms of all."""
    joint: dict[str, set[str]] = {}
    for table in tables:
        for word, forms in table.items():
            joint[word] = joint.get(word, set()) | forms
    return joint


@dataclass(frozen=True)
class Term:
    """A word of the list found in a clause.

    Attributes:
        kind: the list it is on.
        word: its dictionary form.
        start: index of its first unit.
        end: index after its last unit.
    """

    kind: str
    word: str
    start: int
    end: int


class Lexicon:
    """Word lists by kind.

    Args:
        lists: kind -> dictionary form -> forms.  A form may stand on one list only.
    """

    def __init__(self, lists: Mapping[str, Mapping[str, Iterable[str]]]) -> None:
        self._found: dict[tuple[str, ...], tuple[str, str]] = {}
        for kind, words in lists.items():
            for word, forms in words.items():
                for form in forms:
                    key = tuple(units(form))
                    known = self._found.setdefault(key, (kind, word))
                    assert known == (kind, word), f"{form!r} is both {known} and {(kind, word)}"
        self._longest = max(map(len, self._found), default=0)

    def find(self, tokens: list[str]) -> list[Term]:
        """Find terms in the units of one clause, left to right, longest first, none overlapping."""
        terms, start = [], 0
        while start < len(tokens):
            for length in range(min(self._longest, len(tokens) - start), 0, -1):
                known = self._found.get(tuple(tokens[start : start + length]))
                if known:
                    terms.append(Term(*known, start, start + length))
                    start += length
                    break
            else:
                start += 1
        return terms

    def word(self, kind: str, form: str) -> str:
        """Return the dictionary form of a form of `kind`, or the form itself if unknown."""
        known = self._found.get(tuple(units(form)))
        return known[1] if known and known[0] == kind else form.strip().casefold()
