"""Made-up clips and records for the tests of prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from omni_rl.config import Blank, MediaConfig, OmniModelConfig, TinyConfig
from omni_rl.data.media import Clip
from omni_rl.data.record import Record
from omni_rl.policy.processor import Processor
from omni_rl.policy.prompts import PromptBuilder, fixed_texts
from omni_rl.policy.tiny import build_feature_extractor, build_tokenizer

SYSTEM = "Watch the people."

# name -> frames, height, width, frames a second, seconds of sound (0: none)
CLIPS = {
    "plain": (8, 56, 56, 8.0, 1.0),
    "silent": (4, 56, 84, 8.0, 0.0),
    "wide": (6, 56, 112, 8.0, 0.73),
    "tall": (2, 84, 28, 8.0, 1.3),
    "long": (10, 56, 56, 2.0, 5.0),
    "drifting": (6, 28, 56, 2.0, 6.9),
    "sparse": (6, 28, 28, 0.4, 13.0),
}


def clip(path: Path, config: MediaConfig | None = None) -> Clip:
    """Make the clip that `CLIPS` describes, the same one every time."""
    frames, height, width, fps, seconds = CLIPS[path.stem]
    rng = np.random.default_rng(list(CLIPS).index(path.stem))
    pixels = rng.integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
    wave = rng.normal(0, 0.1, round(16000 * seconds)).astype(np.float32)
    return Clip(pixels, fps, wave if seconds else None, path)


def record(*names: str, problem_type: str = "multiple choice", **changes: Any) -> Record:
    fields: dict[str, Any] = {
        "id": "-".join(names) or "text",
        "source": "social",
        "problem": "How does the voice sound?",
        "problem_type": problem_type,
        "options": ("A. calm", "B. cheerful", "C. angry"),
        "answer": "A",
        "solution": "",
        "data_type": "video",
        "videos": tuple(Path(f"{name}.mp4") for name in names),
        "images": (),
        "audios": (),
        "origin": "qa.json:7",
    }
    return Record(**(fields | changes))


def make_processor() -> Processor:
    corpus = fixed_texts(SYSTEM) * 20 + ["How does the voice sound?\nA. calm\nB. cheerful"] * 20
    config = TinyConfig()
    return Processor(build_tokenizer(corpus, 500), build_feature_extractor(config))


def builder(processor: Processor, together: bool = False, **changes: Any) -> PromptBuilder:
    """Make a builder; `together` interleaves video and sound."""
    blank = changes.pop("blank", Blank.none)
    media = MediaConfig(min_pixels=784, use_audio_in_video=together)
    config = OmniModelConfig(media=media, system_prompt=SYSTEM, **changes)
    return PromptBuilder(processor, config, blank=blank, load=clip)


MIXED = [record("plain"), record("silent", problem_type="numerical"), record("wide", "tall")]
