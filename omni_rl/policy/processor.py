"""The processor of a checkpoint: tokenizer, mel front end and patch sizes."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import TemplateError
from torch import Tensor
from transformers import (
    AutoTokenizer,
    PreTrainedTokenizerBase,
    WhisperFeatureExtractor,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.utils import cached_file

from omni_rl.policy.patches import PatchSpec
from omni_rl.policy.placeholders import PLACEHOLDERS
from omni_rl.policy.tiny import CHAT_TEMPLATE

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Processor:
    """Tokenizer, mel front end and patch sizes.

    `source` is the folder they were read from; None for one that was built here.
    """

    tokenizer: PreTrainedTokenizerBase
    feature_extractor: WhisperFeatureExtractor
    patches: PatchSpec = PatchSpec()
    source: Path | None = None


# Files of a processor; of a checkpoint that has them they are copied as they are.
OWN_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "added_tokens.json"),
    *("special_tokens_map.json", "chat_template.json", "chat_template.jinja"),
    *("preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json"),
)


def load_processor(path: str) -> Processor:
    """Load the parts from a local folder or a hub id.

    A chat template without media items (some folders store it elsewhere) is replaced by ours, which
    formats turns as Qwen2.5-Omni does.

    Raises:
        ValueError: the tokenizer lacks Qwen2.5-Omni's media tokens.
    """
    tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left")
    missing = sorted(set(PLACEHOLDERS.values()) - set(tokenizer.get_vocab()))
    if missing:
        raise ValueError(f"{path}: its tokenizer lacks {missing}; is it a Qwen2.5-Omni checkpoint?")
    if not _renders_media(tokenizer):
        log.info("%s: its chat template has no media items; using the built-in one", path)
        tokenizer.chat_template = CHAT_TEMPLATE
    return Processor(
        tokenizer,
        WhisperFeatureExtractor.from_pretrained(path),
        PatchSpec.of(Qwen2VLImageProcessorPil.from_pretrained(path)),
        _folder_of(path),
    )


def _folder_of(path: str) -> Path | None:
    """Return the folder of a checkpoint: the path itself, or its snapshot in the hub's cache."""
    if Path(path).is_dir():
        return Path(path)
    known = cached_file(path, "preprocessor_config.json")
    return Path(known).parent if known else None


def save_processor(processor: Processor, folder: Path) -> None:
    """Write the parts so that `load_processor` and `Qwen2_5OmniProcessor` can read `folder`.

    Files that the start had are copied byte for byte: a newer library writes some of them in a form
    that an older one does not read.
    """
    source = processor.source
    if source is not None and (source / "preprocessor_config.json").is_file():
        for name in OWN_FILES:
            if (source / name).is_file() and source.resolve() != folder.resolve():
                (folder / name).write_bytes((source / name).read_bytes())
        return
    processor.tokenizer.save_pretrained(folder)
    spec = processor.patches
    images = Qwen2VLImageProcessorPil(
        patch_size=spec.patch,
        merge_size=spec.merge,
        temporal_patch_size=spec.temporal,
        image_mean=list(spec.mean),
        image_std=list(spec.std),
    ).to_dict()
    images["image_processor_type"] = "Qwen2VLImageProcessor"
    videos = {**images, "video_processor_type": "Qwen2VLVideoProcessor"}
    for name in ("image_processor_type", "size"):
        videos.pop(name)
    files = {
        # One file for pictures and sound, as in the published checkpoints.
        "preprocessor_config.json": {
            **images,
            **processor.feature_extractor.to_dict(),
            "processor_class": "Qwen2_5OmniProcessor",
        },
        "video_preprocessor_config.json": videos,
    }
    for name, values in files.items():
        (folder / name).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _renders_media(tokenizer: PreTrainedTokenizerBase) -> bool:
    if tokenizer.chat_template is None:
        return False
    content = [{"type": kind, kind: ""} for kind in PLACEHOLDERS]
    chat: Any = [{"role": "user", "content": content}]
    try:
        text = tokenizer.apply_chat_template(chat, tokenize=False)
    except (TypeError, TemplateError):  # a template for plain text adds the list to a string
        return False
    return all(token in text for token in PLACEHOLDERS.values())


def mel_features(
    waveforms: Sequence[np.ndarray], extractor: WhisperFeatureExtractor
) -> tuple[Tensor, Tensor]:
    """Compute log-mel features of sounds, padded to the longest.

    Padding to the extractor's full length (300 seconds in Qwen2.5-Omni) would only add frames that
    the mask removes.  With padding of one window the last real frames are the same.

    Args:
        waveforms: float32 mono at the extractor's rate; cut to its full length.
        extractor: the mel front end.

    Returns:
        Features [N, mel bins, frames] and their mask [N, frames], 1 on real frames.
    """
    longest = max(map(len, waveforms)) + extractor.n_fft
    hop = extractor.hop_length
    out = extractor(
        [wave[: extractor.n_samples] for wave in waveforms],
        sampling_rate=extractor.sampling_rate,
        padding="max_length",
        max_length=min(-(-longest // hop) * hop, extractor.n_samples),
        truncation=True,
        return_attention_mask=True,
        return_tensors="pt",
    )
    return out["input_features"], torch.as_tensor(out["attention_mask"])
