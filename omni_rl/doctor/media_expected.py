"""Content of a record's files, prepared independently of the prompt builder.

The doctor compares the model's inputs with it.  To repeat no fault of the prompt builder, files are
decoded without the cache, patches are turned back into pixels, and each sound goes through the
feature extractor by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from omni_rl.config import Blank, MediaConfig
from omni_rl.data.containers import read_audio, read_image, read_video
from omni_rl.data.record import Record
from omni_rl.policy.patches import Grid, PatchSpec
from omni_rl.policy.processor import Processor

KINDS = ("video", "image", "audio")


@dataclass(frozen=True, eq=False)
class Item:
    """One video, picture or sound, read from its file.

    Attributes:
        kind: among `KINDS`.
        path: the file.
        frames_THWC: uint8 RGB of a video or a picture.
        mel_MF: log-mel features of a sound, without padding.
        seconds: between two temporal patches of a video.
    """

    kind: str
    path: Path
    frames_THWC: np.ndarray | None = None
    mel_MF: Tensor | None = None
    seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class Expected:
    """The media that one row of a batch must have."""

    record: Record
    items: tuple[Item, ...]

    def of(self, kind: str) -> list[Item]:
        """List the items of one kind in the order of the record."""
        return [item for item in self.items if item.kind == kind]


def expect(record: Record, processor: Processor, config: MediaConfig, blank: Blank) -> Expected:
    """Read a record's files.

    Args:
        record: one record.
        processor: its mel front end and patch sizes.
        config: how clips become frames and sound.
        blank: media that are blanked on purpose: black or silent here as well.
    """
    dark, mute = blank in (Blank.video, Blank.all), blank in (Blank.audio, Blank.all)
    items: list[Item] = []

    def see(kind: str, path: Path, frames_THWC: np.ndarray, seconds: float = 0.0) -> None:
        shown = np.zeros_like(frames_THWC) if dark else frames_THWC
        items.append(Item(kind, path, frames_THWC=shown, seconds=seconds))

    def hear(path: Path, waveform_S: np.ndarray) -> None:
        heard = np.zeros_like(waveform_S) if mute else waveform_S
        items.append(Item("audio", path, mel_MF=_mel(heard, processor)))

    for path in record.videos:
        frames_THWC, fps, waveform_S = read_video(path, config)
        see("video", path, frames_THWC, processor.patches.temporal / fps)
        if waveform_S is None and config.use_audio_in_video:
            waveform_S = np.zeros(round(len(frames_THWC) / fps * config.sample_rate), np.float32)
        if waveform_S is not None:
            hear(path, waveform_S)
    for path in record.images:
        see("image", path, read_image(path, config)[None])
    for path in record.audios:
        hear(path, read_audio(path, config))
    return Expected(record, tuple(items))


def _mel(waveform_S: np.ndarray, processor: Processor) -> Tensor:
    """Compute log-mel features padded to the extractor's full length, and cut them back."""
    extractor = processor.feature_extractor
    with torch.autocast("cpu", enabled=False):  # as inputs are made for the model
        out = extractor(
            waveform_S[: extractor.n_samples],
            sampling_rate=extractor.sampling_rate,
            padding="max_length",
            return_attention_mask=True,
            return_tensors="pt",
        )
    mask = torch.as_tensor(out["attention_mask"])[0].bool()
    features: Tensor = out["input_features"][0]
    return features[:, mask]


def pixels(rows: Tensor, grid: Grid, spec: PatchSpec) -> Tensor:
    """Turn patch rows back into frames_THWC, RGB in [0, 1]: inverts `policy.patches`."""
    steps, height, width = grid
    merge, channels = spec.merge, len(spec.mean)
    blocks = rows.float().reshape(
        steps,
        height // merge,
        width // merge,
        merge,
        merge,
        channels,
        spec.temporal,
        spec.patch,
        spec.patch,
    )
    # To (step, frame, block row, row, y, block column, column, x, channel).
    frames = blocks.permute(0, 6, 1, 3, 7, 2, 4, 8, 5).reshape(
        steps * spec.temporal, height * spec.patch, width * spec.patch, channels
    )
    mean, std = (torch.tensor(values, device=rows.device) for values in (spec.mean, spec.std))
    return frames * std + mean


def pixel_distance(frames_THWC: Tensor, item: Item) -> float:
    """Mean absolute difference, full scale 1, from a file's frames; inf for another shape."""
    assert item.frames_THWC is not None
    stored = torch.from_numpy(np.array(item.frames_THWC)).float() / 255
    if len(stored) % 2:  # an odd last frame is repeated
        stored = torch.cat([stored, stored[-1:]])
    if frames_THWC.shape != stored.shape:
        return float("inf")
    return float((frames_THWC.cpu() - stored).abs().mean())


def mel_distance(mel_MF: Tensor, item: Item) -> float:
    """Mean absolute difference from a file's log-mel features; inf for another shape."""
    assert item.mel_MF is not None
    if mel_MF.shape != item.mel_MF.shape:
        return float("inf")
    return float((mel_MF.float().cpu() - item.mel_MF).abs().mean())


def flat(rows: Sequence[Expected], kind: str) -> list[tuple[int, Item]]:
    """List (row, item) of one kind over a batch, in the order of their features."""
    return [(index, item) for index, row in enumerate(rows) for item in row.of(kind)]
