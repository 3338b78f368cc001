"""Checks of the requests that are sent to an inference engine."""

from __future__ import annotations

from collections import Counter
from typing import Any

from core_rl.doctor.findings import Finding, finding
from core_rl.servers.rollout_engine import Chat
from omni_rl.doctor.media_causes import CAUSES
from omni_rl.doctor.media_expected import Expected

# Part of a chat message -> the kind of media it carries.
_PARTS = {"video_url": "video", "image_url": "image", "audio_url": "audio"}


def request_findings(chat: Chat, expected: Expected, use_audio_in_video: bool) -> list[Finding]:
    """Check the flag `use_audio_in_video` and the number of media in one request to vLLM.

    Args:
        chat: the request, as `omni_rl.policy.engine.ChatWriter` makes it.
        expected: content of the record's files.
        use_audio_in_video: as configured for prompt, generation and log-probs.
    """
    content: Any = chat.messages[-1]["content"]
    sent = Counter(_PARTS[part["type"]] for part in content if part["type"] in _PARTS)
    wanted = Counter(item.kind for item in expected.items)
    if use_audio_in_video:  # the sound of a clip travels inside it
        wanted["audio"] = len(expected.record.audios)
    options = chat.options.get("mm_processor_kwargs", {})
    flag = bool(options.get("use_audio_in_video"))
    off = sum(abs(sent[kind] - wanted[kind]) for kind in {*sent, *wanted})
    cause = CAUSES["audio_twice" if sent["audio"] > wanted["audio"] else "counts_differ"]
    says, cure = CAUSES["flag"].says, CAUSES["flag"].cure
    right = flag == use_audio_in_video or not expected.items
    return [
        finding("engine/flag", float(flag), f"= {int(use_audio_in_video)}", right, says, cure),
        finding("engine/items", float(off), "= 0", off == 0, cause.says, cause.cure),
    ]
