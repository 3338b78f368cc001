"""Polygons to masks, by the rule of pycocotools or of OpenCV.

A polygon is a flat list x1, y1, x2, y2, ... of at least three corners, in pixels or as shares of
the picture's width and height.  The polygons of an object are united; one that lies inside another
polygon of its object is a hole, and one inside a hole is filled again (pycocotools would fill all).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage import draw

from core_rl.config import is_number
from sa2va_rl.config import Corners, PolygonRule

LARGEST = 1e6  # coordinate of a corner
OUTSIDE = 0.05  # share of the picture's side by which a corner may lie outside

Points = NDArray[np.float64]
Pixels = tuple[NDArray[np.signedinteger], ...]  # rows and columns


def fill_polygons(
    mask: Any,
    size: tuple[int, ...],
    where: str,
    rule: PolygonRule = PolygonRule.coco,
    corners: Corners = Corners.pixels,
) -> NDArray[np.bool_]:
    """Draw the polygons of an annotation.

    Args:
        mask: a list of polygons, or a list of objects that are lists of polygons.
        size: height and width of the picture.
        where: file, entry and picture, for errors.
        rule: see `PolygonRule`.
        corners: unit of the coordinates.

    Raises:
        ValueError: no polygon, one that is none, corners in another unit or of a picture of
            another size, or polygons that cover no pixel.
    """
    if not isinstance(mask, list) or not mask:
        raise ValueError(f"{where}: `mask` has no polygon; leave the entry out or draw its vessels")
    objects = _objects(mask, where)
    height, width = size[:2]
    sides = np.array([width, height], dtype=np.float64)
    points = [[np.asarray(p, dtype=np.float64).reshape(-1, 2) for p in one] for one in objects]
    _check_unit(np.concatenate([p for one in points for p in one]), sides, corners, where)
    unit = sides if corners is Corners.normalised else np.ones(2)
    mask_HW = np.zeros((height, width), dtype=bool)
    for one in points:
        mask_HW |= _united([_draw(points_N2 * unit, size, rule) for points_N2 in one], size)
    if not mask_HW.any():
        raise ValueError(
            f"{where}: the polygons of `mask` cover no pixel; if corners are centres of pixels, "
            "set data_mix.polygon_rule=cv2"
        )
    return mask_HW


def _objects(mask: list[Any], where: str) -> list[list[list[float]]]:
    """Sort polygons by object; those that stand in no object are one."""
    objects, loose = list[list[Any]](), list[Any]()
    for item in mask:
        if isinstance(item, list) and item and all(isinstance(part, list) for part in item):
            for index, polygon in enumerate(item):
                _check(polygon, f"{where}: polygon {index} of object {len(objects)}")
            objects.append(item)
        else:
            _check(item, f"{where}: polygon {len(loose)}")
            loose.append(item)
    return [*objects, loose] if loose else objects


def _check(polygon: Any, where: str) -> None:
    if not (
        isinstance(polygon, list)
        and len(polygon) >= 6
        and len(polygon) % 2 == 0
        and all(is_number(value) and abs(value) <= LARGEST for value in polygon)
    ):
        raise ValueError(
            f"{where} of `mask` is {str(polygon)[:60]}, expected a list x1, y1, x2, y2, ... of at "
            "least three corners"
        )


def _check_unit(points_N2: Points, sides: Points, corners: Corners, where: str) -> None:
    """Refuse corners (x, y) of another unit, or of a picture of another size."""
    if corners is Corners.pixels and points_N2.min() >= 0 and points_N2.max() <= 1:
        raise ValueError(
            f"{where}: all corners lie between 0 and 1, so they seem to be shares of the picture: "
            "set data_mix.corners=normalised"
        )
    shares_N2 = points_N2 if corners is Corners.normalised else points_N2 / sides
    if shares_N2.min() >= -OUTSIDE and shares_N2.max() <= 1 + OUTSIDE:
        return
    x, y = points_N2[np.abs(shares_N2 - 0.5).max(axis=1).argmax()]
    if corners is Corners.normalised:
        raise ValueError(
            f"{where}: the corner ({x:g}, {y:g}) is no share of the picture's sides: for pixels, "
            "set data_mix.corners=pixels"
        )
    raise ValueError(
        f"{where}: the corner ({x:g}, {y:g}) is outside {sides[0]:.0f} x {sides[1]:.0f} pixels, so "
        "the polygons seem to be drawn on a picture of another size: bring the picture to that "
        "size, or divide x and y by its width and height and set data_mix.corners=normalised"
    )


@dataclass(frozen=True)
class _Drawn:
    """A polygon's box (left, top, right, bottom), its pixels, and its pixels as a hole."""

    box: Points
    filled: Pixels
    hole: Pixels


def _draw(points_N2: Points, size: tuple[int, ...], rule: PolygonRule) -> _Drawn:
    box = np.concatenate([points_N2.min(axis=0), points_N2.max(axis=0)])
    if rule is PolygonRule.coco:
        filled = draw.polygon(points_N2[:, 1] - 0.5, points_N2[:, 0] - 0.5, size[:2])
        return _Drawn(box, filled, filled)
    columns, rows = np.rint(points_N2).astype(np.int64).T
    drawn_HW = np.zeros(size[:2], dtype=bool)
    drawn_HW[draw.polygon(rows, columns, size[:2])] = True
    outline = draw.polygon_perimeter(rows, columns, size[:2])
    drawn_HW[outline] = False
    hole = np.nonzero(drawn_HW)  # OpenCV's outline of a hole is on the pixels around it
    drawn_HW[outline] = True
    return _Drawn(box, np.nonzero(drawn_HW), hole)


def _united(drawn: Sequence[_Drawn], size: tuple[int, ...]) -> NDArray[np.bool_]:
    """Fill polygons from the outermost inwards; every second level is a hole."""
    levels = [0] * len(drawn)
    for outer in drawn:
        inner = [place for place, one in enumerate(drawn) if _may_hold(outer, one)]
        if inner:
            outer_HW = np.zeros(size[:2], dtype=bool)
            outer_HW[outer.filled] = True
            for place in inner:
                levels[place] += int(outer_HW[drawn[place].filled].all())
    mask_HW = np.zeros(size[:2], dtype=bool)
    for place in np.argsort(levels, kind="stable"):
        is_hole = levels[place] % 2 == 1
        mask_HW[drawn[place].hole if is_hole else drawn[place].filled] = not is_hole
    return mask_HW


def _may_hold(outer: _Drawn, inner: _Drawn) -> bool:
    """Compare areas and bounding boxes, before pixels are compared."""
    smaller = inner.filled[0].size < outer.filled[0].size
    starts, ends = inner.box[:2] >= outer.box[:2], inner.box[2:] <= outer.box[2:]
    return bool(smaller and starts.all() and ends.all())
