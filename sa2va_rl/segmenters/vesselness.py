"""A segmenter for dark vessels that words can steer: no weights, no randomness.

Ridges are found as in Frangi et al. (1998), "Multiscale vessel enhancement filtering", by the
eigenvalues of the Hessian at several scales.  Differences: the measure is the largest eigenvalue
less half the size of the other (Frangi's exponentials are left out), it is read as a robust z-score
over the picture, and hysteresis with a smallest size turns it into a mask.
"""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from sa2va_rl.prompts import BASE, LEXICON, SCALES, Controls, controls_of
from sa2va_rl.segmenters.models import Prediction, digest

REFERENCE_SIDE = 160  # pixels of the shorter side at which `Controls` are meant
BACKGROUND = 16.0  # smoothing, in pixels at that size, that leaves no vessel

VESSELNESS_VERSION = 1  # raise when a mask changes
Floats = NDArray[np.float32]


class VesselnessSegmenter:
    """Segment vessels darker than what surrounds them, as the words of the prompt say.

    What prompts share on a picture, its ridges at each scale, is kept until the next picture comes.
    """

    def __init__(self) -> None:
        self._picture = Ridges(np.ones((1, 1), dtype=np.float32))

    @property
    def fingerprint(self) -> str:
        """Changes with any number that a mask depends on."""
        settings = [astuple(BASE), SCALES, [astuple(line) for line in LEXICON]]
        return digest(f"vesselness {VESSELNESS_VERSION}", REFERENCE_SIDE, BACKGROUND, settings)

    def predict_forward(self, image: Image.Image, text: str, **_: Any) -> Prediction:
        """Segment a picture.

        Args:
            image: of any mode; the green channel of a coloured one is read.
            text: the prompt, read by `prompts.controls_of`.

        Returns:
            One mask, and its map: a logistic of the z-score that is .5 at the threshold at which a
            vessel starts.  The mask follows vessels further down than that.
        """
        controls = controls_of(text)
        picture_HW = green(image)
        if not np.array_equal(picture_HW, self._picture.picture_HW):
            self._picture = Ridges(picture_HW)
        z_HW = self._picture.z_scores(controls)
        mask_HW = follow(z_HW, controls)
        logits_HW = np.clip(z_HW - controls.threshold, -30.0, 30.0)
        return Prediction(
            prediction="[SEG]",
            prediction_masks=[mask_HW[None]],
            probability_maps=[(1.0 / (1.0 + np.exp(-logits_HW)))[None]],
        )


def green(image: Image.Image) -> Floats:
    """Return the green channel as HW in [0, 1]; grey pictures have only one."""
    channel = image if image.mode == "L" else image.convert("RGB").getchannel("G")
    return np.asarray(channel, dtype=np.float32) / 255.0


class Ridges:
    """How much of a dark line there is at each pixel of a picture, for any prompt.

    Args:
        picture_HW: in [0, 1].
    """

    def __init__(self, picture_HW: Floats) -> None:
        self.picture_HW = picture_HW
        self.unit = min(picture_HW.shape) / REFERENCE_SIDE
        self._flat: dict[float, Floats] = {}
        self._ridge: dict[tuple[float, float], Floats] = {}

    def z_scores(self, controls: Controls) -> Floats:
        """How much more a dark line each pixel is than the picture's usual pixel.

        Returns:
            HW, in robust standard deviations (1.4826 * median absolute deviation) above the median.
        """
        found = [self._at(controls.denoise, scale) for scale in controls.scales]
        ridge_HW = np.max(found, axis=0)
        centre = np.median(ridge_HW)
        spread = 1.4826 * np.median(np.abs(ridge_HW - centre))
        # A picture of one colour has no spread and no vessel: keep it at 0 instead of dividing.
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
    """Largest eigenvalue of the scale-normalised Hessian less half the size of the other."""
    smooth_HW = np.pad(ndimage.gaussian_filter(picture_HW, sigma), 1, mode="edge")
    centre = smooth_HW[1:-1, 1:-1]
    yy = smooth_HW[2:, 1:-1] - 2 * centre + smooth_HW[:-2, 1:-1]
    xx = smooth_HW[1:-1, 2:] - 2 * centre + smooth_HW[1:-1, :-2]
    xy = (smooth_HW[2:, 2:] - smooth_HW[2:, :-2] - smooth_HW[:-2, 2:] + smooth_HW[:-2, :-2]) / 4
    half_sum, root = (yy + xx) / 2, np.sqrt(((yy - xx) / 2) ** 2 + xy**2)
    return sigma**2 * (half_sum + root - np.abs(half_sum - root) / 2)


def follow(z_HW: Floats, controls: Controls) -> NDArray[np.bool_]:
    """Keep pieces above the low threshold that touch the high one and are large enough."""
    unit = min(z_HW.shape) / REFERENCE_SIDE
    low_HW = z_HW > controls.threshold * controls.low_ratio
    pieces_HW, count = ndimage.label(low_HW, structure=np.ones((3, 3)))
    sizes = np.bincount(pieces_HW.ravel(), minlength=count + 1)
    seeded = np.bincount(pieces_HW[z_HW > controls.threshold], minlength=count + 1) > 0
    kept = seeded & (sizes >= controls.min_size * unit**2)
    kept[0] = False  # what is in no piece
    return kept[pieces_HW]
