"""The people_focus reward by keywords: how much a text is about people.

A clause earns a point for naming a person (or a face, a voice, ...) and a point for naming what
they do or feel, never more, so a list of keywords is worth no more than a sentence.  Clauses that
are mostly keywords, that pile up terms of one kind, or that tell no new behaviour earn nothing.
Words about the setting cost.  Counting words says nothing about truth: `grounding` does.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from omni_rl.rewards import chinese_words as chinese
from omni_rl.rewards.answers import judged_text
from omni_rl.rewards.lexicon import (
    Lexicon,
    Term,
    adjective_forms,
    clauses,
    entries,
    noun_forms,
    units,
    verb_forms,
)

PERSON, BEHAVIOUR, SETTING, NEUTRAL = "person", "behaviour", "setting", "neutral"

PEOPLE = """
person/people/persons man/men woman/women child/children boy girl baby adult teenager human figure
guy lady gentleman/gentlemen speaker listener host guest interviewer audience crowd friend colleague
stranger couple family father mother dad mom son daughter brother sister husband/husbands
wife/wives teacher student doctor nurse officer policeman/policemen driver worker waiter customer
actor actress character someone somebody everyone everybody
"""
BODY = """
face eye mouth lip eyebrow brow cheek head hand arm finger shoulder voice
"""
PRONOUNS = "he/him/his/himself she/her/hers/herself they/them/their/themselves"
ACTIONS = """
wave point bow nod clap shrug hug kiss walk run/ran jump dance turn lean kneel/knelt reach hold/held
give/gave/given shake/shook/shaken stand/stood sit/sat/sitting raise lower lift touch push pull
follow approach leave look watch stare glance gaze listen move gesture gesticulate
talk speak/spoke/spoken say/said tell/told/telling ask answer reply explain discuss argue chat shout
whisper yell scream sing/sang/sung laugh giggle cry smile grin frown gasp sigh sob weep/wept wink
blink blush pout scowl sneer count interact converse embrace greet comfort apologise apologize
complain hesitate pause tease joke encourage agree disagree
"""
FEELINGS = """
calm cheerful angry happy sad surprised afraid scared fearful nervous anxious worried upset annoyed
frustrated furious excited proud ashamed embarrassed confused puzzled bored tired disappointed
disgusted relaxed confident shy jealous amused delighted serious friendly sincere tense hesitant
thoughtful curious shocked relieved lonely grateful gentle hostile polite sarcastic
"""
NOUNS = """
expression gesture posture emotion feeling mood tone reaction interaction conversation anger joy
sadness fear surprise disgust happiness anxiety laughter tear
"""
PLACES = """
wall light lamp table room background window floor furniture chair sofa couch desk door ceiling
curtain carpet shelf/shelves bed scenery setting environment building sky tree street kitchen office
landscape decor decoration lighting wallpaper
"""


def people_lists() -> dict[str, dict[str, set[str]]]:
    """Return the English and Chinese word lists by kind."""
    return {
        PERSON: {
            **entries(PEOPLE, noun_forms),
            **entries(BODY, noun_forms),
            **entries(PRONOUNS),
            **entries(chinese.PEOPLE + chinese.BODY + chinese.PRONOUNS),
        },
        BEHAVIOUR: {
            **entries(ACTIONS, verb_forms),
            **entries(FEELINGS, adjective_forms),
            **entries(NOUNS, noun_forms),
            **entries(chinese.BEHAVIOUR),
        },
        SETTING: {**entries(PLACES, noun_forms), **entries(chinese.SETTING)},
        NEUTRAL: entries(chinese.NEUTRAL),
    }


# Pronouns name a person, but are too common in prose to count towards the density of a clause.
_PRONOUNS = frozenset(entries(PRONOUNS + " " + chinese.PRONOUNS))
_LEXICON = Lexicon(people_lists())


@dataclass(frozen=True)
class PeopleScore:
    """Points and score of a text.

    Attributes:
        points: sum over clauses, each 0, 1 or 2.
        setting: words about the setting.
        value: the score in [0, 1].
    """

    points: int
    setting: int
    value: float


@dataclass(frozen=True)
class PeopleWords:
    """The keyword score and its limits.

    Attributes:
        target: points that earn 1.0; three full clauses give 6.
        setting_cost: taken off for each word about the setting.
        max_density: share of a clause's words that may be keywords, pronouns left out.
        max_of_a_kind: terms of one kind that a clause may hold; a long one may hold one in three
            words.
    """

    target: int = 7
    setting_cost: float = 0.1
    max_density: float = 0.75
    max_of_a_kind: int = 2
    lexicon: Lexicon = field(default=_LEXICON, repr=False)

    def __post_init__(self) -> None:
        if self.target < 1:
            raise ValueError(f"people_focus target={self.target}: expected at least 1 point")

    def __call__(self, text: str) -> PeopleScore:
        """Score the description in a completion (see `answers.judged_text`)."""
        points = setting = 0
        told: set[str] = set()
        seen: set[frozenset[str]] = set()
        for clause in clauses(judged_text(text)):
            tokens = units(clause)
            terms = self.lexicon.find(tokens)
            setting += sum(term.kind == SETTING for term in terms)
            if self._is_stuffed(terms, len(tokens)):
                continue
            names = {term.word for term in terms if term.kind == PERSON}
            behaviours = {term.word for term in terms if term.kind == BEHAVIOUR}
            said = frozenset(names | behaviours)
            # A repetition, about the same or another person, earns nothing.
            if said in seen or (behaviours and behaviours <= told):
                continue
            seen.add(said)
            told |= behaviours
            points += bool(names) + bool(behaviours)
        value = min(1.0, points / self.target) - self.setting_cost * setting
        return PeopleScore(points, setting, min(1.0, max(0.0, value)))

    def _is_stuffed(self, terms: list[Term], num_units: int) -> bool:
        content = [
            term
            for term in terms
            if term.kind in (PERSON, BEHAVIOUR) and term.word not in _PRONOUNS
        ]
        covered = sum(term.end - term.start for term in content)
        kinds = Counter(term.kind for term in content)
        limit = max(self.max_of_a_kind, num_units // 3)
        return covered > self.max_density * num_units or max(kinds.values(), default=0) > limit
