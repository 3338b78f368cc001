"""Polygons to masks and back, by the rules of COCO and of OpenCV."""

from __future__ import annotations

import numpy as np
import pytest
from skimage import measure

from sa2va_rl.config import Corners, PolygonRule
from sa2va_rl.data.angiograms import DEFAULT, draw_samples
from sa2va_rl.data.polygons import fill_polygons
from sa2va_rl.segmenters.mask_cache import overlap

COCO, CV2 = PolygonRule.coco, PolygonRule.cv2
SIZE = (40, 60)


def box(left: float, top: float, right: float, bottom: float) -> list[float]:
    return [left, top, right, top, right, bottom, left, bottom]


@pytest.mark.parametrize("width", [1, 2, 3, 5])
def test_a_box_has_the_area_of_pycocotools(width: int) -> None:
    """Pycocotools 2.0 gives width * height; OpenCV's fillPoly one row and one column more."""
    bar = [box(10, 5, 10 + width, 35)]
    assert fill_polygons(bar, SIZE, "here", COCO).sum() == width * 30
    assert fill_polygons(bar, SIZE, "here", CV2).sum() == (width + 1) * 31


@pytest.mark.parametrize(
    ("rule", "inner", "hole"), [(COCO, box(15, 15, 25, 25), 100), (CV2, box(15, 15, 25, 25), 81)]
)
def test_a_polygon_inside_another_is_a_hole(
    rule: PolygonRule, inner: list[float], hole: int
) -> None:
    outer = box(10, 10, 30, 30)
    full = fill_polygons([outer], SIZE, "here", rule)
    for polygons in ([outer, inner], [inner, outer], [[inner, outer]]):
        mask_HW = fill_polygons(polygons, SIZE, "here", rule)
        assert full.sum() - mask_HW.sum() == hole
        assert not mask_HW[20, 20] and mask_HW[12, 12]
    island = [outer, inner, box(18, 18, 22, 22)]
    assert fill_polygons(island, SIZE, "here", rule)[20, 20]
    # Another object may lie inside an object without cutting it.
    assert fill_polygons([[outer], [inner]], SIZE, "here", rule).sum() == full.sum()


def test_polygons_that_overlap_or_repeat_are_united() -> None:
    polygons = [box(10, 10, 20, 20), box(15, 10, 25, 20)]
    assert fill_polygons(polygons, SIZE, "here").sum() == 150
    assert fill_polygons([polygons[0]] * 2, SIZE, "here").sum() == 100


def rings_of(mask_HW: np.ndarray) -> list[list[float]]:
    """Outlines and holes of a mask, half-way between pixels, as COCO counts."""
    found = measure.find_contours(np.pad(mask_HW, 1).astype(float), 0.5)
    return [(ring[:-1, ::-1] - 0.5).ravel().tolist() for ring in found if len(ring) > 3]


def test_vessels_survive_the_way_to_outlines_and_back() -> None:
    samples = draw_samples(DEFAULT, range(20), seed=7)
    holes = 0
    for sample in samples:
        assert sample.truth_HW is not None
        rings = rings_of(sample.truth_HW)
        holes += len(rings) - measure.label(sample.truth_HW, connectivity=1).max()
        found = fill_polygons(rings, sample.truth_HW.shape, sample.name, COCO)
        assert overlap(found, sample.truth_HW).dice >= 0.98
    assert holes > 0, "vessels that cross enclose holes"


@pytest.mark.parametrize(
    ("polygon", "corners", "message"),
    [
        (box(0, 0, 400, 400), Corners.pixels, r"\(400, 400\) is outside 60 x 40 .*another size"),
        (box(-30, 0, 30, 30), Corners.pixels, r"\(-30, .*\) is outside 60 x 40"),
        (box(0.2, 0.2, 0.7, 0.7), Corners.pixels, "set data_mix.corners=normalised"),
        (box(10, 10, 30, 30), Corners.normalised, "set data_mix.corners=pixels"),
    ],
)
def test_corners_of_another_scale(polygon: list[float], corners: Corners, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fill_polygons([polygon], SIZE, "here", COCO, corners)


def test_corners_a_little_outside_are_cut() -> None:
    assert fill_polygons([box(-2, -1, 62, 41)], SIZE, "here").all()
