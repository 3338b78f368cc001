"""The check of a multimodal policy before its first training step.

`examine` runs the checks of any Hugging Face policy (`core_rl.doctor.hf.checks`) and those of
media: features are compared with files, the effect of each kind of media is measured by ablation,
and special tokens must not be drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from core_rl.config import DoctorConfig
from core_rl.doctor.callback import Examine
from core_rl.doctor.findings import Finding, Verdict, finding, skipped
from core_rl.doctor.hf.checks import check_policy, limited, training_mode
from core_rl.doctor.known_warnings import recorded_warnings
from core_rl.types import Actions
from omni_rl.config import Blank
from omni_rl.data.record import Record
from omni_rl.doctor.media_arriving import Scene
from omni_rl.doctor.media_audit import AUDITED, Flaw, audit, check_sizes
from omni_rl.doctor.media_calls import MAKING, Recorder, recorded
from omni_rl.doctor.media_causes import CAUSES
from omni_rl.doctor.media_expected import Expected, expect
from omni_rl.doctor.media_probes import (
    MEDIA_HYPOTHESES,
    MOVED,
    PROBE_TOKENS,
    VALUES,
    Probe,
    draw,
    forbidden_drawn,
    movement,
    same_completions,
)
from omni_rl.policy.policy import OmniPolicy

# Kinds of media that bring the values of `VALUES`.
MEDIA_OF = {"video": {"video", "image"}, "audio": {"audio"}, "both": {"video", "image", "audio"}}


def probe_records(records: Sequence[Record], count: int = 2) -> list[Record]:
    """Choose the record with the most media, then others that share none with those chosen."""
    by_media = sorted(records, key=lambda record: -len(_media(record)))
    chosen = by_media[:1]
    for record in by_media[1:]:
        taken = {path for one in chosen for path in _media(one)}
        if len(chosen) < count and not taken & set(_media(record)):
            chosen.append(record)
    return chosen


def joined(one: Record, other: Record) -> Record:
    """Ask the first record's question about the clips of both."""
    return replace(one, id=f"{one.id}+{other.id}", videos=(*one.videos, *other.videos))


def gate(blank: Blank, engine: bool = False) -> Examine:
    """Make the check of a run's first step.

    Args:
        blank: media that are blanked on purpose.
        engine: candidates come from an inference engine, so check the requests to it.
    """

    def check(
        policy: OmniPolicy, records: Sequence[Record], temperature: float, limits: DoctorConfig
    ) -> list[Finding]:
        probe = Probe(
            temperature,
            limits.candidates,
            limits.max_new,
            blank=blank,
            completions=False,  # the first tokens are often the same for all media
        )
        found = examine(policy, records, probe)
        return found + (_requests(policy, records, blank) if engine else [])

    return check


def _requests(policy: OmniPolicy, records: Sequence[Record], blank: Blank) -> list[Finding]:
    """Check the request to an engine for each record."""
    from omni_rl.doctor.engine_checks import request_findings
    from omni_rl.policy.engine import ChatWriter  # needs httpx, as runs with an engine do

    media, write = policy.config.media, ChatWriter(policy.builder)
    return [
        one
        for record in records
        for one in request_findings(
            write(record, ()),
            expect(record, policy.processor, media, blank),
            media.use_audio_in_video,
        )
    ]


def examine(policy: OmniPolicy, records: Sequence[Record], probe: Probe) -> list[Finding]:
    """Check drawing, scoring, prompts and media of a policy on a few records.

    Args:
        policy: as in a training step; every flag is restored.
        records: one to three; with two, media that are exchanged between samples are found.
        probe: settings of the checks.

    Returns:
        Findings; media first, because other checks fail in consequence.
    """
    with recorded_warnings() as warned:
        few = min(probe.max_new, PROBE_TOKENS)
        found = media_findings(policy, records, replace(probe, max_new=few))
        try:
            found += check_policy(
                policy,
                records,
                candidates=probe.candidates,
                temperature=probe.temperature,
                max_new=probe.max_new,
                hypotheses=MEDIA_HYPOTHESES,
            )
        except Exception as error:  # a fault may raise anywhere; the table must still be printed
            found.append(_raised("parity/raised", error))
    return found + warned.findings()


def media_findings(policy: OmniPolicy, records: Sequence[Record], probe: Probe) -> list[Finding]:
    """Check inputs, effect and forbidden tokens of media; arguments as of `examine`."""
    media = policy.config.media
    batch = tuple(expect(record, policy.processor, media, probe.blank) for record in records)
    scene = Scene(policy.model, policy.processor, media, batch)
    actions, scored, error = None, None, None
    with training_mode(policy), limited(policy, probe.max_new), recorded(policy) as recorder:
        try:
            recorder.stage = "drawing"
            actions = draw(policy, records, probe)
            recorder.stage = "scoring"
            with torch.no_grad():
                scores = policy.log_probs(policy.encode(records), actions, probe.temperature)
                scored = scores.logp_BGT
        except Exception as raised:  # the calls recorded so far show the cause
            error = raised
    found = _audited(recorder, scene)
    if error is not None or actions is None or scored is None:
        assert error is not None
        return [*found, _raised("media/raised", error)]
    with training_mode(policy), limited(policy, probe.max_new):
        found += _ablated(policy, records, batch, actions, scored, probe)
        if probe.completions and any(row.items for row in batch):
            found.append(_completions(policy, records, actions, probe))
    found.append(_suppressed(policy, records[0], probe))
    return found


def _media(record: Record) -> list[Path]:
    return [*record.videos, *record.images, *record.audios]


def _audited(recorder: Recorder, scene: Scene) -> list[Finding]:
    """Make one finding of each check, from the earliest flaw in any call."""
    flaws: list[tuple[str, Flaw]] = [("", flaw) for flaw in check_sizes(scene)]
    flaws += [(call.stage, flaw) for call in recorder.calls for flaw in audit(call, scene)]
    if all(call.stage == MAKING for call in recorder.calls) and not flaws:
        return [_line(Flaw("media/reached", 0.0, "no_forward"), "")]
    found = []
    for check in AUDITED:
        mine = [(stage, flaw) for stage, flaw in flaws if flaw.check == check]
        if mine:
            stage, worst = mine[0]  # later ones follow from the earliest
            found.append(_line(worst, stage))
        else:
            found.append(Finding(check, 0.0, "= 0", Verdict.ok))
    return found


def _line(flaw: Flaw, stage: str) -> Finding:
    cause = CAUSES[flaw.cause]
    where = ", ".join(part for part in (f"while {stage}" if stage else "", flaw.detail) if part)
    says = f"{cause.says} ({where})" if where else cause.says
    return Finding(flaw.check, flaw.figure, "= 0", Verdict.fail, says, cause.cure)


def _ablated(
    policy: OmniPolicy,
    records: Sequence[Record],
    batch: Sequence[Expected],
    actions: Actions,
    scored_BGT: Tensor,
    probe: Probe,
) -> list[Finding]:
    """Check that log-probs change when media are replaced by noise."""
    found = []
    for kind, names in VALUES.items():
        sees = [any(item.kind in MEDIA_OF[kind] for item in row.items) for row in batch]
        check = f"media/{kind}_moves"
        if not any(sees):
            found.append(skipped(check, f"no {'media' if kind == 'both' else kind} in the records"))
            continue
        moved_B = movement(policy, records, actions, scored_BGT, names, probe)
        least = float(moved_B[torch.tensor(sees)].min())
        blind = CAUSES["blind"]
        found.append(finding(check, least, f"> {MOVED:g}", least > MOVED, blind.says, blind.cure))
    return found


def _completions(
    policy: OmniPolicy, records: Sequence[Record], actions: Actions, probe: Probe
) -> Finding:
    share = same_completions(policy, records, actions, probe)
    return finding(
        "media/completions_same",
        share,
        "< 1",
        share < 1,
        "the same seed draws the same completions from noise: media hardly matter yet",
        "compare with the blind baseline (data_mix.blank=all)",
        Verdict.warn,
    )


def _suppressed(policy: OmniPolicy, record: Record, probe: Probe) -> Finding:
    check, cause = "media/forbidden_drawn", CAUSES["sampled"]
    try:
        drawn = float(forbidden_drawn(policy, record, probe))
    except (RuntimeError, ValueError) as error:
        # The model may fail on a forbidden token; if all are suppressed it drew none.
        if policy.suppress_ids.numel():
            return skipped(check, f"drawing with raised logits raises {type(error).__name__}")
        drawn = 1.0
    return finding(check, drawn, "= 0", drawn == 0, cause.says, cause.cure)


def _raised(check: str, error: Exception) -> Finding:
    said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    cause = CAUSES["raised"]
    return Finding(check, None, "no error", Verdict.fail, f"{cause.says}: {said}", cause.cure)
