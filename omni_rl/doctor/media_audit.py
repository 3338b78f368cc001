"""Checks of one forward against the files that its records name.

Each check compares two things that must be equal: placeholders and features, features and files,
the flag in prompt and forward, embeddings and outputs of the towers.  The way in which they differ
tells the cause.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from omni_rl.doctor.media_arriving import (
    TOKENS,
    Scene,
    arriving_at,
    distance,
    rope,
    tokens_of,
)
from omni_rl.doctor.media_calls import Call, thinker_of
from omni_rl.doctor.media_expected import Expected, flat
from omni_rl.policy.patches import PatchSpec

SAME_PIXELS = 0.004  # mean difference, full scale 1: a level, with bf16's rounding
SAME_MEL = 0.01
PUBLISHED = PatchSpec()  # of every Qwen2.5-Omni checkpoint
SAME_EMBEDDING = 0.02  # relative, with bf16's rounding


@dataclass(frozen=True)
class Flaw:
    """A difference that must not be.

    Attributes:
        check: name of the finding it belongs to.
        figure: size of the difference.
        cause: a key of `omni_rl.doctor.media_causes.CAUSES`.
        detail: place of it, for the message.
    """

    check: str
    figure: float
    cause: str
    detail: str = ""


# Every name a flaw can have, deepest causes first.
AUDITED = (
    "media/sizes",
    "media/own_prompt",
    "media/hidden",
    "media/spans",
    "media/video_items",
    "media/image_items",
    "media/audio_items",
    "media/video_tokens",
    "media/image_tokens",
    "media/audio_tokens",
    "media/video_content",
    "media/image_content",
    "media/audio_content",
    "media/flag",
    "media/timing",
    "media/positions",
    "media/video_tower",
    "media/audio_tower",
)
Check = Callable[[Call, Sequence[Expected], Scene], list[Flaw]]


def check_rows(call: Call, rows: Sequence[Expected], scene: Scene) -> list[Flaw]:
    """Every row has the question of its own record."""
    decode = scene.processor.tokenizer.decode
    texts = [decode(ids[mask]) for ids, mask in zip(call.ids, call.mask, strict=True)]
    flaws = []
    for index, (text, row) in enumerate(zip(texts, rows, strict=False)):
        if row.record.problem in text:
            continue
        others = [other for other in scene.everyone if other.record.problem in text]
        cause = "own_prompt" if others else "question_lost"
        flaws.append(Flaw("media/own_prompt", 1.0, cause, f"row {index}"))
    return flaws


def check_spans(call: Call, rows: Sequence[Expected], scene: Scene) -> list[Flaw]:
    """Every span of media tokens is opened, closed, and as long as its file requires."""
    flaws = []
    start = scene.id_of("<|im_start|>")
    for index, row in enumerate(rows):
        kept = call.mask[index] | torch.isin(call.ids[index], scene.media_ids(call))
        ids = call.ids[index][kept]
        torn = int(ids[0]) != start  # a chat begins with a turn
        for name, kinds in (("vision", ("video", "image")), ("audio", ("audio",))):
            opened = int((ids == scene.id_of(f"<|{name}_bos|>")).sum())
            closed = int((ids == scene.id_of(f"<|{name}_eos|>")).sum())
            wanted = sum(len(row.of(kind)) for kind in kinds)
            torn |= opened != closed or opened == wanted
        lost = 0
        for kind, token in TOKENS.items():
            tokens = sum(tokens_of(item, scene) for item in row.of(kind))
            lost += max(0, tokens - int((ids == scene.id_of(token)).sum()))
        if lost and torn:
            flaws.append(Flaw("media/spans", float(lost), "cut_span", f"row {index}"))
    return flaws


def check_hidden(call: Call, rows: Sequence[Expected], scene: Scene) -> list[Flaw]:
    """No media token is masked out of attention."""
    hidden = int((torch.isin(call.ids, scene.media_ids(call)) & ~call.mask).sum())
    return [Flaw("media/hidden", float(hidden), "hidden")] if hidden else []


def check_items(call: Call, rows: Sequence[Expected], scene: Scene) -> list[Flaw]:
    """The numbers of videos, pictures and sounds are those of the records."""
    flaws = []
    for kind in TOKENS:
        found, wanted = len(arriving_at(call, kind, scene)), len(flat(rows, kind))
        if found == wanted:
            continue
        cause = f"{kind}_missing" if found < wanted else f"{kind}_added"
        if kind == "audio" and found >= 2 * wanted > 0:
            cause = "audio_twice"
        detail = f"{found} for {wanted}"
        flaws.append(Flaw(f"media/{kind}_items", float(abs(found - wanted)), cause, detail))
    return flaws


def check_tokens(call: Call, rows: Sequence[Expected], scene: Scene) -> list[Flaw]:
    """The number of placeholder tokens is the number of features."""
    flaws = []
    for kind, token in TOKENS.items():
        placeholders = int((call.ids == scene.id_of(token)).sum())
        arriving = sum(one.tokens for one in arriving_at(call, kind, scene))
        if placeholders != arriving:
            off = float(abs(placeholders - arriving))
            cause = f"{kind}_missing" if arriving == 0 else "counts_differ"
            detail = f"{placeholders} {token} for {arriving} features"
            flaws.append(Flaw(f"media/{kind}_tokens", off, cause, detail))
    return flaws


def check_content(call: Call, rows: Sequence[Expected], scene: Scene) -> list[Flaw]:
    """The features of each row are those of its own files, in their order."""
    flaws = []
    for kind in TOKENS:
        limit = SAME_MEL if kind == "audio" else SAME_PIXELS
        for one, (index, item) in zip(
            arriving_at(call, kind, scene), flat(rows, kind), strict=False
        ):
            own = distance(one.values, item)
            if own <= limit:
                continue
            home = [
                row
                for row in scene.everyone
                for other in row.of(kind)
                if other is not item and distance(one.values, other) <= limit
            ]
            cause = _stray(rows, rows[index], home, kind)
            flaws.append(Flaw(f"media/{kind}_content", min(own, 1e3), cause, f"row {index}"))
    return flaws


def _stray(rows: Sequence[Expected], own: Expected, home: Sequence[Expected], kind: str) -> str:
    """Name the cause of features that belong elsewhere."""
    if not home:
        return "foreign_features"
    if rows.count(own) > 1 and len(own.of(kind)) > 1:
        return "candidates_scrambled"
    return "media_order" if own in home else "other_sample"


def check_flag(call: Call, rows: Sequence[Expected], scene: Scene) -> list[Flaw]:
    """The flag `use_audio_in_video` is the configured one."""
    if not any(row.of("video") and row.of("audio") for row in rows):
        return []
    given = bool(call.inputs.get("use_audio_in_video"))
    if given == scene.media.use_audio_in_video:
        return []
    return [Flaw("media/flag", 1.0, "flag", f"use_audio_in_video={given}")]


def check_timing(call: Call, rows: Sequence[Expected], scene: Scene) -> list[Flaw]:
    """Seconds between frames are those of the file, rotary positions those of the model."""
    flaws = []
    wanted = [item.seconds for _, item in flat(rows, "video")]
    given = call.get("video_second_per_grid")
    if given is not None and len(given) == len(wanted):
        off = float((given.double().cpu() - torch.tensor(wanted).double()).abs().max())
        if off > 1e-3 * max(wanted):
            flaws.append(Flaw("media/timing", off, "timing"))
    positions = call.get("position_ids")
    if positions is None or positions.ndim != 3 or flaws:
        return flaws
    own = rope(call, scene, scene.media.use_audio_in_video)
    mask = call.mask
    off = float((positions[-3:] - own)[:, mask].abs().max())
    if off > 0:
        flipped = rope(call, scene, not scene.media.use_audio_in_video)
        is_flag = bool((positions[-3:] == flipped)[:, mask].all())
        flaws.append(Flaw("media/positions", off, "flag" if is_flag else "positions"))
    return flaws


def check_scatter(call: Call, rows: Sequence[Expected], scene: Scene) -> list[Flaw]:
    """The embeddings at the placeholders are the outputs of the towers, in order."""
    flaws: list[Flaw] = []
    if call.embeds_NPD is None:
        return flaws
    seen = {"video": [TOKENS["video"], TOKENS["image"]], "audio": [TOKENS["audio"]]}
    for kind, tokens in seen.items():
        wanted_ids = torch.tensor([scene.id_of(token) for token in tokens])
        at = torch.isin(call.ids, wanted_ids.to(call.ids.device))
        if not at.any():
            continue
        said = call.towers.get(kind, [])
        if kind == "video":
            said = [*said, *call.encoded_before("image"), *call.encoded_before("video")]
        if not said:
            flaws.append(Flaw(f"media/{kind}_tower", 1.0, f"{kind}_dropped", "tower never ran"))
            continue
        joined = torch.cat([part.reshape(-1, part.shape[-1]) for part in said]).to(call.ids.device)
        standing = call.embeds_NPD[at]
        if joined.shape != standing.shape:
            flaws.append(Flaw(f"media/{kind}_tower", 1.0, "counts_differ"))
            continue
        if (
            any(row.of("image") for row in rows) and kind == "video"
        ):  # pictures and videos: the order of placeholders is another one
            joined, standing = (_sorted(rows_ND) for rows_ND in (joined, standing))
        scale = float(joined.float().abs().mean()) or 1.0
        off = float((joined.float() - standing.float()).abs().mean()) / scale
        if not off <= SAME_EMBEDDING:
            flaws.append(Flaw(f"media/{kind}_tower", off, "scattered"))
    return flaws


def check_sizes(scene: Scene) -> list[Flaw]:
    """Patch sizes, mel bins and normalisation of the processor are those of the model."""
    config = thinker_of(scene.model).config
    spec, extractor = scene.processor.patches, scene.processor.feature_extractor
    vision, audio = config.vision_config, config.audio_config
    pairs = {
        "patch": (spec.patch, vision.patch_size),
        "merge": (spec.merge, vision.spatial_merge_size),
        "temporal": (spec.temporal, vision.temporal_patch_size),
        "mel bins": (extractor.feature_size, audio.num_mel_bins),
        "sample rate": (scene.media.sample_rate, extractor.sampling_rate),
        "colour mean": (_rounded(spec.mean), _rounded(PUBLISHED.mean)),
        "colour deviation": (_rounded(spec.std), _rounded(PUBLISHED.std)),
    }
    off = [f"{name} {ours} for {its}" for name, (ours, its) in pairs.items() if ours != its]
    return [Flaw("media/sizes", float(len(off)), "sizes", ", ".join(off))] if off else []


CHECKS: tuple[Check, ...] = (
    check_rows,
    check_hidden,
    check_spans,
    check_items,
    check_tokens,
    check_content,
    check_flag,
    check_timing,
    check_scatter,
)


def audit(call: Call, scene: Scene) -> list[Flaw]:
    """Run every check on one call."""
    by_record = {id(row.record): row for row in scene.everyone}
    rows = [by_record[id(query)] for query in call.queries]
    return [flaw for check in CHECKS for flaw in check(call, rows, scene)]


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 4) for value in values]


def _sorted(rows_ND: Tensor) -> Tensor:
    return rows_ND[rows_ND.float().sum(-1).argsort()]
