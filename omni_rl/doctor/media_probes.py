"""Experiments on a policy: media replaced by noise, media tokens made probable.

Each leaves the policy, its weights and the run's random state unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from core_rl.doctor.agreement import gap_between
from core_rl.doctor.hf.checks import limited
from core_rl.doctor.hf.explain import Explanation, Hypothesis
from core_rl.doctor.hf.parity import Case
from core_rl.hardware import own_randomness
from core_rl.hf.encoded_prompt import Inputs
from core_rl.types import Actions
from omni_rl.config import Blank
from omni_rl.data.record import Record
from omni_rl.doctor.media_calls import thinker_of
from omni_rl.doctor.media_causes import CAUSES
from omni_rl.policy.policy import OmniPolicy
from omni_rl.policy.prompts import stop_token_ids, suppressed_token_ids

VALUES = {
    "video": ("pixel_values_videos", "pixel_values"),
    "audio": ("input_features",),
    "both": ("pixel_values_videos", "pixel_values", "input_features"),
}
# Nats.  Forwards of the same shape repeat to the bit, so a model that does not see moves by 0; one
# that is nearly certain of what it says moves by as little as 1e-5.
MOVED = 1e-6
PROBE_TOKENS = 8  # of a candidate at most: an effect of media shows in the first ones
FORCED = 80.0  # a token with this added to its logit is drawn unless it is masked


@dataclass(frozen=True)
class Probe:
    """Settings of the checks.

    Attributes:
        temperature: of the run.
        candidates: for each record, at least two.
        max_new: tokens of each.
        seed: of draws and noise.
        blank: media that are blanked on purpose.
        completions: also draw with noise as media, and warn if completions are the same.
    """

    temperature: float = 1.0
    candidates: int = 2
    max_new: int = PROBE_TOKENS
    seed: int = 0
    blank: Blank = Blank.none
    completions: bool = True


# -- are media seen? -------------------------------------------------------------------------------


@contextmanager
def noisy(policy: OmniPolicy, names: Sequence[str], seed: int) -> Iterator[None]:
    """Replace features by noise of the same mean and deviation in every batch."""
    collate = policy.collate

    def spoiled(queries: Sequence[Record]) -> Inputs:
        inputs = collate(queries)
        generator = torch.Generator().manual_seed(seed)
        for name in names:
            values = inputs.get(name)
            if isinstance(values, Tensor):
                noise = torch.randn(values.shape, generator=generator)
                spread = float(values.float().std().clamp(min=0.1))
                inputs[name] = (noise * spread + float(values.float().mean())).to(values)
        return inputs

    policy.collate = spoiled  # type: ignore[method-assign]
    try:
        yield
    finally:
        policy.collate = collate  # type: ignore[method-assign]


@torch.no_grad()
def movement(
    policy: OmniPolicy,
    records: Sequence[Record],
    actions: Actions,
    scored_BGT: Tensor,
    names: Sequence[str],
    probe: Probe,
) -> Tensor:
    """Largest change of a log-prob when the named features become noise, for each record, [B]."""
    with noisy(policy, names, probe.seed):
        changed = policy.log_probs(policy.encode(records), actions, probe.temperature).logp_BGT
    gap_BGT = torch.where(actions.mask_BGT, (changed - scored_BGT).abs(), 0.0)
    return gap_BGT.flatten(1).amax(1).float().cpu()


@torch.no_grad()
def same_completions(
    policy: OmniPolicy, records: Sequence[Record], actions: Actions, probe: Probe
) -> float:
    """Share of candidates that are drawn again by the same seed when all media are noise."""
    with noisy(policy, VALUES["both"], probe.seed):
        again = draw(policy, records, probe)
    steps = min(again.ids_BGT.shape[-1], actions.ids_BGT.shape[-1])
    same = (again.ids_BGT[..., :steps] == actions.ids_BGT[..., :steps]) | ~(
        actions.mask_BGT[..., :steps] | again.mask_BGT[..., :steps]
    )
    return float(same.all(-1).float().mean())


@torch.no_grad()
def draw(policy: OmniPolicy, records: Sequence[Record], probe: Probe) -> Actions:
    """Draw candidates from a fixed seed; the run's random state stays as it is."""
    with own_randomness(policy.device):
        torch.manual_seed(probe.seed)
        return policy.sample(policy.encode(records), probe.candidates, probe.temperature)


# -- what may be drawn -----------------------------------------------------------------------------


@torch.no_grad()
def forbidden_drawn(policy: OmniPolicy, record: Record, probe: Probe) -> int:
    """Count special tokens that can be drawn: ids not suppressed, and those drawn in a test.

    Their logits are raised beyond all others, so that sampling takes them unless it masks them.
    """
    tokenizer: Any = policy.tokenizer
    config = thinker_of(policy.model).config
    special = {config.audio_token_id, config.image_token_id, config.video_token_id}
    forbidden = (special | set(suppressed_token_ids(tokenizer))) - set(stop_token_ids(tokenizer))
    free = forbidden - set(policy.suppress_ids.tolist())
    ids = torch.tensor(sorted(forbidden), device=policy.device)

    def raised(_: object, args: object, logits: Tensor) -> Tensor:
        logits = logits.clone()
        logits[..., ids] += FORCED
        return logits

    handle = policy.model.get_output_embeddings().register_forward_hook(raised)
    try:
        with limited(policy, 2):
            actions = draw(policy, [record], replace(probe, candidates=2))
    finally:
        handle.remove()
    return len(free) + int((torch.isin(actions.ids_BGT, ids) & actions.mask_BGT).sum())


# -- changed prompts: the one that gives the observed log-probs is the cause -----------------------


def _without(*names: str) -> Callable[[Inputs, Inputs], Inputs]:
    return lambda row, _: {key: value for key, value in row.items() if key not in names}


def _flipped(row: Inputs, _: Inputs) -> Inputs:
    return row | {"use_audio_in_video": not row.get("use_audio_in_video")}


def _reversed(row: Inputs, _: Inputs) -> Inputs:
    changed = dict(row)
    grids = row.get("video_grid_thw")
    if grids is not None and len(grids) > 1 and bool((grids == grids[0]).all()):
        parts = row["pixel_values_videos"].chunk(len(grids))
        changed["pixel_values_videos"] = torch.cat(parts[::-1])
    if "input_features" in row:
        changed["input_features"] = row["input_features"].flip(0)
    return changed


def _borrowed(row: Inputs, other: Inputs) -> Inputs:
    taken = {
        name: other[name]
        for name in VALUES["both"]
        if name in row and name in other and row[name].shape == other[name].shape
    }
    return row | taken


_CHANGES: dict[str, Callable[[Inputs, Inputs], Inputs]] = {
    "video_missing": _without("pixel_values_videos"),
    "image_missing": _without("pixel_values"),
    "audio_missing": _without("input_features"),
    "media_missing": _without(*VALUES["both"]),
    "flag": _flipped,
    "media_order": _reversed,
    "other_sample": _borrowed,
}


def _hypothesis(name: str, change: Callable[[Inputs, Inputs], Inputs]) -> Hypothesis:
    def suppose(case: Case, observed_NT: Tensor) -> Explanation | None:
        logits, changed = [], False
        for n, row in enumerate(case.rows):
            others = [other for other in case.rows if other is not row]
            altered = change(row, others[-1] if others else row)
            changed |= any(altered.get(key) is not value for key, value in row.items())
            try:
                logits.append(case.forward(n, altered))
            except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):
                return None  # the model refuses such a prompt, so this is not the cause
        if not changed:
            return None
        left = gap_between(observed_NT, case.score(logits), case.mask_NT)
        return Explanation(CAUSES[name].says, CAUSES[name].cure, left)

    return suppose


MEDIA_HYPOTHESES: tuple[Hypothesis, ...] = tuple(
    _hypothesis(name, change) for name, change in _CHANGES.items()
)
