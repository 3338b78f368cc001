"""Number and order of the placeholder tokens of each media item in a prompt.

The layout is that of transformers' `Qwen2_5OmniProcessor` (tested against it) and must agree with
the rotary positions that the thinker derives from the tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

VIDEO, AUDIO, IMAGE = "<|VIDEO|>", "<|AUDIO|>", "<|IMAGE|>"
AUDIO_BOS, AUDIO_EOS = "<|audio_bos|>", "<|audio_eos|>"
PLACEHOLDERS = {"video": VIDEO, "audio": AUDIO, "image": IMAGE}
POSITIONS_PER_SECOND = 25  # rotary positions, and audio tokens, in a second
SECONDS_PER_CHUNK = 2  # of video and audio that alternate where the two are interleaved


def num_audio_tokens(mel_frames: int) -> int:
    """Number of tokens of a sound: its mel frames (one each 10 ms), halved twice."""
    return ((mel_frames - 1) // 2 - 1) // 2 + 1


def interleave(steps: int, tokens_per_step: int, step_seconds: float, audio_tokens: int) -> str:
    """Interleave video and audio tokens of a clip: 2 seconds of video, 2 of audio, and so on.

    Args:
        steps: temporal patches of the video.
        tokens_per_step: video tokens of each.
        step_seconds: time between two of them.
        audio_tokens: number of them.
    """
    times = (step * step_seconds * POSITIONS_PER_SECOND for step in range(steps))
    video = _chunk_sizes(time for time in times for _ in range(tokens_per_step))
    audio = _chunk_sizes(range(audio_tokens))
    text = AUDIO_BOS
    for index in range(max(len(video), len(audio))):
        text += VIDEO * (video[index] if index < len(video) else 0)
        text += AUDIO * (audio[index] if index < len(audio) else 0)
    return text + AUDIO_EOS


def _chunk_sizes(positions: Iterable[float]) -> list[int]:
    """Count the tokens of each chunk; a token after the end of a chunk starts the next one.

    As in the processor and the model, a token starts at most one chunk, wherever it lies.
    """
    span = POSITIONS_PER_SECOND * SECONDS_PER_CHUNK
    sizes = [0]
    for position in positions:
        if position >= len(sizes) * span:
            sizes.append(0)
        sizes[-1] += 1
    return sizes


_ANY = re.compile("|".join(re.escape(token) for token in PLACEHOLDERS.values()))


def expand(text: str, layouts: Mapping[str, Sequence[str]]) -> str:
    """Replace the single placeholders of a rendered chat by their full layouts, in order.

    Args:
        text: with one placeholder for each media item.
        layouts: for each kind (video, audio, image) the layouts of its items.

    Raises:
        ValueError: the numbers of placeholders and of items differ.
    """
    for kind, token in PLACEHOLDERS.items():
        found, expected = text.count(token), len(layouts.get(kind, ()))
        if found != expected:
            raise ValueError(
                f"the prompt has {found} {token} for {expected} {kind} item(s): the question holds "
                "that token itself, or the chat template leaves items out"
            )
    pending = {token: iter(layouts.get(kind, ())) for kind, token in PLACEHOLDERS.items()}
    return _ANY.sub(lambda match: next(pending[match.group()]), text)
