"""Records with their media on the way to an engine, and a run whose candidates it draws."""

from __future__ import annotations

import base64
import io
import wave
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from core_rl.config import EngineConfig, EngineKind, HardwareConfig, RolloutConfig
from core_rl.loop.module import FreshSampler
from core_rl.servers.rollout_engine import EngineSampler
from omni_rl.data.media import load_clip
from omni_rl.data.record import Record
from omni_rl.policy.engine import ChatWriter, build_sampler
from omni_rl.policy.policy import OmniPolicy
from tests.core_rl.servers.engine_server import serving

Build = Callable[..., OmniPolicy]
CPU = HardwareConfig()


def content(url: str) -> bytes:
    return base64.b64decode(url.partition("base64,")[2])


def test_frames_and_sound_are_those_the_policy_is_given(
    fresh_policy: Build, records: list[Record]
) -> None:
    policy = fresh_policy()
    chat = ChatWriter(policy.builder)(records[0], (1, 2))
    system, user = chat.messages
    video, audio, text = user["content"]
    clip = load_clip(records[0].videos[0], policy.config.media)
    stills = video["video_url"]["url"].partition("base64,")[2].split(",")
    frames = [np.asarray(Image.open(io.BytesIO(base64.b64decode(still)))) for still in stills]
    assert np.array_equal(np.stack(frames), clip.frames_THWC)
    with wave.open(io.BytesIO(content(audio["audio_url"]["url"]))) as sound:
        heard = np.frombuffer(sound.readframes(sound.getnframes()), "<i2") / 32767
        assert sound.getframerate() == policy.config.media.sample_rate
    assert clip.waveform_S is not None
    np.testing.assert_allclose(heard, clip.waveform_S.clip(-1, 1), atol=1e-4)
    assert system["content"] == policy.config.system_prompt
    assert records[0].problem in text["text"]
    assert chat.prompt_ids == (1, 2)
    options = chat.options["mm_processor_kwargs"]
    assert options["use_audio_in_video"] is False and options["fps"] == clip.fps


def test_interleaved_sound_goes_inside_the_file(fresh_policy: Build, records: list[Record]) -> None:
    chat = ChatWriter(fresh_policy(together=True).builder)(records[0], ())
    video, _text = chat.messages[-1]["content"]
    assert content(video["video_url"]["url"]) == records[0].videos[0].read_bytes()
    assert chat.options["mm_processor_kwargs"]["use_audio_in_video"] is True


def by_question(records: Sequence[Record]) -> Callable[[Sequence[dict[str, Any]]], Record]:
    """Find the record whose question and frames a request carries."""

    def find(messages: Sequence[dict[str, Any]]) -> Record:
        text = messages[-1]["content"][-1]["text"]
        return next(record for record in records if record.problem in text)

    return find


@pytest.mark.parametrize("together", [False, True])
def test_the_engine_draws_what_the_policy_would_have_drawn(
    fresh_policy: Build, records: list[Record], tmp_path: Path, together: bool
) -> None:
    policy = fresh_policy(together)
    with serving(fresh_policy(together), by_question(records)) as server:
        engine = EngineConfig(kind=EngineKind.vllm, url=server.url, weights=str(tmp_path))
        sampler = build_sampler(policy, RolloutConfig(num_generations=3, engine=engine))
        assert isinstance(sampler, EngineSampler)
        actions = sampler(policy, policy.encode(records), records, 0.7)
    assert actions.logp_BGT is not None and actions.engine_logp_BGT is not None
    torch.testing.assert_close(actions.logp_BGT, actions.engine_logp_BGT, atol=1e-4, rtol=0)
    assert actions.ids_BGT.shape[:2] == (len(records), 3)


def test_without_an_engine_the_policy_draws(fresh_policy: Build) -> None:
    sampler = build_sampler(fresh_policy(), replace(RolloutConfig(), num_generations=5))
    assert isinstance(sampler, FreshSampler)
    assert sampler.num_candidates == 5
