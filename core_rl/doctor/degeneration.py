"""Signs of degenerate completions, and rewards without a learning signal.

A run once wrote `<contextsystemsystemsystem ...` for a day under a constant reward of .10.  Each
figure here shows that at the first step.
"""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from core_rl.config import DoctorConfig
from core_rl.doctor.findings import Finding, Verdict, at_most, finding, skipped
from core_rl.types import Actions, RewardTable

NGRAM = 4
MIN_STEPS = 8  # shorter candidates repeat nothing by necessity
MIN_LETTERS = 20

CURE_GARBLED = (
    "look at parity/* and cache/length first: a decoding fault looks like this from the first step "
    "on; after many good steps it is a policy that collapsed: raise loss.kl.weight or lower "
    "trainer.lr"
)


@dataclass(frozen=True)
class Repetition:
    """How much candidates repeat themselves, as means over those of at least `MIN_STEPS` steps.

    Attributes:
        top_share: share of a candidate's most frequent option, from 0 to 1.
        distinct_2: distinct pairs of neighbours over all pairs.
        repeated: share of runs of `NGRAM` that stood in the candidate before.
        judged: candidates long enough.
    """

    top_share: float
    distinct_2: float
    repeated: float
    judged: int


def repetition(actions: Actions) -> Repetition:
    """Measure repetition over the options themselves, so it needs no text."""
    rows = [
        ids[mask].tolist()
        for ids, mask in zip(
            actions.ids_BGT.flatten(0, 1), actions.mask_BGT.flatten(0, 1), strict=True
        )
    ]
    rows = [row for row in rows if len(row) >= MIN_STEPS]
    if not rows:
        return Repetition(math.nan, math.nan, math.nan, 0)
    tops = [Counter(row).most_common(1)[0][1] / len(row) for row in rows]
    return Repetition(
        _mean(tops),
        _mean([_distinct(row, 2) for row in rows]),
        _mean([1 - _distinct(row, NGRAM) for row in rows]),
        len(rows),
    )


def _distinct(row: Sequence[int], n: int) -> float:
    grams = [tuple(row[i : i + n]) for i in range(len(row) - n + 1)]
    return len(set(grams)) / len(grams)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def script_of(char: str) -> str | None:
    """Script of a letter by its Unicode name (`LATIN`, `CJK`, ...); None for other characters."""
    if not char.isalpha():
        return None
    return unicodedata.name(char, "UNKNOWN").partition(" ")[0]


def foreign_share(texts: Sequence[str], references: Sequence[str]) -> float:
    """Share of the letters in `texts` whose script is rare (below 1 %) in `references`.

    Returns:
        From 0 to 1; NaN where either side has fewer than `MIN_LETTERS` letters.
    """
    own = Counter(script for text in texts for char in text if (script := script_of(char)))
    usual = Counter(script for text in references for char in text if (script := script_of(char)))
    if min(own.total(), usual.total()) < MIN_LETTERS:
        return math.nan
    known = {script for script, count in usual.items() if count >= 0.01 * usual.total()}
    return sum(count for script, count in own.items() if script not in known) / own.total()


def degeneration_findings(
    actions: Actions,
    limits: DoctorConfig,
    references: Sequence[str] = (),
    *,
    complete: bool = True,
) -> list[Finding]:
    """Judge fresh candidates.

    Args:
        actions: as they were drawn.
        limits: thresholds.
        references: texts in the language that is expected: prompts or solutions.
        complete: whether candidates had the run's own length limit, so that an end is expected.
    """
    seen = repetition(actions)
    if not seen.judged:
        why = f"no candidate has {MIN_STEPS} steps"
        found = [skipped(f"degeneration/{name}", why) for name in ("top_share", "distinct_2")]
    else:
        found = _repetition_findings(seen, limits)
    found.append(_blank(actions))
    found.append(_ended(actions, complete))
    found.append(_drift(actions, limits, references))
    return found


def _repetition_findings(seen: Repetition, limits: DoctorConfig) -> list[Finding]:
    cause = "completions repeat themselves: garbled decoding, or a policy that collapsed"
    low = limits.min_distinct_2
    return [
        at_most(
            "degeneration/top_share",
            seen.top_share,
            limits.max_top_share,
            f"one token fills {seen.top_share:.0%} of a completion: garbled decoding, or a policy "
            "that collapsed",
            CURE_GARBLED,
        ),
        finding(
            "degeneration/distinct_2",
            seen.distinct_2,
            f">= {low:g}",
            seen.distinct_2 >= low,
            cause,
            CURE_GARBLED,
        ),
        at_most("degeneration/repeated_4", seen.repeated, limits.max_repeated, cause, CURE_GARBLED),
    ]


def _blank(actions: Actions) -> Finding:
    texts = [text for group in actions.texts for text in group]
    if not texts:
        return skipped("degeneration/blank", "candidates carry no text")
    share = sum(not text.strip() for text in texts) / len(texts)
    return at_most(
        "degeneration/blank",
        share,
        0.5,
        f"{share:.0%} of the completions are blank: the first token drawn ends them, or all that "
        "is drawn is special tokens",
        "look at template/generation_prompt and the end of the prompt: after a closed turn a "
        "model generates nothing",
    )


def _ended(actions: Actions, complete: bool) -> Finding:
    check = "degeneration/ended"
    if actions.truncated_BG is None or not complete:
        return skipped(check, "candidates were cut on purpose, or always have one length")
    share = 1 - float(actions.truncated_BG.float().mean())
    count = actions.truncated_BG.numel()
    return finding(
        check,
        share,
        "> 0",
        share > 0 or count < MIN_STEPS,
        f"none of {count} completions stopped before the length limit",
        "raise rollout.max_completion, check tokens/stop_reachable, or start from a model that has "
        "learned to stop",
        Verdict.warn,
    )


def _drift(actions: Actions, limits: DoctorConfig, references: Sequence[str]) -> Finding:
    check = "degeneration/foreign_script"
    texts = [text for group in actions.texts for text in group]
    share = foreign_share(texts, references)
    if math.isnan(share):
        return skipped(check, f"fewer than {MIN_LETTERS} letters to compare")
    return at_most(
        check,
        share,
        limits.max_foreign,
        f"{share:.0%} of the letters are of scripts that the prompts do not use: language drift, "
        "or garbled decoding",
        f"{CURE_GARBLED}; where answers are meant to be in another language: doctor.max_foreign=1",
    )


# -- rewards -------------------------------------------------------------------------------------


class RewardWatch:
    """Rewards of groups over a stretch of training; tells which of them carry no signal.

    A single flat group means little (a question may be too easy or too hard); so a verdict waits
    for `DoctorConfig.flat_groups` of them.
    """

    def __init__(self, limits: DoctorConfig) -> None:
        self.limits = limits
        self._tables: list[RewardTable] = []
        self._flat: list[bool] = []

    def add(self, table: RewardTable, mixed_B: Tensor) -> None:
        """Take in the rewards of B groups of at least two candidates."""
        self._tables.append(replace(table, values_RBG=table.values_RBG.cpu()))
        self._flat.extend((~mixed_B).tolist())

    def clear(self) -> None:
        self._tables.clear()
        self._flat.clear()

    @property
    def groups(self) -> int:
        return len(self._flat)

    def findings(self) -> list[Finding]:
        """Judge all groups since the last `clear`."""
        if not self._flat:
            return [skipped("reward/flat_share", "no group was judged")]
        constant = self._constant()
        enough = self.groups >= self.limits.flat_groups
        share = sum(self._flat) / self.groups
        dead = share == 1
        said = [f"{name} is {value:g} everywhere" for name, value in constant.items()]
        said += [
            f"{name} judged nothing"
            for index, name in enumerate(self._tables[0].names)
            if not self._values(index).numel()
        ]
        named = ", ".join(said) or "every reward varies between questions, none inside a group"
        found = [
            finding(
                "reward/flat_share",
                share,
                "< 1",
                not dead,
                f"all {self.groups} groups have equal rewards, so nothing is learned: {named}",
                "read the samples: garbled completions, or a task too hard or too easy; use "
                "rewards with a finer scale, more candidates, or a warm start",
                Verdict.fail if enough else Verdict.warn,
            )
        ]
        return found + [self._spread(name, constant, enough) for name in self._tables[0].names]

    def _constant(self) -> dict[str, float]:
        """Rewards that had one value for every candidate."""
        constant = {}
        for index, name in enumerate(self._tables[0].names):
            values = self._values(index)
            if values.numel() and float(values.max() - values.min()) == 0:
                constant[name] = float(values[0])
        return constant

    def _values(self, index: int) -> Tensor:
        every = torch.cat([table.values_RBG[index].flatten() for table in self._tables])
        return every[~every.isnan()]

    def _spread(self, name: str, constant: dict[str, float], enough: bool) -> Finding:
        values = self._values(self._tables[0].names.index(name))
        if not values.numel() and enough:
            return finding(
                f"reward/spread_{name}",
                None,
                "> 0",
                False,
                f"reward {name!r} could not judge a single candidate",
                "see why it answers None: a judge that does not answer, solutions without the "
                "field it needs, a parse that always fails",
                Verdict.warn,
            )
        if name in constant and not enough:
            few = f"{self.groups} groups; {self.limits.flat_groups} tell whether it is constant"
            return skipped(f"reward/spread_{name}", few)
        if values.numel() < 2:
            return skipped(f"reward/spread_{name}", "judged fewer than two candidates")
        return finding(
            f"reward/spread_{name}",
            0.0 if name in constant else float(values.std()),
            "> 0",
            name not in constant,
            f"reward {name!r} is constant at {constant.get(name, 0):g} over {values.numel()} "
            "candidates: a floor value, a judge that always says the same, or a broken parse",
            "read what it is given (samples.parquet); drop it or set its weight to 0 if it is "
            "satisfied by all",
            Verdict.warn,
        )
