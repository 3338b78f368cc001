"""Generated angiograms with exact masks: the embedded data of this pipeline.

A patient is a branching tree with hidden traits (vessel width, noise, clutter); the frames of a
patient share tree and traits and differ in position, contrast and noise.  By construction the best
prompt of a frame depends on the traits: the data show whether a policy learns this, not how well
real angiograms can be segmented.

The trait ranges were tuned on patients 0 to 79 of seed 0, by the gap between the best fixed prompt
and each picture's best prompt, and by how well the traits predict that prompt.  They were frozen
before any policy was trained; results are reported on patients of other seeds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sa2va_rl.data.files import Sample

Floats = NDArray[np.float64]
Range = tuple[float, float]

STEP = 1.5  # pixels between two points of a branch, less than a vessel's half width
THINNEST = 0.85  # smallest half width of a branch, in pixels
POINTS = 26  # points of the stem at 160 px


@dataclass(frozen=True)
class AngiogramSettings:
    """Ranges of the traits; uniform, or log-uniform for names with `log`.

    Attributes:
        side: of the square picture, in pixels.
        root_radius: half width of the stem in pixels, for each width class.
        taper: radius of a child branch divided by its parent's.
        log_contrast: largest share of light that the stem absorbs.
        log_noise: standard deviation of the pixel noise, as a share of white.
        clutter: strength of ribs and wires, which are no vessels, 0 to 1.
    """

    side: int = 160
    root_radius: tuple[Range, ...] = ((1.2, 1.8), (2.6, 3.8), (4.8, 6.6))
    taper: Range = (0.74, 0.9)
    log_contrast: Range = (0.15, 0.6)
    log_noise: Range = (0.005, 0.1)
    clutter: Range = (0.0, 1.0)


DEFAULT = AngiogramSettings()
# The shifted test set: paler, noisier, more clutter, widths between the classes.
SHIFTED = AngiogramSettings(
    root_radius=((1.7, 2.5), (3.7, 4.9)),
    log_contrast=(0.1, 0.4),
    log_noise=(0.01, 0.13),
    clutter=(0.3, 1.3),
)


@dataclass(frozen=True)
class Traits:
    """The hidden traits of a patient."""

    width: int
    root_radius: float
    contrast: float
    noise: float
    clutter: float


@dataclass(frozen=True)
class Points:
    """Discs whose union is the tree: centres and radii in pixels."""

    y_N: Floats
    x_N: Floats
    radius_N: Floats


def draw_samples(
    settings: AngiogramSettings, groups: range, frames: int = 1, seed: int = 0
) -> list[Sample]:
    """Draw every frame of a range of patients.

    Args:
        settings: `DEFAULT`, `SHIFTED` or other ranges.
        groups: numbers of the patients; number and seed determine the pictures.
        frames: pictures of each patient.
        seed: of the data set.
    """
    return [
        draw_sample(settings, group, frame, seed) for group in groups for frame in range(frames)
    ]


def draw_sample(settings: AngiogramSettings, group: int, frame: int = 0, seed: int = 0) -> Sample:
    """Draw one frame of one patient."""
    patient = np.random.default_rng([seed, group])
    traits = draw_traits(settings, patient)
    tree = draw_tree(settings.side, traits.root_radius, settings.taper, patient)
    rng = np.random.default_rng([seed, group, frame + 1])
    # Between frames the heart moves and the contrast agent spreads.
    moved = Points(tree.y_N + rng.normal(0, 2), tree.x_N + rng.normal(0, 2), tree.radius_N)
    contrast = traits.contrast * rng.uniform(0.85, 1.0)
    mask_HW, depth_HW = rasterise(moved, settings.side)
    dark_HW = depth_HW / max(traits.root_radius, 1.0) ** 0.5
    picture_HW = background(settings.side, traits.clutter, rng)
    picture_HW *= 1 - contrast * np.minimum(ndimage.gaussian_filter(dark_HW, 0.7), 1.0)
    picture_HW += rng.normal(0, traits.noise, picture_HW.shape)
    image_HW = np.clip(np.rint(picture_HW * 255), 0, 255).astype(np.uint8)
    return Sample(
        name=f"generated-{seed}-{group}-{frame}",
        image_HWC=np.repeat(image_HW[:, :, None], 3, axis=2),
        truth_HW=mask_HW,
        group=f"{seed}-{group}",
    )


def draw_traits(settings: AngiogramSettings, rng: np.random.Generator) -> Traits:
    """Draw a patient's traits independently of each other."""
    width = int(rng.integers(len(settings.root_radius)))
    return Traits(
        width=width,
        root_radius=rng.uniform(*settings.root_radius[width]),
        contrast=float(np.exp(rng.uniform(*np.log(settings.log_contrast)))),
        noise=float(np.exp(rng.uniform(*np.log(settings.log_noise)))),
        clutter=rng.uniform(*settings.clutter),
    )


def draw_tree(side: int, root_radius: float, taper: Range, rng: np.random.Generator) -> Points:
    """Grow a tree level by level, all branches of a level at once.

    The heading of a branch is a random walk.  A branch ends in two thinner ones, until they are
    thinner than `THINNEST`.
    """
    unit = side / 160
    y_B, x_B = np.array([rng.uniform(0.02, 0.2) * side]), np.array([rng.uniform(0.3, 0.7) * side])
    heading_B, radius_B = np.array([np.pi / 2 + rng.normal(0, 0.3)]), np.array([root_radius * unit])
    found: list[tuple[Floats, Floats, Floats]] = []
    for level in range(6):
        count = max(8, round(POINTS * unit * 0.85**level))
        turns_BN = rng.normal(0, 0.09, (y_B.size, count)).cumsum(axis=1)
        angle_BN = heading_B[:, None] + turns_BN
        y_BN = y_B[:, None] + STEP * np.sin(angle_BN).cumsum(axis=1)
        x_BN = x_B[:, None] + STEP * np.cos(angle_BN).cumsum(axis=1)
        radius_BN = radius_B[:, None] * np.linspace(1.0, 0.9, count)
        found.append((y_BN.ravel(), x_BN.ravel(), radius_BN.ravel()))
        y_B, x_B = np.repeat(y_BN[:, -1], 2), np.repeat(x_BN[:, -1], 2)
        sign_B = np.tile([-1.0, 1.0], radius_B.size)
        heading_B = np.repeat(angle_BN[:, -1], 2) + sign_B * rng.uniform(0.25, 0.75, y_B.size)
        radius_B = np.repeat(radius_BN[:, -1], 2) * rng.uniform(*taper, y_B.size)
        alive_B = (
            (radius_B >= THINNEST) & (np.abs(y_B - side / 2) < side) & (x_B > 0) & (x_B < side)
        )
        y_B, x_B, heading_B, radius_B = (a[alive_B] for a in (y_B, x_B, heading_B, radius_B))
        if not y_B.size:
            break
    y_N, x_N, radius_N = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return Points(y_N, x_N, radius_N)


def rasterise(points: Points, side: int) -> tuple[NDArray[np.bool_], Floats]:
    """Draw discs.

    Returns:
        The mask HW, pixels whose centre is in a disc.  And the depth HW: half the path of light
        through the deepest disc, divided by the square root of its radius.
    """
    reach = int(np.ceil(points.radius_N.max()))
    offset = np.arange(-reach, reach + 1)
    row_N, column_N = np.rint(points.y_N).astype(int), np.rint(points.x_N).astype(int)
    patch = row_N.size, offset.size, offset.size
    row_NPP = np.broadcast_to((row_N[:, None] + offset)[:, :, None], patch)
    column_NPP = np.broadcast_to((column_N[:, None] + offset)[:, None, :], patch)
    squared_NPP = (row_NPP - points.y_N[:, None, None]) ** 2
    squared_NPP = squared_NPP + (column_NPP - points.x_N[:, None, None]) ** 2
    radius_N11 = points.radius_N[:, None, None]
    inside_NPP = (row_NPP >= 0) & (row_NPP < side) & (column_NPP >= 0) & (column_NPP < side)
    inside_NPP &= squared_NPP <= radius_N11**2
    depth_NPP = np.sqrt(np.maximum(radius_N11**2 - squared_NPP, 0.05) / radius_N11)
    depth_HW = np.zeros((side, side))
    where = row_NPP[inside_NPP], column_NPP[inside_NPP]
    np.maximum.at(depth_HW, where, depth_NPP[inside_NPP])
    return depth_HW > 0, depth_HW


def background(side: int, clutter: float, rng: np.random.Generator) -> Floats:
    """Draw the background: soft shades, and ribs and thin wires as clutter."""
    unit = side / 160
    soft_HW = ndimage.zoom(rng.normal(0, 1, (6, 6)), side / 6, order=3, mode="nearest")
    soft_HW = 0.6 + 0.07 * soft_HW[:side, :side]
    y_HW, x_HW = np.mgrid[:side, :side] / side
    for _ in range(4):  # ribs: broad dark arcs
        centre, slope, bend = rng.uniform(-0.2, 1.2), rng.normal(0, 0.5), rng.normal(0, 0.5)
        line_HW = y_HW - centre - slope * (x_HW - 0.5) - bend * (x_HW - 0.5) ** 2
        width = rng.uniform(0.03, 0.07)
        soft_HW *= 1 - 0.16 * clutter * np.exp(-((line_HW / width) ** 2))
    wires_HW = np.zeros((side, side))
    for _ in range(round(14 * clutter)):  # wires: short thin dark lines
        start = rng.uniform(0, side, 2)
        angle, length = rng.uniform(0, np.pi), rng.uniform(6, 18) * unit
        along = np.linspace(0, length, int(2 * length) + 2)
        row = np.rint(start[0] + along * np.sin(angle)).astype(int)
        column = np.rint(start[1] + along * np.cos(angle)).astype(int)
        ok = (row >= 0) & (row < side) & (column >= 0) & (column < side)
        wires_HW[row[ok], column[ok]] = rng.uniform(0.5, 1.0)
    return soft_HW * (1 - 0.25 * clutter * ndimage.gaussian_filter(wires_HW, 0.8))
