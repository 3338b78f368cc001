"""Conversion of records to thinker inputs, for training, evaluation and demo alike.

A prompt is a system turn and a user turn of media items and text.  The chat template renders one
placeholder for each item.  It is expanded to as many tokens as the item has features, and both are
counted here, because the model does not notice a mismatch between items.

With `use_audio_in_video` off, a clip's sound is an item of its own after the video (as HumanOmniV2
was trained).  With it on, the two alternate in chunks of 2 seconds inside the video, and a clip
without sound gets silence, since the thinker's rotary positions require sound there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from omni_rl.config import Blank, MediaConfig, OmniModelConfig
from omni_rl.data.media import Clip, load_audio, load_clip, load_image
from omni_rl.data.record import CHOICE_TYPES, Record
from omni_rl.policy.patches import Grid, patchify
from omni_rl.policy.placeholders import (
    AUDIO,
    IMAGE,
    PLACEHOLDERS,
    VIDEO,
    expand,
    interleave,
    num_audio_tokens,
)
from omni_rl.policy.processor import Processor, mel_features
from omni_rl.policy.tiny import token_id

log = logging.getLogger(__name__)

Message = dict[str, Any]
Batch = dict[str, Any]  # keyword arguments of the thinker's forward

TURN_END = "<|im_end|>"
INSTRUCTIONS = {
    "multiple choice": "Answer with the letter of the right option.",
    "numerical": "Answer with a number.",
    "OCR": "Answer with the text exactly as it is written.",
    "free-form": "Answer in your own words.",
    "regression": "Answer with a number.",
    "emer_ov": "Answer with words for the feelings, separated by commas.",
    "emer_ov_mc": "Answer with the letters of all right options, like A or A,E.",
    "judge": "Answer with Yes or No.",
    "instruction": "",  # the question itself says what to do
}


@dataclass(frozen=True)
class Item:
    """One media item of a prompt.

    Attributes:
        kind: video, audio or image.
        path: the file.
        frames_THWC: of a video or a picture.
        waveform_S: of a sound, or of a video with interleaved sound.
        fps: of a video.
        described: its name in the first line of the question; empty for a clip's own sound.
    """

    kind: str
    path: Path
    frames_THWC: np.ndarray | None = None
    waveform_S: np.ndarray | None = None
    fps: float = 0.0
    described: str = ""


@dataclass(frozen=True)
class _Encoded:
    """Features and placeholders of one item."""

    kind: str
    layout: str
    patches: Tensor | None = None
    grid: Grid | None = None
    seconds_per_grid: float = 0.0
    waveform_S: np.ndarray | None = None


class PromptBuilder:
    """Turn records into a left-padded batch for the thinker.

    Args:
        processor: tokenizer, mel front end and patch sizes.
        config: media settings, system prompt and prompt limit.
        blank: media that are replaced by black frames or silence of the same shape.
        load: decodes a clip.
    """

    def __init__(
        self,
        processor: Processor,
        config: OmniModelConfig,
        *,
        blank: Blank = Blank.none,
        load: Callable[[Path, MediaConfig], Clip] = load_clip,
    ) -> None:
        self.tokenizer = processor.tokenizer
        self.feature_extractor = processor.feature_extractor
        self.patches = processor.patches
        self.config = config
        self.blank = blank
        self._load = load
        self._cut: set[Path] = set()  # sounds already warned about

    def conversation(self, record: Record) -> list[Message]:
        """Return the chat messages of a record; media items name their files."""
        return self._conversation(record, self.items(record))

    def question(self, record: Record) -> str:
        """Return the text of the user turn."""
        return _question(record, self.items(record))

    def __call__(self, records: Sequence[Record]) -> Batch:
        """Encode records as keyword arguments of the thinker's forward.

        Returns:
            `input_ids` and `attention_mask` [B, P]; for the media that occur `pixel_values_videos`,
            `video_grid_thw`, `video_second_per_grid`, `pixel_values`, `image_grid_thw`,
            `input_features` and `feature_attention_mask`; `use_audio_in_video`, always.

        Raises:
            ValueError: placeholders and features of a record disagree, its prompt is longer than
                `max_prompt` (media are never cut), or its problem type is unknown.
        """
        items = [self.items(record) for record in records]
        chats = [self._conversation(*pair) for pair in zip(records, items, strict=True)]
        texts = self.tokenizer.apply_chat_template(
            chats, tokenize=False, add_generation_prompt=True
        )
        encoded = [
            [self._encode(record, item) for item in its]
            for record, its in zip(records, items, strict=True)
        ]
        ids = [self._tokens(*row) for row in zip(records, texts, encoded, strict=True)]
        batch: Batch = dict(
            self.tokenizer.pad({"input_ids": ids}, padding_side="left", return_tensors="pt")
        )
        batch |= self._features([item for row in encoded for item in row])
        batch["use_audio_in_video"] = self.config.media.use_audio_in_video
        return batch

    def items(self, record: Record) -> list[Item]:
        """Load a record's media in the order of the prompt."""
        doubled = sorted({str(path) for path in record.audios} & {str(p) for p in record.videos})
        if doubled:
            raise ValueError(
                f"{record.where} lists {doubled} under videos and audios; "
                "the sound of a clip is read from the clip, so leave it out of audios"
            )
        items = [item for path in record.videos for item in self._clip_items(path)]
        media = self.config.media
        for path in record.images:
            frames = load_image(path, media)[None]
            items.append(Item("image", path, frames, described="a picture"))
        for path in record.audios:
            wave = load_audio(path, media)
            items.append(Item("audio", path, waveform_S=wave, described="a sound"))
        return [self._blanked(item) for item in items]

    def _clip_items(self, path: Path) -> list[Item]:
        media = self.config.media
        clip = self._load(path, media)
        wave = clip.waveform_S
        if wave is not None and not self._is_heard(wave):
            log.warning("%s: its sound is shorter than a token and is left out", path)
            wave = None
        described = "a video" if wave is None else "a video with its sound"
        video = Item("video", path, clip.frames_THWC, fps=clip.fps, described=described)
        if media.use_audio_in_video:
            if wave is None:
                seconds = len(clip.frames_THWC) / clip.fps
                wave = np.zeros(round(seconds * media.sample_rate), dtype=np.float32)
            return [replace(video, waveform_S=wave)]
        if wave is None:
            return [video]
        return [video, Item("audio", path, waveform_S=wave)]

    def _is_heard(self, waveform_S: np.ndarray) -> bool:
        return num_audio_tokens(-(-len(waveform_S) // self.feature_extractor.hop_length)) >= 1

    def _blanked(self, item: Item) -> Item:
        frames, wave = item.frames_THWC, item.waveform_S
        if frames is not None and self.blank in (Blank.video, Blank.all):
            frames = np.zeros_like(frames)
        if wave is not None and self.blank in (Blank.audio, Blank.all):
            wave = np.zeros_like(wave)
        return replace(item, frames_THWC=frames, waveform_S=wave)

    def _conversation(self, record: Record, items: Sequence[Item]) -> list[Message]:
        content: list[Message] = [{"type": item.kind, item.kind: str(item.path)} for item in items]
        content.append({"type": "text", "text": _question(record, items)})
        return [
            {"role": "system", "content": self.config.system_prompt},
            {"role": "user", "content": content},
        ]

    def _encode(self, record: Record, item: Item) -> _Encoded:
        """Compute the patches and the number of tokens of one item."""
        if item.frames_THWC is None:
            assert item.waveform_S is not None
            tokens = self._audio_tokens(record, item)
            return _Encoded("audio", AUDIO * tokens, waveform_S=item.waveform_S)
        patches, grid = patchify(item.frames_THWC, self.patches)
        tokens = self.patches.num_tokens(grid)
        if item.kind == "image":
            return _Encoded("image", IMAGE * tokens, patches, grid)
        seconds = self.patches.temporal / item.fps
        layout = VIDEO * tokens
        if item.waveform_S is not None:
            audio = self._audio_tokens(record, item)
            layout = interleave(grid[0], tokens // grid[0], seconds, audio)
        return _Encoded("video", layout, patches, grid, seconds, item.waveform_S)

    def _audio_tokens(self, record: Record, item: Item) -> int:
        assert item.waveform_S is not None
        extractor = self.feature_extractor
        samples = len(item.waveform_S)
        if samples > extractor.n_samples and item.path not in self._cut:
            self._cut.add(item.path)
            log.warning(
                "%s: the sound is %.1f s long; only the first %g s are heard",
                item.path,
                samples / extractor.sampling_rate,
                extractor.n_samples / extractor.sampling_rate,
            )
        frames = -(-min(samples, extractor.n_samples) // extractor.hop_length)
        tokens = num_audio_tokens(frames)
        if tokens < 1:
            raise ValueError(
                f"{record.where}: the sound of {item.path} has {samples} "
                "samples, less than one token's worth (about 0.02 s); leave it out"
            )
        return tokens

    def _tokens(self, record: Record, text: str, items: Sequence[_Encoded]) -> list[int]:
        """Expand the placeholders of one rendered prompt, tokenize it and check the counts."""
        name = record.where
        layouts = {k: [item.layout for item in items if item.kind == k] for k in PLACEHOLDERS}
        try:
            ids: list[int] = self.tokenizer(expand(text, layouts))["input_ids"]
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        for token in PLACEHOLDERS.values():
            found = ids.count(token_id(self.tokenizer, token))
            features = sum(item.layout.count(token) for item in items)
            if found != features:
                raise ValueError(f"{name}: {found} {token} tokens for {features} features")
        if len(ids) > self.config.max_prompt:
            raise ValueError(
                f"{name}: its prompt has {len(ids)} tokens, above max_prompt="
                f"{self.config.max_prompt}; raise it, or lower media.max_frames, media.max_pixels, "
                "media.max_picture_pixels or media.max_sound"
            )
        return ids

    def _features(self, items: Sequence[_Encoded]) -> Batch:
        """Stack the features of a batch in the order of their placeholders."""
        batch: Batch = {}
        for kind, values, grids in (
            ("video", "pixel_values_videos", "video_grid_thw"),
            ("image", "pixel_values", "image_grid_thw"),
        ):
            chosen = [item for item in items if item.kind == kind]
            if chosen:
                batch[values] = torch.cat(
                    [item.patches for item in chosen if item.patches is not None]
                )
                batch[grids] = torch.tensor([item.grid for item in chosen])
            if chosen and kind == "video":
                seconds = [item.seconds_per_grid for item in chosen]
                batch["video_second_per_grid"] = torch.tensor(seconds)
        waveforms = [item.waveform_S for item in items if item.waveform_S is not None]
        if waveforms:
            features, mask = mel_features(waveforms, self.feature_extractor)
            batch |= {"input_features": features, "feature_attention_mask": mask}
        return batch


def _question(record: Record, items: Sequence[Item]) -> str:
    """Write the text of the user turn: the media, the question, the form of the answer."""
    if record.problem_type not in INSTRUCTIONS:
        raise ValueError(
            f"{record.where} has problem_type {record.problem_type!r}; "
            f"expected one of {sorted(INSTRUCTIONS)}"
        )
    shown = [item.described for item in items if item.described]
    lines = [f"Here is {' and '.join(shown)}."] if shown else []
    if record.problem_type in CHOICE_TYPES:
        lines += [f"{record.problem} Options:", *record.options]
    else:
        lines.append(record.problem)
    if instruction := INSTRUCTIONS[record.problem_type]:
        lines.append(instruction)
    return "\n".join(lines)


def fixed_texts(system_prompt: str) -> list[str]:
    """List the texts that every prompt repeats, for the corpus of a small tokenizer."""
    shown = ("Here is a video with its sound.", "Here is a video.", "Here is a picture.")
    turns = "system\nuser\nassistant\nOptions:"
    return [system_prompt, turns, *shown, *(text for text in INSTRUCTIONS.values() if text)]


def stop_token_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """List the ids that end a completion: the end of the turn and the end of the text."""
    turn = tokenizer.get_vocab().get(TURN_END, tokenizer.eos_token_id)
    return sorted({tokenizer.eos_token_id, turn, token_id(tokenizer, "<|endoftext|>")})


def suppressed_token_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """List the ids that must never be sampled: every special token that does not end a completion.

    A placeholder in a completion makes the next forward fail, or takes features of an item.
    """
    added = tokenizer.added_tokens_decoder.items()
    special = {index for index, token in added if token.special}
    return sorted((special | set(tokenizer.all_special_ids)) - set(stop_token_ids(tokenizer)))
