"""Numbers and order of placeholder tokens."""

from __future__ import annotations

import re

import pytest

from omni_rl.policy.placeholders import AUDIO, IMAGE, VIDEO, expand, interleave, num_audio_tokens


def runs(layout: str) -> list[tuple[str, int]]:
    """Shorten a layout to (token, count) pairs."""
    pairs: list[tuple[str, int]] = []
    for token in re.findall(r"<\|\w+\|>", layout):
        if pairs and pairs[-1][0] == token:
            pairs[-1] = (token, pairs[-1][1] + 1)
        else:
            pairs.append((token, 1))
    return pairs


@pytest.mark.parametrize(
    ("mel_frames", "tokens"), [(1, 0), (2, 0), (3, 1), (4, 1), (7, 2), (100, 25), (3000, 750)]
)
def test_a_second_of_sound_is_25_tokens(mel_frames, tokens):
    assert num_audio_tokens(mel_frames) == tokens


def test_a_short_clip_is_one_chunk():
    layout = interleave(steps=4, tokens_per_step=4, step_seconds=0.25, audio_tokens=25)
    assert runs(layout) == [
        ("<|audio_bos|>", 1),
        (VIDEO, 16),
        (AUDIO, 25),
        ("<|audio_eos|>", 1),
    ]


def test_long_clips_alternate_every_two_seconds():
    # 5 s at 2 frames a second: steps at 0, 1, 2, 3, 4 s; 125 audio tokens.
    layout = interleave(steps=5, tokens_per_step=3, step_seconds=1.0, audio_tokens=125)
    assert runs(layout)[1:-1] == [
        (VIDEO, 6),
        (AUDIO, 50),
        (VIDEO, 6),
        (AUDIO, 50),
        (VIDEO, 3),
        (AUDIO, 25),
    ]


def test_sound_may_outlast_the_picture_and_the_other_way_round():
    longer_sound = interleave(steps=1, tokens_per_step=2, step_seconds=1.0, audio_tokens=120)
    assert runs(longer_sound)[1:-1] == [(VIDEO, 2), (AUDIO, 120)]
    longer_video = interleave(steps=6, tokens_per_step=2, step_seconds=1.0, audio_tokens=10)
    assert runs(longer_video)[1:-1] == [(VIDEO, 4), (AUDIO, 10), (VIDEO, 8)]


def test_items_are_expanded_in_order_and_once():
    text = f"a {VIDEO} b {AUDIO} c {VIDEO} d {IMAGE}"
    layouts = {"video": ["<v1>", AUDIO + VIDEO], "audio": ["<a>"], "image": [IMAGE * 2]}
    # A layout that holds placeholders itself is not expanded again.
    assert expand(text, layouts) == f"a <v1> b <a> c {AUDIO + VIDEO} d {IMAGE * 2}"


@pytest.mark.parametrize("layouts", [{}, {"video": ["x", "y"]}, {"video": ["x"], "audio": ["y"]}])
def test_a_wrong_number_of_items_is_an_error(layouts):
    with pytest.raises(ValueError, match="item"):
        expand(f"only one {VIDEO}", layouts)
