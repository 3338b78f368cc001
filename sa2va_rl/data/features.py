"""The features of a picture that a policy sees: statistics, gradients, bands and ridges.

They are computed from pixels alone: no function here takes a mask, so the true mask cannot reach a
policy.  Bands distinguish noise from structure and thin lines from wide ones; ridges measure how
clearly dark lines of each width stand out.  Prompts differ in both.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from core_rl.files import write_json

Floats = NDArray[np.float32]

STATISTICS = (
    *("mean", "std", "min", "max", "p5", "p25", "median", "p75", "p95", "range"),
    *("skewness", "kurtosis", "entropy", "dark_share", "bright_share", "colourfulness"),
)
# A band is the difference of two successive Gaussian smoothings of these sizes, in pixels.
SIGMAS = (0.0, 0.7, 1.4, 2.8, 5.6, 11.2)
GRADIENTS = ("gradient_mean", "gradient_std", "gradient_p90", "gradient_p99")
BANDS = tuple(
    f"band{index}_{kind}"
    for index in range(len(SIGMAS) - 1)
    for kind in ("energy", "spread", "skewness")
)
# Widths of the dark lines in pixels, and the quantiles of their ridge measure.
RIDGE_SIGMAS = (1.0, 1.8, 3.2, 5.6)
RIDGE_QUANTILES = (0.9, 0.97, 0.995)
RIDGES = tuple(
    f"ridge{index}_{kind}"
    for index in range(len(RIDGE_SIGMAS))
    for kind in ("spread", *(f"p{100 * quantile:g}" for quantile in RIDGE_QUANTILES))
)
FEATURES = (*STATISTICS, *GRADIENTS, *BANDS, *RIDGES)
CLIP = 5.0  # standardised features are clipped to +-CLIP
FEATURES_VERSION = 1  # raise when a feature changes


def features_of(image_HWC: NDArray[np.uint8]) -> Floats:
    """Compute `FEATURES` of a picture, in that order, not standardised.

    Args:
        image_HWC: RGB, 0 to 255.
    """
    colour_HWC = image_HWC.astype(np.float32) / 255.0
    grey_HW = colour_HWC.mean(axis=2)
    saturation = float((colour_HWC.max(axis=2) - colour_HWC.min(axis=2)).mean())
    numbers = [*_statistics(grey_HW), saturation, *_gradients(grey_HW)]
    numbers += [*_bands(grey_HW), *_ridges(grey_HW)]
    assert len(numbers) == len(FEATURES)
    return np.asarray(numbers, dtype=np.float32)


def _statistics(grey_HW: Floats) -> list[float]:
    """Return all of `STATISTICS` but the last, which needs colour."""
    mean, std = float(grey_HW.mean()), float(grey_HW.std())
    p5, p25, p50, p75, p95 = (float(v) for v in np.quantile(grey_HW, (0.05, 0.25, 0.5, 0.75, 0.95)))
    share_K = np.histogram(grey_HW, bins=64, range=(0, 1))[0] / grey_HW.size
    share_K = share_K[share_K > 0]
    z_HW = (grey_HW - mean) / max(std, 1e-6)
    return [
        *(mean, std, float(grey_HW.min()), float(grey_HW.max())),
        *(p5, p25, p50, p75, p95, p95 - p5),
        *(float((z_HW**3).mean()), float(np.log1p((z_HW**4).mean()))),
        float(-(share_K * np.log(share_K)).sum()),
        *(float((z_HW < -2).mean()), float((z_HW > 2).mean())),
    ]


def _gradients(grey_HW: Floats) -> list[float]:
    """Return logarithms of gradient sizes after a light smoothing."""
    smooth_HW = ndimage.gaussian_filter(grey_HW, 1.0)
    size_HW = np.hypot(*np.gradient(smooth_HW))
    numbers = (size_HW.mean(), size_HW.std(), *np.quantile(size_HW, (0.9, 0.99)))
    return [_log(float(number)) for number in numbers]


def _bands(grey_HW: Floats) -> list[float]:
    """Return energy, robust spread and skewness of each band.

    Noise raises energy and spread alike, a few lines raise energy alone, and dark lines make the
    band of their width negatively skewed.
    """
    smooth = [ndimage.gaussian_filter(grey_HW, sigma) if sigma else grey_HW for sigma in SIGMAS]
    numbers = []
    for fine_HW, coarse_HW in itertools.pairwise(smooth):
        band_HW = fine_HW - coarse_HW
        band_HW = band_HW - band_HW.mean()
        energy = float(band_HW.std())
        spread = float(np.median(np.abs(band_HW)))
        skewness = float((band_HW**3).mean()) / max(energy, 1e-6) ** 3
        numbers += [_log(energy), _log(spread), skewness]
    return numbers


def _ridges(grey_HW: Floats) -> list[float]:
    """Return the robust spread of the ridge measure at each width, and its upper quantiles.

    The measure is that of `segmenters.vesselness`: the largest eigenvalue of the Hessian minus half
    the size of the other.  Quantiles are log(1 + robust standard deviations above the median).
    """
    numbers = []
    for sigma in RIDGE_SIGMAS:
        smooth_HW = ndimage.gaussian_filter(grey_HW, sigma)
        yy_HW, xx_HW = (ndimage.correlate1d(smooth_HW, [1, -2, 1], axis=a) for a in (0, 1))
        xy_HW = np.gradient(np.gradient(smooth_HW, axis=0), axis=1)
        half_HW = (yy_HW + xx_HW) / 2
        root_HW = np.hypot((yy_HW - xx_HW) / 2, xy_HW)
        ridge_HW = sigma**2 * (half_HW + root_HW - np.abs(half_HW - root_HW) / 2)
        centre = np.median(ridge_HW)
        spread = 1.4826 * float(np.median(np.abs(ridge_HW - centre))) + 1e-6
        excess = (np.quantile(ridge_HW, RIDGE_QUANTILES) - centre) / spread
        numbers += [_log(spread), *(float(e) for e in np.log1p(np.maximum(excess, 0)))]
    return numbers


def _log(value: float) -> float:
    return float(np.log(value + 1e-4))


@dataclass(frozen=True)
class Standardiser:
    """Mean and standard deviation of each feature over the training pictures.

    Attributes:
        mean_D: of `FEATURES`.
        std_D: of `FEATURES`; 1 for a constant feature.
    """

    mean_D: Floats
    std_D: Floats

    @classmethod
    def fit(cls, features_ND: Sequence[Floats] | Floats) -> Standardiser:
        """Fit to the features ND of the training pictures."""
        stacked_ND = np.asarray(features_ND, dtype=np.float64)
        if stacked_ND.ndim != 2 or not stacked_ND.size:
            raise ValueError(
                f"features of shape {stacked_ND.shape}: expected those of some pictures"
            )
        std_D = stacked_ND.std(axis=0)
        std_D[std_D < 1e-6] = 1.0
        return cls(stacked_ND.mean(axis=0).astype(np.float32), std_D.astype(np.float32))

    def __call__(self, features_D: Floats) -> Floats:
        """Standardise and clip to +-`CLIP`."""
        return np.clip((features_D - self.mean_D) / self.std_D, -CLIP, CLIP).astype(np.float32)

    def save(self, path: Path) -> None:
        """Write names and numbers as JSON."""
        columns = {"mean": self.mean_D.tolist(), "std": self.std_D.tolist()}
        write_json(path, {"features": list(FEATURES), **columns})

    @classmethod
    def load(cls, path: Path) -> Standardiser:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: no such file.
            ValueError: the file is of other features.
        """
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored.get("features") != list(FEATURES):
            raise ValueError(
                f"{path} is of {len(stored.get('features', []))} features that are not today's "
                f"{len(FEATURES)}: train a new policy"
            )
        return cls(*(np.asarray(stored[name], dtype=np.float32) for name in ("mean", "std")))


def observation(features_D: Floats, progress: float) -> Floats:
    """Append the share of the episode's steps that are done to standardised features."""
    return np.append(features_D, np.float32(progress)).astype(np.float32)
