"""Reads Chinese sentences: who does or feels what, clause by clause (see `people_english`).

Chinese has no inflection and drops subjects, so that less can be checked than in English: the order
of person and behaviour, what stands between them, and things that act like people.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from omni_rl.rewards import chinese_words as words
from omni_rl.rewards.lexicon import Lexicon, Term, entries, units
from omni_rl.rewards.people_english import Told

_KINDS = {
    "P": words.PEOPLE,
    "Y": words.BODY,
    "O": words.PRONOUNS,
    "V": words.ACTIONS,
    "F": words.FEELINGS,
    "N": words.NOUNS,
    "S": words.SETTING,
    "Z": words.NEUTRAL,
    "T": words.THINGS,
    "U": words.UNREAL,
    "M": words.DENIALS,
    "D": words.MEASURES,
    "G": words.GRAMMAR,
}
_LEXICON = Lexicon({kind: entries(listed) for kind, listed in _KINDS.items()})
_WHOLE, _MARKS = frozenset(words.WHOLE.split()), frozenset(words.OBJECT_MARKS.split())
_VAGUE = frozenset(words.VAGUE.split())
_LINKS = frozenset(words.LINKS.split())
_NEVER_LAST = frozenset(words.NEVER_LAST.split())
_PARTICLES = {"的", "地", "得", "着", "了", "过"}
# Words of grammar by what may stand beside them, and tags in an order that no sentence has.
_ORDER = {
    **dict.fromkeys(_MARKS, "m"),
    **dict.fromkeys(words.DEGREES.split(), "q"),
    **dict.fromkeys(_PARTICLES, "t"),
    "的": "d",
}
_IMPOSSIBLE = re.compile(
    "m(?![POYXNDZTSF])|Y[PO]|[VF][FV][PO][VF]|D(?![PYXNFTZSV])|d[VGm]|q(?![FXV])|[POYNSDdmt]t"
)
_SHAPE = {"O": "P", "N": "Y"}
_SHORT = 8  # a longer clause has more than persons and behaviours


def read_sentence(parts: Iterable[str]) -> list[Told]:
    """Read the clauses of one sentence, which commas and the like have cut."""
    told, carried, thing = [], False, False
    pieces = [terms_of(part) for part in parts]
    unreal = any(term.kind == "U" for piece in pieces for term in piece)
    for piece in pieces:
        denied = unreal or any(term.kind == "M" for term in piece)
        found, carried = _read_clause(piece, carried)
        kinds = {term.kind for term in piece}
        thing = "T" in kinds or (thing and not kinds & {"P", "O"})
        denied = denied or thing  # also of a thing's voice and face
        told.append(Told(setting=found.setting) if denied else found)
        carried = carried and not denied
    return told


def terms_of(text: str) -> list[Term]:
    """Return the words of a clause; runs of characters that are on no list have the kind X."""
    tokens = units(text)
    found, end = [], 0
    for term in [*_LEXICON.find(tokens), Term("", "", len(tokens), len(tokens))]:
        if term.start > end:
            found.append(Term("X", "".join(tokens[end : term.start]), end, term.start))
        if term.kind:
            found.append(term)
        end = term.end
    return found


def _read_clause(terms: list[Term], carried: bool) -> tuple[Told, bool]:
    setting = sum(term.kind == "S" for term in terms)
    nothing = Told(setting=setting)
    if not terms or not _is_ordered(terms):
        return nothing, False
    subject = _subject(terms)
    if subject is None:
        first = next((term.kind for term in terms if term.kind != "G"), "")
        marked = next((term.word in _MARKS | _LINKS for term in terms if term.kind == "G"), False)
        if not carried or (first not in {"V", "F", "N"} and not marked):
            return nothing, False
    behaviours = _predicates(terms, -1 if subject is None else subject)
    persons = frozenset(term.word for term in terms if term.kind == "P")
    if not behaviours:
        return Told(persons=persons, setting=setting), True
    shape = "".join(
        term.word if term.word in _MARKS | _LINKS else _SHAPE.get(term.kind, term.kind)
        for term in terms
        if term.kind in "PYOVFN" or term.word in _MARKS | _LINKS
    )
    told = Told(
        persons=persons,
        behaviours=behaviours,
        details=frozenset(
            term.word
            for index, term in enumerate(terms)
            if index != subject
            and (term.kind in "XPY" or (term.kind == "G" and len(term.word) > 1))
        ),
        shape=re.sub(r"(.)\1+", r"\1", shape),
        pattern=" ".join(
            term.word if term.kind == "G" else term.kind for term in terms if term.kind != "D"
        ),
        vague=behaviours <= _VAGUE,
        link=any(term.word in _LINKS for term in terms),
        setting=setting,
        pronoun=subject is not None and terms[subject].kind == "O",
    )
    return told, True


def _is_ordered(terms: list[Term]) -> bool:
    """Whether the order of words is possible in a sentence."""
    kinds = "".join(term.kind for term in terms)
    if terms[0].word in _PARTICLES or kinds.endswith("D"):
        return False
    marked = "".join(_ORDER.get(term.word, term.kind) for term in terms)
    if _IMPOSSIBLE.search(marked):
        return False
    if terms[-1].word in _NEVER_LAST:
        return False
    if re.search(r"PP|YY|DD|VVV|FFF|NNN|(?:[PO][VF]){2}|(?:[VF]P){2}", kinds):
        return False
    covered = sum(term.end - term.start for term in terms if term.kind in "PYVFN")
    total = terms[-1].end
    return total <= _SHORT or covered < total


def _subject(terms: list[Term]) -> int | None:
    """Index of the first person that is a subject; None without one."""
    for index, term in enumerate(terms):
        if term.kind == "T":
            return None
        if term.kind not in {"P", "O", "Y"}:
            continue
        before = [one for one in terms[:index] if one.kind != "D"]
        after = terms[index + 1 : index + 3]
        if before and before[-1].word in _MARKS:
            continue
        if any(one.kind in "VF" for one in before) and before[-1].word != "的":
            return None  # the object of something else's action
        if len(after) == 2 and after[0].word == "的" and after[1].kind in {"X", "T", "S", "Z"}:
            continue  # `the man's dog`
        return index
    return None


def _predicates(terms: list[Term], subject: int) -> frozenset[str]:
    body = subject >= 0 and terms[subject].kind == "Y"
    found = set()
    for index in range(subject + 1, len(terms)):
        term = terms[index]
        after = terms[index + 1] if index + 1 < len(terms) else None
        if after is not None and after.word == "的" and index + 2 < len(terms):
            continue  # belongs to the noun that follows
        if term.kind in {"V", "F", "N"} and not (body and term.word in _WHOLE):
            found.add(term.word)
    return frozenset(found)
