"""The reward network: its inputs, its file, and that it can learn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn import functional as F

from sa2va_rl.config import RewardNetConfig
from sa2va_rl.data.angiograms import DEFAULT, draw_samples
from sa2va_rl.rewards.reward_metrics import probe_table
from sa2va_rl.rewards.reward_net import (
    CONTRAST,
    SETTINGS,
    SHADES,
    WEIGHTS,
    RewardNet,
    RewardNetJudge,
    covered,
    flattened,
    inputs_of,
    load_reward_net,
    save_reward_net,
)
from sa2va_rl.rewards.reward_pairs import probe_pairs

SMALL = RewardNetConfig(side=48, width=8)


def net(seed: int = 0) -> RewardNet:
    torch.manual_seed(seed)
    return RewardNet(SMALL)


def picture(side: int = 64) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    image_HWC = rng.integers(0, 256, (side, side + 8, 3), dtype=np.uint8)
    return image_HWC, rng.random((side, side + 8)) > 0.8


def test_the_mask_channel_is_the_covered_share() -> None:
    image_HWC, mask_HW = picture(96)
    mask_HW = np.zeros((96, 96), dtype=bool)
    mask_HW[:3] = True  # of two rows to a pixel: 1, then a half
    pairs = inputs_of(image_HWC[:, :96], [mask_HW, ~mask_HW], 48)
    assert pairs.shape == (2, 2, 48, 48)
    assert pairs[0, 1, :3, 0].tolist() == [1.0, 0.5, 0.0]
    torch.testing.assert_close(pairs[1, 1], 1 - pairs[0, 1])
    torch.testing.assert_close(pairs[0, 0], pairs[1, 0])


@pytest.mark.parametrize(("height", "width", "side"), [(160, 97, 48), (31, 48, 48)])
def test_masks_of_any_size_are_covered_by_adaptive_means(
    height: int, width: int, side: int
) -> None:
    soft_NHW = torch.rand(3, height, width)
    expected_NSS = F.adaptive_avg_pool2d(soft_NHW[:, None], side)[:, 0]
    torch.testing.assert_close(covered(soft_NHW, side), expected_NSS)


def test_the_picture_channel_does_not_know_the_brightness() -> None:
    image_HWC, mask_HW = picture()
    dim_HWC = image_HWC // 2
    left, right = (inputs_of(image, [mask_HW], 48) for image in (dim_HWC, dim_HWC + 60))
    torch.testing.assert_close(left, right, atol=1e-4, rtol=1e-4)
    blank = inputs_of(np.full_like(image_HWC, 99), [mask_HW], 48)
    torch.testing.assert_close(blank[0, 0], torch.zeros(48, 48))


def test_a_score_does_not_depend_on_its_company() -> None:
    image_HWC, mask_HW = picture()
    judge = RewardNetJudge(net())
    together = judge.many(image_HWC, [mask_HW, ~mask_HW])
    assert together[0] == pytest.approx(judge(image_HWC, mask_HW), abs=1e-6)
    assert together[1] == pytest.approx(judge(image_HWC, ~mask_HW), abs=1e-6)
    assert all(0 < score < 1 for score in together)


def test_a_score_is_the_same_upside_down() -> None:
    image_HWC, mask_HW = picture()
    pairs = inputs_of(image_HWC, [mask_HW, ~mask_HW], 48)
    judge, turned = net(), pairs.flip((2, 3))
    torch.testing.assert_close(judge.quality(pairs), judge.quality(turned))
    assert not torch.allclose(judge(pairs), judge(turned))


def test_a_soft_mask_gets_a_gradient() -> None:
    image_HWC, mask_HW = picture()
    soft_1HW = torch.full((1, *mask_HW.shape), 0.5, requires_grad=True)
    net().quality(inputs_of(image_HWC, soft_1HW, 48)).sum().backward()
    assert soft_1HW.grad is not None
    assert soft_1HW.grad.abs().sum() > 0


def test_a_network_comes_back_from_its_files(tmp_path: Path) -> None:
    image_HWC, mask_HW = picture()
    saved = net()
    save_reward_net(saved, tmp_path)
    loaded = load_reward_net(tmp_path)
    assert loaded.config == SMALL
    assert RewardNetJudge(loaded)(image_HWC, mask_HW) == RewardNetJudge(saved)(image_HWC, mask_HW)


def test_files_that_are_missing_or_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no reward network in .* train one"):
        load_reward_net(tmp_path)
    save_reward_net(net(), tmp_path)
    text = (tmp_path / SETTINGS).read_text()
    (tmp_path / SETTINGS).write_text(text.replace('"width": 8', '"width": 12'))
    with pytest.raises(ValueError, match=r"safetensors does not fit.*reward_fit\.path="):
        load_reward_net(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (SETTINGS, b"{"),
        (SETTINGS, b"\xff"),
        (SETTINGS, b"[1, 2]"),
        (SETTINGS, b"null"),
        (SETTINGS, b'{"widht": 8}'),
        (SETTINGS, b'{"width": "8"}'),
        (SETTINGS, b'{"width": 8.5}'),
        (SETTINGS, b'{"width": 9}'),
        (SETTINGS, b'{"label": 1}'),
        (WEIGHTS, b""),
        (WEIGHTS, b"no weights at all"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    save_reward_net(net(), tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"(?s){name}.*reward_fit\.path="):
        load_reward_net(tmp_path)


@pytest.mark.parametrize(
    "label", [{}, {"dice": 0.5}, {"dice": 2.0, "iou": -1.0}, {"dice": 0.5, "beauty": 0.5}]
)
def test_labels_that_are_no_quality(label: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"reward_net\.label"):
        RewardNetConfig(label=label)


def test_it_learns_to_tell_the_truth_from_spoiled_masks() -> None:
    """On its own training pairs: that the parts fit together, not how well it generalises."""
    samples = draw_samples(replace(DEFAULT, side=64), range(3))
    pairs = list(probe_pairs(samples, {"dice": 1.0}))
    inputs = torch.cat(
        [inputs_of(samples[pair.picture].image_HWC, [pair.mask_HW], SMALL.side) for pair in pairs]
    )
    labels = torch.tensor([pair.label for pair in pairs])
    model = net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(120):
        loss = F.mse_loss(model.quality(inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    scores = model.quality(inputs).tolist()
    table = probe_table(scores, labels.tolist(), [pair.kind for pair in pairs])
    assert loss.item() < 0.02
    assert all(
        table["truth"][0] > table[kind][0] for kind in ("full", "empty", "shifted", "foreign")
    )


def test_shades_are_means_over_a_square() -> None:
    image_HWC, _ = picture()
    side = 48
    window = 2 * round(side * SHADES / 2) + 1
    small_SS = F.adaptive_avg_pool2d(
        torch.from_numpy(image_HWC.mean(axis=2, dtype=np.float32) / 255.0)[None, None], side
    )[0, 0].numpy()
    shades_SS = ndimage.uniform_filter(small_SS, window, mode="nearest")
    expected_SS = torch.from_numpy(CONTRAST * (small_SS - shades_SS))
    torch.testing.assert_close(flattened(image_HWC, side), expected_SS, atol=1e-5, rtol=0)
