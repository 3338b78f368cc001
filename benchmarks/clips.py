"""Clips of any length, and the embedded thinker that watches and hears them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from omni_rl.config import MediaConfig, OmniModelConfig
from omni_rl.data.media import write_clip
from omni_rl.data.record import Record
from omni_rl.policy.policy import OmniPolicy, untrained_policy

FPS, RATE, SIDE = 4.0, 16000, 112


def omni_policy(completion: int, together: bool) -> OmniPolicy:
    """Fresh weights; no completion ends before the limit."""
    media = MediaConfig(
        fps=2.0, max_frames=64, min_pixels=3136, max_pixels=12544, use_audio_in_video=together
    )
    config = OmniModelConfig(media=media, max_prompt=4096, max_completion=completion)
    policy = untrained_policy(config, seed=0)
    policy.suppress_ids = policy.suppress_ids.new_tensor(
        sorted({*policy.suppress_ids.tolist(), *policy.stop_ids.tolist()})
    )
    return policy


def clip_records(folder: Path, seconds: float, count: int = 4) -> list[Record]:
    """Write clips of a moving square with a rising tone; a question about each."""
    return [
        Record(
            id=f"clip-{index}",
            source="benchmark",
            problem="What does the square do, and what is heard?",
            problem_type="free-form",
            options=(),
            answer="it falls",
            solution="<answer>it falls</answer>",
            data_type="video",
            videos=(_clip(folder / f"{seconds:g}-{index}.mp4", seconds, index),),
            images=(),
            audios=(),
        )
        for index in range(count)
    ]


def _clip(path: Path, seconds: float, seed: int) -> Path:
    if path.exists():
        return path
    frames = round(seconds * FPS)
    picture = np.full((frames, SIDE, SIDE, 3), 100 + 20 * seed, np.uint8)
    for t in range(frames):
        top = (SIDE - 40) * t // max(1, frames - 1)
        picture[t, top : top + 40, 30:70] = (220, 20, 20)
    time = np.arange(round(seconds * RATE)) / RATE
    tone = 0.3 * np.sin(2 * np.pi * (200 + 50 * seed) * time * (1 + time / (2 * seconds)))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_clip(path, picture, FPS, tone.astype(np.float32))
    return path
