"""Warnings that point to a fault of drawing, recognised and explained.

Two of them stood in the log of a run whose completions were garbled for a day, and were ignored.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from core_rl.doctor.findings import Finding, Verdict

NOT_PROPAGATING = ("transformers", "py.warnings")  # loggers that do not pass records to the root


@dataclass(frozen=True)
class Known:
    """A warning and what it means.

    Attributes:
        check: name of the finding.
        pattern: that recognises the warning.
        verdict: where it appears while candidates are drawn or scored.
        means: in plain words.
        cure: what ends it.
    """

    check: str
    pattern: str
    verdict: Verdict
    means: str
    cure: str


_CURE = "draw inside core_rl.hf.generation.generation_mode(model); see docs/garbled-completions.md"
KNOWN = (
    Known(
        "warnings/no_input_requires_grad",
        "None of the inputs have requires_grad=True",
        Verdict.warn,
        "activation checkpointing ran where no gradient is wanted: a model in train mode draws or "
        "scores under no_grad; generate() of transformers 4.53 to 5.23 loses its cache that way",
        _CURE,
    ),
    Known(
        "warnings/cache_dropped",
        r"Setting `(past_key_values|cache)=None`",
        Verdict.warn,
        "a layer under activation checkpointing dropped the cache: completions drawn like this see "
        "one token at a time",
        _CURE,
    ),
    Known(
        "warnings/cache_refused",
        "is incompatible with gradient checkpointing",
        Verdict.warn,
        "a model under activation checkpointing was asked for a cache: harmless in a training "
        "forward, fatal in generate()",
        _CURE,
    ),
    Known(
        "warnings/system_prompt",
        "System prompt modified, audio output may not work as expected",
        Verdict.ok,
        "harmless here: it is about speech of Qwen2.5-Omni's talker, and only text is drawn; it "
        "garbles no completion",
        "nothing to do",
    ),
)


@dataclass
class Recorded:
    """Warnings that were issued inside `recorded_warnings`."""

    messages: list[str] = field(default_factory=list)

    def findings(self) -> list[Finding]:
        """Explain the known ones, each message once; unknown ones give no finding."""
        found, left = [], list(self.messages)
        for one in KNOWN:
            mine = [text for text in left if re.search(one.pattern, text)]
            left = [text for text in left if text not in mine]
            if mine:
                count = float(len(mine))
                found.append(Finding(one.check, count, "= 0", one.verdict, one.means, one.cure))
        return found


class _Handler(logging.Handler):
    def __init__(self, recorded: Recorded) -> None:
        super().__init__(logging.WARNING)
        self.recorded = recorded

    def emit(self, record: logging.LogRecord) -> None:
        self.recorded.messages.append(record.getMessage())


@contextmanager
def recorded_warnings() -> Iterator[Recorded]:
    """Record Python's warnings and transformers' log; both are passed on.

    transformers logs some warnings once a process: issued before, they are not recorded.
    """
    recorded = Recorded()
    handler = _Handler(recorded)
    loggers = [logging.getLogger(name) for name in (*NOT_PROPAGATING, None)]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield recorded
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
    for one in caught:
        recorded.messages.append(str(one.message))
        warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
