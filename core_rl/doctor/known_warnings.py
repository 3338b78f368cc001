"""Warnings that tell more than they say, caught and explained.

Two of them stood in the log of a run whose completions were garbled for a day, and were taken for
noise.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from core_rl.doctor.findings import Finding, Verdict

TALKATIVE = ("transformers", "py.warnings")  # loggers that do not hand on to the root


@dataclass(frozen=True)
class Telling:
    """A warning and what it means.

    Attributes:
        check: name of the finding.
        part: pattern that recognises the warning.
        verdict: where it is heard while candidates are drawn or scored.
        means: in plain words.
        cure: what ends it.
    """

    check: str
    part: str
    verdict: Verdict
    means: str
    cure: str


_CURE = "draw inside core_rl.hf.generation.generation_mode(model); see docs/garbled-completions.md"
TELLING = (
    Telling(
        "warnings/no_input_requires_grad",
        "None of the inputs have requires_grad=True",
        Verdict.warn,
        "activation checkpointing ran where no gradient is wanted: a model in train mode draws or "
        "scores under no_grad; generate() of transformers 4.53 to 5.23 loses its cache that way",
        _CURE,
    ),
    Telling(
        "warnings/cache_dropped",
        r"Setting `(past_key_values|cache)=None`",
        Verdict.warn,
        "a layer under activation checkpointing threw the cache away: completions that are drawn "
        "like this see one token at a time",
        _CURE,
    ),
    Telling(
        "warnings/cache_refused",
        "is incompatible with gradient checkpointing",
        Verdict.warn,
        "a model under activation checkpointing was asked for a cache: harmless in a training "
        "forward, fatal in generate()",
        _CURE,
    ),
    Telling(
        "warnings/system_prompt",
        "System prompt modified, audio output may not work as expected",
        Verdict.ok,
        "harmless here: it is about speech that Qwen2.5-Omni's talker would make, and only text is "
        "drawn; it garbles no completion",
        "nothing to do",
    ),
)


@dataclass
class Overheard:
    """What was said inside `overheard`."""

    said: list[str] = field(default_factory=list)

    def findings(self) -> list[Finding]:
        """Explain the telling ones; silence is well."""
        found = []
        left = list(self.said)
        for one in TELLING:
            heard = [text for text in left if re.search(one.part, text)]
            left = [text for text in left if text not in heard]
            if heard:
                count = float(len(heard))
                found.append(Finding(one.check, count, "= 0", one.verdict, one.means, one.cure))
        return found


class _Ear(logging.Handler):
    def __init__(self, heard: Overheard) -> None:
        super().__init__(logging.WARNING)
        self.heard = heard

    def emit(self, record: logging.LogRecord) -> None:
        self.heard.said.append(record.getMessage())


@contextmanager
def overheard() -> Iterator[Overheard]:
    """Listen to warnings and to transformers' log; both are passed on.

    transformers says some things once a process: heard before, they are not heard again.
    """
    heard = Overheard()
    ear = _Ear(heard)
    loggers = [logging.getLogger(name) for name in (*TALKATIVE, None)]
    for logger in loggers:
        logger.addHandler(ear)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield heard
    finally:
        for logger in loggers:
            logger.removeHandler(ear)
    for one in caught:
        heard.said.append(str(one.message))
        warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
