"""Requests to an inference engine: chat messages that contain the media of a record.

They contain the frames and sounds that the policy gets.  Where sound and video are interleaved they
contain the file instead, because the engine takes the sound from it.
"""

from __future__ import annotations

import base64
import io
import wave
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from core_rl.config import EngineKind, RolloutConfig
from core_rl.loop.module import FreshSampler
from core_rl.servers.rollout_engine import Chat, EngineSampler
from core_rl.types import Sampler
from omni_rl.data.record import Record
from omni_rl.policy.policy import OmniPolicy
from omni_rl.policy.prompts import Item, PromptBuilder


def build_sampler(policy: OmniPolicy, rollout: RolloutConfig) -> Sampler:
    """Build the sampler of candidates: the policy, or the engine that `rollout.engine` names."""
    if rollout.engine.kind is EngineKind.policy:
        return FreshSampler(rollout.num_generations)
    from core_rl.servers.vllm import VLLMServer  # needs httpx

    writer = ChatWriter(policy.builder)
    engine = VLLMServer(rollout.engine)
    return EngineSampler(engine, writer, rollout.num_generations, rollout.engine.weights)


class ChatWriter:
    """Write a record's prompt with its media as data URLs.

    Args:
        builder: of the policy's own prompts.
    """

    def __init__(self, builder: PromptBuilder) -> None:
        self.builder = builder

    def __call__(self, record: Record, prompt_ids: tuple[int, ...]) -> Chat:
        """Write one prompt.

        Raises:
            ValueError: the record's media cannot be read.
        """
        media = self.builder.config.media
        items = self.builder.items(record)
        turns = self.builder.conversation(record)
        parts = [part for part in turns[-1]["content"] if part["type"] == "text"]
        user = {"role": "user", "content": [*(self._part(item) for item in items), *parts]}
        options = {
            "mm_processor_kwargs": {
                "use_audio_in_video": media.use_audio_in_video,
                "fps": next((item.fps for item in items if item.kind == "video"), media.fps),
                "size": {"shortest_edge": media.min_pixels, "longest_edge": media.max_pixels},
            }
        }
        return Chat([*turns[:-1], user], prompt_ids, options if items else {})

    def _part(self, item: Item) -> Mapping[str, Any]:
        if item.frames_THWC is None:
            assert item.waveform_S is not None
            sound = wav_bytes(item.waveform_S, self.builder.config.media.sample_rate)
            return {"type": "audio_url", "audio_url": {"url": data_url("audio/wav", sound)}}
        if item.kind == "image":
            url = data_url("image/png", png_bytes(item.frames_THWC[0]))
            return {"type": "image_url", "image_url": {"url": url}}
        if item.waveform_S is not None:
            url = data_url(f"video/{item.path.suffix[1:]}", Path(item.path).read_bytes())
        else:
            # The engine takes a list of pictures as frames that were chosen already.
            stills = (base64.b64encode(png_bytes(frame)).decode() for frame in item.frames_THWC)
            url = "data:video/jpeg;base64," + ",".join(stills)
        return {"type": "video_url", "video_url": {"url": url}}


def data_url(kind: str, content: bytes) -> str:
    """Encode bytes as a data URL."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def png_bytes(frame_HWC: np.ndarray) -> bytes:
    """Encode one picture without loss."""
    target = io.BytesIO()
    Image.fromarray(frame_HWC).save(target, format="png")
    return target.getvalue()


def wav_bytes(waveform_S: np.ndarray, sample_rate: int) -> bytes:
    """Encode mono sound in [-1, 1] as 16-bit PCM."""
    target = io.BytesIO()
    with wave.open(target, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes((np.clip(waveform_S, -1, 1) * 32767).round().astype("<i2").tobytes())
    return target.getvalue()
