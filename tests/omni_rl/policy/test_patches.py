"""Patch rows against a slow reading of their definition."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from omni_rl.policy.patches import PatchSpec, patchify

SPEC = PatchSpec()


def random_frames(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def slow_rows(frames: np.ndarray) -> np.ndarray:
    """Cut patches one by one, in the order that the docstring states."""
    scaled = (frames / 255.0 - np.array(SPEC.mean)) / np.array(SPEC.std)
    steps, rows, columns = len(frames) // 2, frames.shape[1] // 28, frames.shape[2] // 28
    cut = []
    for t, i, j, a, b in itertools.product(
        range(steps), range(rows), range(columns), range(2), range(2)
    ):
        y, x = 28 * i + 14 * a, 28 * j + 14 * b
        patch_tyxc = scaled[2 * t : 2 * t + 2, y : y + 14, x : x + 14]
        cut.append(patch_tyxc.transpose(3, 0, 1, 2).reshape(-1))
    return np.stack(cut)


@pytest.mark.parametrize("shape", [(2, 28, 28), (4, 56, 84), (6, 84, 56)])
def test_rows_follow_their_definition(shape):
    frames = random_frames(*shape)
    rows, grid = patchify(frames, SPEC)
    assert grid == (shape[0] // 2, shape[1] // 14, shape[2] // 14)
    assert rows.dtype == torch.float32 and rows.shape == (np.prod(grid), 1176)
    np.testing.assert_allclose(rows.numpy(), slow_rows(frames), atol=1e-5)


def test_an_odd_last_frame_is_repeated():
    frames = random_frames(3, 28, 56)
    rows, grid = patchify(frames, SPEC)
    padded, padded_grid = patchify(np.concatenate([frames, frames[-1:]]), SPEC)
    assert grid == padded_grid == (2, 2, 4)
    assert torch.equal(rows, padded)


def test_the_mean_colour_becomes_zero():
    frames = np.tile(np.round(np.array(SPEC.mean) * 255).astype(np.uint8), (2, 28, 28, 1))
    assert patchify(frames, SPEC)[0].abs().max() < 0.01  # half a grey level over std * 255


def test_frames_may_be_read_only():
    frames = random_frames(2, 28, 28)
    frames.flags.writeable = False  # as the reader's cache hands them out
    before = frames.copy()
    patchify(frames, SPEC)
    assert np.array_equal(frames, before)


@pytest.mark.parametrize("shape", [(0, 28, 28, 3), (2, 30, 28, 3), (2, 28, 14, 3), (2, 28, 28, 1)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="multiples of 28"):
        patchify(np.zeros(shape, dtype=np.uint8), SPEC)


def test_tokens_count_merged_patches():
    assert SPEC.num_tokens((4, 4, 4)) == 16
    assert SPEC.num_tokens((1, 6, 4)) == 6
