"""Known faults of drawing and scoring, each as the log-probabilities that it would give.

A hypothesis scores the completions of a `Case` under one fault, and says how much of what was
observed it leaves unexplained; see `core_rl.doctor.hf.explain`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from core_rl.doctor.agreement import Gap, gap_between
from core_rl.doctor.hf.parity import Case
from core_rl.hf.generation import generation_mode, log_softmax_masked, takes

SHIFTS = (1, -1)
EXPLAINED = 0.1  # a hypothesis that leaves at most this share of the mean gap is taken


@dataclass(frozen=True)
class Explanation:
    """A fault that reproduces what was observed.

    Attributes:
        cause: what went wrong.
        cure: the edit or override that ends it.
        left: the gap that remains.
    """

    cause: str
    cure: str
    left: Gap


Hypothesis = Callable[[Case, Tensor], Explanation | None]

CURE_CACHE = (
    "draw inside core_rl.hf.generation.generation_mode(model), or call model.eval() before "
    "generate() and model.train() after it; generate(use_cache=False) is right but slow"
)
CURE_PROMPT = (
    "encode the whole batch in one call and index nothing with [0]; each completion belongs to "
    "the prompt of its own row (repeat_interleave, not repeat)"
)
CURE_PADDING = "pad on the left (tokenizer.padding_side = 'left') and pass attention_mask on"
CURE_POSITIONS = (
    "leave position_ids to the model, or let the first completion token follow the last real "
    "token of its own prompt"
)
CURE_SCORES = (
    "take log-probs of logits / temperature in drawing and in training alike: raw `logits` "
    "(output_logits=True), never `scores`; top_k=0, top_p=1"
)
CURE_SUPPRESS = "mask the same suppressed ids in drawing and in the training log-probs"
CURE_TEMPERATURE = "divide logits by the same temperature in drawing and in training"


def _left(case: Case, observed_NT: Tensor, supposed_NT: Tensor) -> Gap:
    return gap_between(observed_NT, supposed_NT, case.mask_NT)


def lost_cache(case: Case, observed_NT: Tensor) -> Explanation | None:
    """From the second token on, only the token before was seen."""
    supposed = case.score()
    mask = case.mask_NT.clone()
    for n in range(len(case.rows)):
        ids_T = case.ids_of(n)
        if len(ids_T) < 2:
            continue
        logits_TK = _alone(case, ids_T[:-1])
        logp_TK = log_softmax_masked(logits_TK, case.temperature, case.suppress)
        supposed[n, 1 : len(ids_T)] = logp_TK.gather(-1, ids_T[1:].unsqueeze(-1)).squeeze(-1)
        # A row that was padded sees even less than the token before; judge by those that were not.
        if _padded(case, n) and not all(_padded(case, m) for m in range(len(case.rows))):
            mask[n] = False
    if not mask[:, 1:].any():
        return None
    cause = (
        "lost cache: from the second token on decoding saw one token and no prompt; generate() of "
        "transformers 4.53 to 5.23 does this in train mode with gradient (activation) checkpointing"
    )
    return Explanation(cause, CURE_CACHE, gap_between(observed_NT, supposed, mask))


@torch.no_grad()
def _alone(case: Case, ids_T: Tensor) -> Tensor:
    """Logits [T, K] after each token without any context."""
    with generation_mode(case.model):
        out = case.model(
            input_ids=ids_T.unsqueeze(1), attention_mask=torch.ones_like(ids_T.unsqueeze(1))
        )
    return out.logits[:, -1].float()


def _padded(case: Case, n: int) -> bool:
    if case.batch is None or "attention_mask" not in case.batch:
        return False
    return not bool(case.batch["attention_mask"][case.row_in_batch[n]].all())


def other_prompt(case: Case, observed_NT: Tensor) -> Explanation | None:
    """A completion was given the prompt of another row."""
    own = case.score()
    best, chosen = own.clone(), list(range(len(case.rows)))
    for m in range(len(case.rows)):
        moved = [n for n in range(len(case.rows)) if not _same_prompt(case, n, m)]
        if not moved:
            continue
        scored = case.score([case.forward(n, case.rows[m]) for n in range(len(case.rows))])
        for n in moved:
            gaps = [_row_gap(case, observed_NT, option, n) for option in (best, scored)]
            if gaps[1] < gaps[0]:
                best[n], chosen[n] = scored[n], m
    swapped = [n for n, m in enumerate(chosen) if n != m]
    if not swapped:
        return None
    first = all(_same_prompt(case, chosen[n], 0) for n in swapped)
    which = "the first prompt was reused for the whole batch" if first else "prompts were mixed up"
    cause = f"{which}: {len(swapped)} of {len(chosen)} completions followed another row's prompt"
    return Explanation(cause, CURE_PROMPT, _left(case, observed_NT, best))


def _same_prompt(case: Case, n: int, m: int) -> bool:
    return torch.equal(case.rows[n]["input_ids"], case.rows[m]["input_ids"])


def _row_gap(case: Case, observed_NT: Tensor, supposed_NT: Tensor, n: int) -> float:
    rows = slice(n, n + 1)
    return gap_between(observed_NT[rows], supposed_NT[rows], case.mask_NT[rows]).mean


def suppression_differs(case: Case, observed_NT: Tensor) -> Explanation | None:
    """Suppressed ids took part in the softmax of one side only."""
    if not case.suppress.numel():
        return None
    left = _left(case, observed_NT, case.score(suppress=False))
    cause = "suppressed ids are not masked here: the log-probs spread over ids never drawn"
    return Explanation(cause, CURE_SUPPRESS, left)


def other_temperature(case: Case, observed_NT: Tensor) -> Explanation | None:
    """The log-probs are those of another temperature: 1, or the best that fits."""

    def left_at(temperature: float, suppress: bool) -> float:
        supposed = case.score(temperature=temperature, suppress=suppress)
        return _left(case, observed_NT, supposed).mean

    grid = [0.1 * 1.15**i for i in range(30)]
    fits = []
    for suppress in (True, False) if case.suppress.numel() else (True,):
        start = min((1.0, *grid), key=lambda t: left_at(t, suppress))
        best = start
        if start != 1.0:
            width = 1.15
            for _ in range(12):  # narrow down: the gap has one valley around its best grid point
                width = width**0.6
                best = min((best / width, best, best * width), key=lambda t: left_at(t, suppress))
        fits.append((left_at(best, suppress), best, suppress))
    _, best, suppress = min(fits)
    if abs(best / case.temperature - 1) < 0.01:
        return None
    supposed = case.score(temperature=best, suppress=suppress)
    also = "" if suppress else ", and suppressed ids are not masked"
    cause = (
        f"temperature mismatch: log-probs are those of temperature {best:.3g} where "
        f"{case.temperature:g} was meant{also}"
    )
    return Explanation(cause, CURE_TEMPERATURE, _left(case, observed_NT, supposed))


def warped_scores(case: Case, observed_NT: Tensor) -> Explanation | None:
    """Top-k or top-p threw options away: each log-prob grew by -log of the mass that was kept.

    The mass kept is then the sum of the most probable options down to some rank, at every step.
    """
    for temperature in {case.temperature, 1.0}:
        right = case.score(temperature=temperature)
        supposed, ranks = right.clone(), []
        for n, logits_TK in enumerate(case.logits):
            steps = len(logits_TK)
            logp_TK = log_softmax_masked(logits_TK, temperature, case.suppress)
            kept_TK = logp_TK.sort(dim=-1, descending=True).values.exp().cumsum(-1)
            seen_T1 = (right[n, :steps] - observed_NT[n, :steps]).exp().unsqueeze(-1)
            distance_TK = (kept_TK.clamp(min=1e-30).log() - seen_T1.log()).abs()
            rank_T = distance_TK.argmin(-1)
            ranks.extend((rank_T + 1).tolist())
            kept_T = kept_TK.gather(-1, rank_T.unsqueeze(-1)).squeeze(-1)
            supposed[n, :steps] = right[n, :steps] - kept_T.log()
        left = _left(case, observed_NT, supposed)
        grew = _left(case, observed_NT, right).mean > 0 and bool(
            (torch.where(case.mask_NT, observed_NT - right, 0.0) > -1e-2).all()
        )
        options = case.logits[0].shape[-1]
        if grew and any(rank < options for rank in ranks):
            shared = f"top_k={ranks[0]}" if len(set(ranks)) == 1 else "top_p or top_k"
            cause = f"log-probs come from warped scores ({shared}): options thrown away"
            answer = Explanation(cause, CURE_SCORES, left)
            if left.mean <= EXPLAINED * _left(case, observed_NT, case.score()).mean:
                return answer
    return None


def shifted_labels(case: Case, observed_NT: Tensor) -> Explanation | None:
    """Token t was scored by the logits that predict its neighbour."""
    best: Explanation | None = None
    for shift in SHIFTS:
        supposed, mask = case.score(), case.mask_NT.clone()
        for n, logits_TK in enumerate(case.logits):
            ids_T = case.ids_of(n)
            logp_TK = log_softmax_masked(logits_TK, case.temperature, case.suppress)
            # torch.roll wraps around; the step that came from the other end is not judged.
            moved_TK = logp_TK.roll(-shift, 0)
            supposed[n, : len(ids_T)] = moved_TK.gather(-1, ids_T.unsqueeze(-1)).squeeze(-1)
            mask[n, len(ids_T) - 1 if shift == 1 else 0] = False
        if mask.sum() < 2:
            continue
        cause = f"labels are shifted: token t was scored by the logits of token t{shift:+d}"
        cure = "score token t by the logits at position t - 1: logits[:, :-1] against ids[:, 1:]"
        answer = Explanation(cause, cure, gap_between(observed_NT, supposed, mask))
        best = min((one for one in (best, answer) if one), key=lambda one: one.left.mean)
    return best


def attended_padding(case: Case, observed_NT: Tensor) -> Explanation | None:
    """Padding was attended to, or stood between a prompt and its completion."""
    if case.batch is None or not any(_padded(case, n) for n in range(len(case.rows))):
        return None
    on_the_right = bool((case.batch["attention_mask"][:, -1] == 0).any())
    cause = "the attention mask is ignored: padding is attended to"
    if on_the_right:
        cause = "right padding: pads stand between the prompt and its completion"
    numbered = PLACES if takes(case.model, "position_ids") else PLACES[:1]
    answers = []
    for ignored in (True, False) if on_the_right else (True,):
        for places in numbered:
            logits = [_in_batch(case, n, ignored, places) for n in range(len(case.rows))]
            left = _left(case, observed_NT, case.score(logits))
            answers.append(Explanation(cause, CURE_PADDING, left))
    return min(answers, key=lambda answer: answer.left.mean)


def _left_to_the_model(mask_P: Tensor, steps: int) -> Tensor | None:
    return None


def _of_real_tokens(mask_P: Tensor, steps: int) -> Tensor:
    """Count real tokens only, so that pads on the right leave no gap."""
    whole = torch.cat([mask_P, mask_P.new_ones(steps)])
    return (whole.cumsum(0) - 1).clamp(min=0)


def _as_generate_counts(mask_P: Tensor, steps: int) -> Tensor:
    """Pads are at 0 and the completion follows the last column, pad or not."""
    prompt_P = (mask_P.cumsum(0) - 1).masked_fill(mask_P == 0, 0)
    ahead = torch.arange(1, steps + 1, device=mask_P.device)
    return torch.cat([prompt_P, prompt_P[-1] + ahead])


PLACES: tuple[Callable[[Tensor, int], Tensor | None], ...] = (
    _left_to_the_model,
    _of_real_tokens,
    _as_generate_counts,
)


def _in_batch(
    case: Case, n: int, ignore_mask: bool, places: Callable[[Tensor, int], Tensor | None]
) -> Tensor:
    """Logits [T, K] with the prompt's padding left where it was in the batch."""
    assert case.batch is not None
    index, ids_T = case.row_in_batch[n], case.ids_of(n)
    mask_P = case.batch["attention_mask"][index]
    names = ["input_ids", *(case.per_token.keys() & case.batch.keys())]
    row = case.rows[n] | {name: case.batch[name][index].unsqueeze(0) for name in names}
    if ignore_mask:
        row["attention_mask"] = torch.ones_like(row["attention_mask"])
    at = places(mask_P, len(ids_T))
    return case.forward(n, row, None if at is None else at.unsqueeze(0))


def moved_positions(case: Case, observed_NT: Tensor) -> Explanation | None:
    """The completion's positions do not follow the prompt's."""
    if not takes(case.model, "position_ids") or _has_media(case):
        return None
    best: Explanation | None = None
    for shift in _shifts(case):
        logits = []
        for n in range(len(case.rows)):
            prompt = case.rows[n]["input_ids"].shape[-1]
            start = prompt + (shift if shift is not None else _pads(case, n))
            places = torch.cat(
                [torch.arange(prompt), start + torch.arange(len(case.ids_of(n)))]
            ).clamp(min=0)
            places = places.unsqueeze(0).to(case.ids_NT.device)
            logits.append(case.forward(n, case.rows[n], places))
        off = "by the padding" if shift is None else f"by {shift:+d}"
        cause = f"position ids of the completion are off {off}"
        left = _left(case, observed_NT, case.score(logits))
        answer = Explanation(cause, CURE_POSITIONS, left)
        best = min((one for one in (best, answer) if one), key=lambda one: one.left.mean)
    return best


def _shifts(case: Case) -> list[int | None]:
    padded = any(_padded(case, n) for n in range(len(case.rows)))
    return [*SHIFTS, 2, -2, *([None] if padded else [])]


def _pads(case: Case, n: int) -> int:
    if case.batch is None:
        return 0
    return int((case.batch["attention_mask"][case.row_in_batch[n]] == 0).sum())


def _has_media(case: Case) -> bool:
    return bool(case.rows[0].keys() - {"input_ids"} - case.per_token.keys())


HYPOTHESES: tuple[Hypothesis, ...] = (
    lost_cache,
    other_prompt,
    suppression_differs,
    other_temperature,
    warped_scores,
    shifted_labels,
    attended_padding,
    moved_positions,
)
