"""The people_focus reward by rule: how much a text is about people.

A clause counts if a person is its subject and it tells what they do or feel (`people_english`,
`people_chinese`).  It earns two points if it has a detail of its own and a shape that no clause
before had, and else one point, of which a text can earn as many as it has clauses of the first
sort.  So lists and templates earn little however long they are.  Questions, what is denied or
supposed, markup and what is copied from the question earn nothing.  A rule over words can not see
the clip: `grounding` compares with its facts where they are known.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from omni_rl.rewards import (
    chinese_words,
    english_tags,
    english_words,
    people_chinese,
    people_english,
)
from omni_rl.rewards.answers import judged_text
from omni_rl.rewards.lexicon import clauses, units
from omni_rl.rewards.people_english import Told

LABEL = 3  # words of an option that only names something, as `A. calm`
GRAMMAR = frozenset(english_words.PREPOSITIONS.split()) | frozenset(chinese_words.LINKS.split())
HALF = 4.7  # points that earn .5: 3 points then earn less than .3

_SENTENCE = re.compile(r"(?:[^.!?;\n\u3002\uff01\uff1f\uff1b]|(?<=\d)\.(?=\d))+[!?\uff1f]*")
_MARKUP = re.compile(r"<(\w+)[^<>]*>.*?</\1\s*>|<[^<>]*>|\{.*?\}|`[^`]*`", re.DOTALL)
_CJK = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")


@dataclass(frozen=True)
class PeopleScore:
    """Points and score of a text.

    Attributes:
        points: sum over clauses, each 0, 1 or 2.
        setting: clauses that tell of the setting and of nobody.
        value: the score in [0, 1].
    """

    points: int
    setting: int
    value: float


@dataclass
class _Tally:
    """What a text has told so far."""

    named: bool = False
    strange: bool = False
    full: int = 0
    thin: int = 0
    behaviours: set[str] = field(default_factory=set)
    details: set[str] = field(default_factory=set)
    shapes: set[str] = field(default_factory=set)
    patterns: list[str] = field(default_factory=list)
    persons: set[str] = field(default_factory=set)

    def mention(self, told: Told) -> None:
        """Note whom or what a clause names that earns nothing: a pronoun may mean it."""
        self.named |= bool(told.persons)
        self.strange |= not told.persons

    def add(self, told: Told, max_persons: int) -> None:
        if told.pronoun and self.strange and not self.named:
            return
        self.named |= bool(told.persons)
        new = told.behaviours - self.behaviours
        if not new or len(self.persons | told.persons) > max_persons + self.full // 2:
            return
        detail = bool(told.details - self.details) or told.link or len(new) > 1
        if detail and not told.vague and told.shape not in self.shapes:
            self.full += 1
        else:
            self.thin += 1
        self.behaviours |= new
        self.details |= told.details
        self.shapes.add(told.shape)
        self.patterns.append(told.pattern)
        self.persons |= told.persons

    @property
    def points(self) -> int:
        points = 2 * self.full + min(self.thin, max(self.full, 2 - self.full))
        echoes = len(self.patterns) - len(set(self.patterns))
        return min(points, 3) if echoes > 2 and 2 * echoes >= len(self.patterns) else points


@dataclass(frozen=True)
class PeopleWords:
    """The score by rule and its limits.

    Attributes:
        half: points that earn .5.  p points earn p^2 / (p^2 + half^2): 3 points .29, 6 points .62,
            12 points .87.
        setting_cost: taken off for each clause about the setting alone.
        max_persons: different nouns for persons before a clause with another one earns nothing; one
            more for every two full clauses.
    """

    half: float = HALF
    setting_cost: float = 0.1
    max_persons: int = 4

    def __post_init__(self) -> None:
        if not self.half > 0:
            raise ValueError(f"people_focus half={self.half}: expected points above 0")

    def __call__(self, text: str, asked: Iterable[str] = ()) -> PeopleScore:
        """Score the description in a completion (see `answers.judged_text`).

        Args:
            text: the completion.
            asked: the question and its options; clauses copied from them, or made of nothing but
                their words, earn nothing.
        """
        tally, setting = _Tally(), 0
        asked = list(asked)
        copied = {gram for one in asked for gram in _trigrams(one)}
        known = {term for one in asked if len(units(one)) > LABEL for term in _terms(one)}
        for told in _read(_MARKUP.sub("\n", judged_text(text)), copied):
            content = (told.behaviours | told.details) - GRAMMAR
            if known and told.behaviours and content <= known:
                tally.named |= bool(told.persons)
            elif told.behaviours:
                tally.add(told, self.max_persons)
            else:
                setting += told.setting > 0 and not told.persons
                tally.mention(told)
        points = tally.points
        value = points**2 / (points**2 + self.half**2) - self.setting_cost * setting
        return PeopleScore(points, setting, max(0.0, value))


def _read(text: str, copied: set[tuple[str, ...]]) -> Iterator[Told]:
    for found in _SENTENCE.finditer(text):
        sentence = found.group()
        if sentence.endswith(("?", "\uff1f")):
            continue
        parts = [part for part in clauses(sentence) if not _is_copied(part, copied)]
        chinese = 2 * len(_CJK.findall(sentence)) > len(units(sentence))
        reader = people_chinese if chinese else people_english
        yield from reader.read_sentence(parts)


def _terms(text: str) -> set[str]:
    """Dictionary forms of the words of a text in either language."""
    found: set[str] = set()
    for clause in clauses(text):
        found |= english_tags.terms(clause)
        found |= {term.word for term in people_chinese.terms_of(clause)}
    return found


def _trigrams(text: str) -> list[tuple[str, ...]]:
    tokens = units(text)
    return [tuple(tokens[i : i + 3]) for i in range(len(tokens) - 2)]


def _is_copied(clause: str, copied: set[tuple[str, ...]]) -> bool:
    """Whether most of a clause of four words or more stands in the question."""
    grams = _trigrams(clause)
    return len(grams) > 1 and 2 * sum(gram in copied for gram in grams) > len(grams)
