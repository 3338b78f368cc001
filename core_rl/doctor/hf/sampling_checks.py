"""Check completions: drawn from their distribution, ended, decoded, distinct."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from core_rl.doctor.findings import Finding, at_most, equals, skipped
from core_rl.doctor.hf.parity import Case
from core_rl.hf.generation import log_softmax_masked
from core_rl.types import Actions

EVIDENCE = 14.0  # nats: a healthy sampler exceeds it once in a million times
COPIES = -14.0  # nats: two draws that agree on anything less probable are one draw


def sampling_findings(
    case: Case, drawn_NT: Tensor, stop_ids: Sequence[int], max_new: int
) -> list[Finding]:
    """Check completions as such.

    Args:
        case: the completions.
        drawn_NT: log-probs as decoding saw them.
        stop_ids: end a completion.
        max_new: limit of new tokens.
    """
    return [
        _suppressed(case),
        _ends(case, stop_ids, max_new),
        _distinct(case, drawn_NT),
        _from_distribution(case),
    ]


def _suppressed(case: Case) -> Finding:
    if not case.suppress.numel():
        return skipped("sampling/suppressed", "no id is suppressed")
    count = int((torch.isin(case.ids_NT, case.suppress) & case.mask_NT).sum())
    return equals(
        "sampling/suppressed",
        count,
        0,
        "a suppressed (media or special) token was sampled: the next forward breaks on it, or "
        "takes it for media",
        "pass suppress_tokens=suppress_ids to whatever draws",
    )


def _ends(case: Case, stop_ids: Sequence[int], max_new: int) -> Finding:
    """A completion is real up to its first stop id, that included, or up to the limit."""
    causes = []
    for ids_T, mask_T in zip(case.ids_NT.tolist(), case.mask_NT.tolist(), strict=True):
        length = sum(mask_T)
        stops = [t for t, token in enumerate(ids_T) if token in stop_ids]
        if mask_T != [t < length for t in range(len(mask_T))]:
            causes.append("the mask of a completion has holes")
        elif stops and stops[0] < length - 1:
            causes.append("tokens after the end of a completion are learned from")
        elif stops and stops[0] == length:
            causes.append("the end token is masked out: the policy never learns to stop")
        elif length < max_new and length - 1 not in stops:
            causes.append("a completion was cut before the limit without an end token")
    return equals(
        "sampling/ends",
        1 - len(causes) / len(case.ids_NT),
        1,
        causes[0] if causes else "",
        "let the mask hold every token up to the first stop id, that included, and nothing after",
    )


def _distinct(case: Case, drawn_NT: Tensor) -> Finding:
    """Two completions of one prompt may agree only where that is probable."""
    total_N = torch.where(case.mask_NT, drawn_NT, 0.0).sum(-1)
    copies = pairs = 0
    for n in range(len(case.rows)):
        for m in range(n):
            if case.rows[n] is not case.rows[m]:
                continue
            pairs += 1
            same = torch.equal(case.ids_of(n), case.ids_of(m))
            copies += int(same and float(total_N[n]) < COPIES)
    if not pairs:
        return skipped("sampling/copies", "one completion a prompt")
    return equals(
        "sampling/copies",
        copies,
        0,
        "candidates of a prompt are copies of each other: greedy decoding, a seed that is set "
        "again for each, or one row repeated",
        "draw with do_sample=True at the temperature of the run, and seed once a run",
    )


def _from_distribution(case: Case) -> Finding:
    """Test that tokens were drawn from the distribution that they are scored by.

    Each alternative below is a bet: the product of its probabilities over the right ones has the
    expectation 1 if all is well, and so has the mean over the bets.  By Markov's inequality it
    exceeds exp(14) once in a million times at most.  The figure is its logarithm.
    """
    logs = {name: 0.0 for name, _ in ALTERNATIVES}
    for n, logits_TK in enumerate(case.logits):
        ids_T1 = case.ids_of(n).unsqueeze(-1)
        logp_TK = log_softmax_masked(logits_TK, case.temperature, case.suppress)
        right_T = logp_TK.gather(-1, ids_T1).squeeze(-1)
        possible_T = right_T.isfinite()  # what was suppressed and drawn is another check's
        for name, changed in ALTERNATIVES:
            other_T = changed(logp_TK).gather(-1, ids_T1).squeeze(-1)
            logs[name] += float((other_T - right_T)[possible_T].sum())
    evidence = float(torch.tensor(list(logs.values())).logsumexp(0)) - math.log(len(logs))
    likely = max(logs, key=lambda name: logs[name])
    return at_most(
        "sampling/from_distribution",
        evidence,
        EVIDENCE,
        f"tokens are not drawn from the distribution they are scored by, but rather {likely}",
        "draw with do_sample=True, top_k=0, top_p=1 at the very temperature of scoring",
    )


def _tempered(factor: float) -> Callable[[Tensor], Tensor]:
    """The distribution at `factor` times the temperature."""
    return lambda logp_TK: (logp_TK / factor).log_softmax(-1)


def _most_probable(count: int) -> Callable[[Tensor], Tensor]:
    """Only the `count` most probable options, renormalised."""

    def kept(logp_TK: Tensor) -> Tensor:
        least_T1 = logp_TK.topk(min(count, logp_TK.shape[-1])).values[..., -1:]
        return logp_TK.masked_fill(logp_TK < least_T1, -torch.inf).log_softmax(-1)

    return kept


ALTERNATIVES: tuple[tuple[str, Callable[[Tensor], Tensor]], ...] = (
    ("by greedy decoding", _tempered(0.05)),
    ("at a third of the temperature", _tempered(1 / 3)),
    ("at two thirds of the temperature", _tempered(2 / 3)),
    ("at a higher temperature, by half", _tempered(1.5)),
    ("at a higher temperature, twice", _tempered(2.0)),
    ("at a higher temperature, four times", _tempered(4.0)),
    ("from the top 10 (top_k)", _most_probable(10)),
    ("from the top 50 (top_k)", _most_probable(50)),
)


def text_findings(tokenizer: PreTrainedTokenizerBase, actions: Actions) -> list[Finding]:
    """Check that the texts that rewards read are those of the tokens that are learned from."""
    if not actions.texts:
        return [skipped("sampling/texts", "candidates carry no text")]
    wrong = count = 0
    for b, group in enumerate(actions.texts):
        for g, text in enumerate(group):
            ids = actions.ids_BGT[b, g][actions.mask_BGT[b, g]].tolist()
            count += 1
            decoded = str(tokenizer.decode(ids, skip_special_tokens=True))
            wrong += decoded.strip() != text.strip()
    return [
        equals(
            "sampling/texts",
            1 - wrong / max(count, 1),
            1,
            f"{wrong} of {count} texts are not those of their tokens: rewards judge other "
            "candidates than are learned from",
            "decode the very ids of each candidate, in order of query and candidate",
        )
    ]
