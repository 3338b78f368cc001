"""What a policy sees."""

from __future__ import annotations

import ast
import inspect
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from sa2va_rl.data import features
from sa2va_rl.data.angiograms import DEFAULT, draw_sample
from sa2va_rl.data.features import (
    CLIP,
    FEATURES,
    STATISTICS,
    Standardiser,
    features_of,
    observation,
)


def named(image_HWC: np.ndarray) -> dict[str, float]:
    return dict(zip(FEATURES, features_of(image_HWC).tolist(), strict=True))


def grey(picture_HW: np.ndarray) -> np.ndarray:
    return np.repeat(np.clip(np.rint(picture_HW), 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)


def test_sixteen_statistics_by_hand() -> None:
    assert len(STATISTICS) == 16
    half = np.zeros((10, 10))
    half[:, 5:] = 255
    found = named(grey(half))
    expected = {"mean": 0.5, "std": 0.5, "min": 0, "max": 1, "p5": 0, "p95": 1, "range": 1}
    expected |= {"skewness": 0, "kurtosis": np.log(2), "entropy": np.log(2)}
    expected |= {"dark_share": 0, "bright_share": 0, "colourfulness": 0}
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-5), name


def test_colour_is_seen() -> None:
    image_HWC = np.zeros((8, 8, 3), dtype=np.uint8)
    image_HWC[..., 0] = 51
    assert named(image_HWC)["colourfulness"] == pytest.approx(0.2)


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_blank_picture_is_finite(value: int) -> None:
    assert np.isfinite(features_of(np.full((16, 20, 3), value, dtype=np.uint8))).all()


def test_noise_raises_the_finest_band_and_wide_lines_a_coarse_one() -> None:
    rng = np.random.default_rng(0)
    plain_HW = np.full((96, 96), 150.0)
    noisy = named(grey(plain_HW + rng.normal(0, 12, plain_HW.shape)))
    quiet = named(grey(plain_HW + rng.normal(0, 3, plain_HW.shape)))
    assert noisy["band0_energy"] - quiet["band0_energy"] > 1
    lines = {}
    for name, width in (("thin", 1), ("wide", 9)):
        lined_HW = plain_HW.copy()
        lined_HW[:, 40 : 40 + width] = 90
        lines[name] = named(grey(ndimage.gaussian_filter(lined_HW, 0.5)))
    ratio = {key: found["band4_energy"] - found["band1_energy"] for key, found in lines.items()}
    assert ratio["wide"] > ratio["thin"] + 1
    assert lines["thin"]["band1_skewness"] < 0  # dark lines are few and dark


def test_ridges_tell_how_wide_and_how_clear_lines_are() -> None:
    rng = np.random.default_rng(0)
    noise_HW = rng.normal(0, 4, (96, 96))

    def seen(width: int, depth: float) -> dict[str, float]:
        lined_HW = np.full((96, 96), 150.0)
        lined_HW[:, 40 : 40 + width] -= depth
        return named(grey(lined_HW + noise_HW))

    faint, clear, wide, bright = seen(2, 15), seen(2, 60), seen(12, 60), seen(2, -60)
    assert clear["ridge0_p99.5"] > faint["ridge0_p99.5"] + 0.3
    assert wide["ridge3_p97"] > clear["ridge3_p97"] + 0.3
    assert clear["ridge0_p99.5"] > bright["ridge0_p99.5"] + 0.3  # dark lines count


def test_no_truth_can_enter() -> None:
    """The features are a function of pixels, and their module knows nothing else."""
    assert list(inspect.signature(features_of).parameters) == ["image_HWC"]
    tree = ast.parse(inspect.getsource(features))
    modules = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module}
    assert not {name for name in modules if name.startswith("sa2va_rl")}
    sample = draw_sample(DEFAULT, 0)
    assert sample.truth_HW is not None
    other = replace(sample, truth_HW=~sample.truth_HW)
    np.testing.assert_array_equal(features_of(sample.image_HWC), features_of(other.image_HWC))


def test_the_training_pictures_are_standardised() -> None:
    rng = np.random.default_rng(0)
    features_ND = rng.normal(3, [1, 2, 4], (400, 3)).astype(np.float32)
    features_ND[:, 1] = 7  # never changes
    standardiser = Standardiser.fit(features_ND)
    done_ND = np.stack([standardiser(row) for row in features_ND])
    np.testing.assert_allclose(done_ND.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(done_ND.std(axis=0), [1, 0, 1], atol=1e-2)
    assert standardiser(np.float32([1e9, 7, -1e9])).tolist() == [CLIP, 0, -CLIP]


def test_fitting_needs_pictures() -> None:
    with pytest.raises(ValueError, match="expected those of some pictures"):
        Standardiser.fit([])


def test_a_standardiser_comes_back_from_its_file(tmp_path: Path) -> None:
    size = len(FEATURES)
    stored = Standardiser(np.arange(size, dtype=np.float32), np.full(size, 0.1, dtype=np.float32))
    stored.save(tmp_path / "features.json")
    found = Standardiser.load(tmp_path / "features.json")
    np.testing.assert_array_equal(found.mean_D, stored.mean_D)
    np.testing.assert_array_equal(found.std_D, stored.std_D)
    text = (tmp_path / "features.json").read_text()
    (tmp_path / "features.json").write_text(text.replace("entropy", "disorder"))
    with pytest.raises(ValueError, match="train a new policy"):
        Standardiser.load(tmp_path / "features.json")


def test_progress_comes_last() -> None:
    seen = observation(np.float32([1, 2]), 0.25)
    assert seen.tolist() == [1, 2, 0.25]
    assert seen.dtype == np.float32
