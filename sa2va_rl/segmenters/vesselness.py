"""A segmenter for dark vessels that follows the words of a prompt: no weights, no randomness.

Ridges are found by the eigenvalues of the Hessian at several scales, as in Frangi et al. (1998),
"Multiscale vessel enhancement filtering".  Differences: the ridge measure is the largest eigenvalue
minus half the size of the other (without Frangi's exponentials), it is turned into a robust z-score
over the picture, and a mask is made by hysteresis thresholds and a smallest component size.
"""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from skimage.feature import hessian_matrix_eigvals

from sa2va_rl.prompts import BASE, LEXICON, SCALES, Controls, controls_of
from sa2va_rl.segmenters.models import Prediction, digest

REFERENCE_SIDE = 160  # pixels of the shorter side at which `Controls` are meant
BACKGROUND = 16.0  # smoothing, in pixels at that size, that removes every vessel

VESSELNESS_VERSION = 1  # raise when a mask changes
Floats = NDArray[np.float32]


class VesselnessSegmenter:
    """Segment vessels that are darker than their surroundings, steered by the prompt's words.

    The ridges of the last picture are kept, because prompts share them.
    """

    def __init__(self) -> None:
        self._picture = Ridges(np.ones((1, 1), dtype=np.float32))

    @property
    def fingerprint(self) -> str:
        """Digest of every number that a mask depends on."""
        settings = [astuple(BASE), SCALES, [astuple(line) for line in LEXICON]]
        return digest(f"vesselness {VESSELNESS_VERSION}", REFERENCE_SIDE, BACKGROUND, settings)

    def predict_forward(self, image: Image.Image, text: str, **_: Any) -> Prediction:
        """Segment a picture.

        Args:
            image: of any mode; the green channel of a coloured one is read.
            text: the prompt, read by `prompts.controls_of`.

        Returns:
            One mask and its probability map, the logistic of the z-score minus the high threshold.
            The mask also holds pixels down to the low threshold, where the map is below .5.
        """
        controls = controls_of(text)
        picture_HW = green(image)
        if not np.array_equal(picture_HW, self._picture.picture_HW):
            self._picture = Ridges(picture_HW)
        z_HW = self._picture.z_scores(controls)
        mask_HW = hysteresis(z_HW, controls.threshold * controls.low_ratio, controls.threshold)
        mask_HW = without_specks(mask_HW, controls.min_size * self._picture.unit**2)
        logits_HW = np.clip(z_HW - controls.threshold, -30.0, 30.0)
        return Prediction(
            prediction="[SEG]",
            prediction_masks=[mask_HW[None]],
            probability_maps=[(1.0 / (1.0 + np.exp(-logits_HW)))[None]],
        )


def green(image: Image.Image) -> Floats:
    """Return the green channel HW in [0, 1]; a grey picture is its own."""
    channel = image if image.mode == "L" else image.convert("RGB").getchannel("G")
    return np.asarray(channel, dtype=np.float32) / 255.0


class Ridges:
    """Strength of dark lines at each pixel of a picture, for any prompt.

    Args:
        picture_HW: in [0, 1].
    """

    def __init__(self, picture_HW: Floats) -> None:
        self.picture_HW = picture_HW
        self.unit = min(picture_HW.shape) / REFERENCE_SIDE
        self._flat: dict[float, Floats] = {}
        self._ridge: dict[tuple[float, float], Floats] = {}

    def z_scores(self, controls: Controls) -> Floats:
        """Return the ridge measure HW as a robust z-score over the picture.

        The unit is 1.4826 * median absolute deviation, above the median.
        """
        found = [self._at(controls.denoise, scale) for scale in controls.scales]
        ridge_HW = np.max(found, axis=0)
        centre = np.median(ridge_HW)
        spread = 1.4826 * np.median(np.abs(ridge_HW - centre))
        # A picture of one colour has neither spread nor vessels: return 0 everywhere.
        return np.asarray((ridge_HW - centre) / max(float(spread), 1e-6), dtype=np.float32)

    def _at(self, denoise: float, scale: float) -> Floats:
        if (denoise, scale) not in self._ridge:
            flat_HW = self._flattened(denoise)
            self._ridge[denoise, scale] = _ridge(flat_HW, scale * self.unit)
        return self._ridge[denoise, scale]

    def _flattened(self, denoise: float) -> Floats:
        if denoise not in self._flat:
            background_HW = ndimage.gaussian_filter(self.picture_HW, BACKGROUND * self.unit)
            flat_HW = self.picture_HW / np.maximum(background_HW, 1e-3)
            if denoise:
                flat_HW = ndimage.gaussian_filter(flat_HW, denoise * self.unit)
            self._flat[denoise] = flat_HW
        return self._flat[denoise]


def _ridge(picture_HW: Floats, sigma: float) -> Floats:
    """Largest eigenvalue of the scale-normalised Hessian minus half the size of the other.

    The second derivatives are differences between direct neighbours.
    `skimage.feature.hessian_matrix` differs: its finite differences span two pixels, which loses
    the thinnest vessels.
    """
    smooth_HW = np.pad(ndimage.gaussian_filter(picture_HW, sigma), 1, mode="edge")
    centre = smooth_HW[1:-1, 1:-1]
    yy = smooth_HW[2:, 1:-1] - 2 * centre + smooth_HW[:-2, 1:-1]
    xx = smooth_HW[1:-1, 2:] - 2 * centre + smooth_HW[1:-1, :-2]
    xy = (smooth_HW[2:, 2:] - smooth_HW[2:, :-2] - smooth_HW[:-2, 2:] + smooth_HW[:-2, :-2]) / 4
    largest_HW, other_HW = hessian_matrix_eigvals([yy, xy, xx])
    return sigma**2 * (largest_HW - np.abs(other_HW) / 2)


def hysteresis(values_HW: NDArray[np.floating], low: float, high: float) -> NDArray[np.bool_]:
    """Keep the components above `low` that hold a pixel above `high`.

    Diagonal neighbours are connected, which thin vessels need.
    `skimage.filters.apply_hysteresis_threshold` differs: it connects direct neighbours only.
    """
    eight = np.ones((3, 3), dtype=bool)
    kept_HW: NDArray[np.bool_] = ndimage.binary_propagation(
        values_HW > high, structure=eight, mask=values_HW > low
    )
    return kept_HW


def without_specks(mask_HW: NDArray[np.bool_], smallest: float) -> NDArray[np.bool_]:
    """Drop the connected components of fewer than `smallest` pixels."""
    components_HW, _ = ndimage.label(mask_HW, structure=np.ones((3, 3)))
    kept = np.bincount(components_HW.ravel()) >= smallest
    kept[0] = False  # the background
    return kept[components_HW]
