"""Rewards of Stage 4 by rule; `omni_rl.rewards.judged` has those that ask a model.

Each is a `core_rl.types.Reward`.  `score` judges one text and is what evaluation uses.
"""

from __future__ import annotations

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from core_rl.config import RewardConfig
from core_rl.types import Actions
from omni_rl.data.record import Record
from omni_rl.rewards.answers import INSTRUCTION, TAGS, score_answer, tag_parts
from omni_rl.rewards.grounding import Grounder, grounding_f1, share_true
from omni_rl.rewards.lexicon import units
from omni_rl.rewards.people import HALF, PeopleWords

log = logging.getLogger(__name__)

Values = list[list[float | None]]

# A body may hold `<`, as in `x < 3`, but none of the tags: each then occurs exactly once.
_BODY = rf"(?:(?!</?(?:{'|'.join(TAGS)})>).)*"
_STRICT = re.compile(r"\s*".join(rf"<{tag}>(?!\s*</){_BODY}</{tag}>" for tag in TAGS), re.DOTALL)
_LENIENT = re.compile(r"\s*".join(rf"<{tag}>.*?</{tag}>" for tag in TAGS), re.DOTALL)


class Rule(ABC):
    """A reward that judges every completion by itself."""

    @abstractmethod
    def score(self, record: Record, text: str) -> float | None:
        """Judge one text for one record; None where it cannot be judged."""

    def __call__(self, queries: Sequence[Record], actions: Actions) -> Values:
        """Return `values[b][g]` for B records and their G decoded candidates."""
        assert len(actions.texts) == len(queries), "one row of texts a query"
        return [
            [self.score(record, text) for text in texts]
            for record, texts in zip(queries, actions.texts, strict=True)
        ]


@dataclass(frozen=True)
class Format(Rule):
    """1 if a completion is `<context>..</context><think>..</think><answer>..</answer>`, else 0.

    Attributes:
        strict: the whole completion must match, with each tag once and no blank body.  The lenient
            form is HumanOmniV2's: only the start must match.
    """

    strict: bool = True

    def score(self, record: Record, text: str) -> float | None:
        """Judge one text; None for an instruction, which asks for other words."""
        if record.problem_type == INSTRUCTION:
            return None
        if self.strict:
            return float(_STRICT.fullmatch(text.strip()) is not None)
        return float(_LENIENT.match(text) is not None)


@dataclass(frozen=True)
class Accuracy(Rule):
    """Score of the answer, by the record's problem type (see `answers`).

    Attributes:
        free_form: judge free-form answers by token F1, which knows no paraphrase; False returns
            None for them.  `omni_rl.rewards.judged.JudgedAccuracy` asks a model instead.
    """

    free_form: bool = True

    def score(self, record: Record, text: str) -> float | None:
        """Judge one text; None without a truth."""
        if record.problem_type == "free-form" and not self.free_form:
            return None
        return score_answer(record, text)


@dataclass(frozen=True)
class PeopleFocus(Rule):
    """How much the context is about people, by rule, in [0, 1] (see `people`).

    Attributes:
        half: points that earn .5.
    """

    half: float = HALF
    words: PeopleWords = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "words", PeopleWords(half=self.half))

    def score(self, record: Record, text: str) -> float | None:
        """Judge one text; None for an instruction, which asks for other words."""
        if record.problem_type == INSTRUCTION:
            return None
        return self.words(text, asked=(record.problem, *record.options)).value


@dataclass(frozen=True)
class Grounding(Rule):
    """Truth of the context about the clip (see `grounding`).

    None without facts (real data has none).

    Attributes:
        recall: False: share of decidable statements that are true, None without any.  True: their
            F1 against the facts, 0 without any.
    """

    recall: bool = False
    grounder: Grounder = field(default_factory=Grounder, repr=False)

    def score(self, record: Record, text: str) -> float | None:
        """Judge one text, in [0, 1]."""
        statements = self.grounder(text, record.facts)
        return grounding_f1(statements, record.facts) if self.recall else share_true(statements)


def judgeable(config: RewardConfig, records: Iterable[Record]) -> RewardConfig:
    """Leave out `Grounding` where no record has facts, as in real data: it could judge nothing."""
    known = any(record.facts for record in records)
    idle = {name for name, one in config.functions.items() if _is_grounding(one)}
    if known or not idle or idle == set(config.functions):
        return config
    log.info("reward %s is left out: no record has facts to judge by", ", ".join(sorted(idle)))
    parts = ("functions", "weights", "spans", "ranges")
    kept: dict[str, Any] = {
        part: {name: value for name, value in getattr(config, part).items() if name not in idle}
        for part in parts
    }
    return replace(config, **kept)


def _is_grounding(function: object) -> bool:
    """Whether a function, or the `_target_` that makes it, is `Grounding`."""
    if isinstance(function, Mapping):
        return function.get("_target_") == f"{Grounding.__module__}.{Grounding.__name__}"
    return isinstance(function, Grounding)


@dataclass(frozen=True)
class Repetition(Rule):
    """A penalty in [-1, 0]: minus the share of repeated n-grams.

    Each tag is counted by itself, because the thought may quote the context.

    Attributes:
        ngram: words in a row (Chinese: characters).
    """

    ngram: int = 3

    def __post_init__(self) -> None:
        if self.ngram < 1:
            raise ValueError(f"repetition ngram={self.ngram}: expected at least 1 word")

    def score(self, record: Record, text: str) -> float | None:
        """Judge one text."""
        total = distinct = 0
        for part in tag_parts(text):
            words = units(part)
            grams = [tuple(words[i : i + self.ngram]) for i in range(len(words) - self.ngram + 1)]
            total += len(grams)
            distinct += len(set(grams))
        return distinct / total - 1.0 if total else 0.0
