"""Whether a mask is in a zone."""

from __future__ import annotations

import numpy as np
import pytest

from edgemask.errors import InputError
from edgemask.instances import Instances
from edgemask.masks import CropMasks
from edgemask.settings import ZoneSettings
from edgemask.watch.zones import Zone, foot_points, points_in_polygon, rasterize

HALF = ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0))
SIZE = (100, 200)


def instances(*boxes, names=None, scores=None):
    crops = [np.ones((y1 - y0, x1 - x0), bool) for x0, y0, x1, y1 in boxes]
    masks = CropMasks(crops, [box[:2] for box in boxes], *SIZE)
    count = len(boxes)
    array = np.array(boxes, np.float32).reshape(-1, 4)
    return Instances(
        array, scores or [0.9] * count, [1] * count, masks, names or ["person"] * count
    )


# ---- geometry


def test_points_against_the_definition():
    star = [(50, 5), (90, 95), (5, 40), (95, 40), (10, 95)]  # crosses itself
    random = np.random.default_rng(0)
    points = random.uniform(0, 100, (500, 2)).astype(np.float32)

    def crossings(x, y):
        count = 0
        for (x0, y0), (x1, y1) in zip(star, star[1:] + star[:1], strict=True):
            if (y0 > y) != (y1 > y) and x < x0 + (x1 - x0) * (y - y0) / (y1 - y0):
                count += 1
        return count % 2 == 1

    wanted = [crossings(x, y) for x, y in points.tolist()]
    assert 50 < sum(wanted) < 450
    assert points_in_polygon(points, star).tolist() == wanted


def test_pixels_agree_with_points():
    polygon = [(3.2, 1.5), (28.0, 6.0), (22.5, 19.0), (8.0, 12.0)]
    y, x = np.mgrid[:20, :30] + 0.5
    wanted = points_in_polygon(np.stack([x.ravel(), y.ravel()], 1), polygon).reshape(20, 30)
    assert np.array_equal(rasterize(polygon, 20, 30), wanted)
    assert wanted.any()


def test_two_zones_that_share_an_edge_share_no_pixel():
    left = rasterize([(0, 0), (15, 0), (15, 20), (0, 20)], 20, 30)
    right = rasterize([(15, 0), (30, 0), (30, 20), (15, 20)], 20, 30)
    assert not (left & right).any()
    assert (left | right).all()


def test_foot_is_the_lowest_part_and_not_the_middle():
    crop = np.zeros((40, 20), bool)
    crop[:38, 10:] = True  # the body stands to the right
    crop[38:, :4] = True  # the foot to the left
    masks = CropMasks([crop], [(50, 30)], 100, 200)
    ((x, y),) = foot_points(masks).tolist()
    assert (x, y) == (52.0, 69.5)


# ---- zones


def test_foot_point_decides():
    zone = Zone(ZoneSettings("a", HALF), *SIZE)
    found = instances((80, 10, 110, 60), (90, 10, 120, 60), (0, 0, 20, 100))
    assert zone.inside(found).tolist() == [True, False, True]


def test_area_decides_where_it_is_asked_for():
    zone = Zone(ZoneSettings("a", HALF, inside="area", min_share=0.25), *SIZE)
    # A quarter of each third one lies to the left of 100.
    found = instances((90, 10, 130, 60), (91, 10, 131, 60), (10, 10, 20, 20))
    assert zone.inside(found).tolist() == [True, False, True]


def test_only_pixels_of_the_mask_count() -> None:
    """The box lies half in the zone, the mask beside it."""
    crop = np.zeros((20, 40), bool)
    crop[:, 20:] = True
    masks = CropMasks([crop], [(80, 30)], *SIZE)  # its pixels are 100 ... 119
    found = Instances([[80, 30, 120, 50]], [0.9], [1], masks, ["person"])
    zone = ZoneSettings("a", HALF, inside="area", min_share=0.1)
    assert Zone(zone, *SIZE).inside(found).tolist() == [False]


def test_classes_and_scores():
    zone = Zone(ZoneSettings("a", HALF, classes=("dog", "cat"), min_score=0.5), *SIZE)
    boxes = [(0, 0, 10, 10)] * 4
    found = instances(*boxes, names=["dog", "person", "cat", "dog"], scores=[0.9, 0.9, 0.5, 0.4])
    assert zone.inside(found).tolist() == [True, False, True, False]


def test_empty_masks_and_no_instances():
    zone = Zone(ZoneSettings("a", HALF), *SIZE)
    assert zone.inside(Instances.empty(*SIZE)).tolist() == []
    masks = CropMasks([np.zeros((5, 5), bool)], [(0, 0)], *SIZE)
    nothing = Instances([[0, 0, 5, 5]], [0.9], [1], masks, ["person"])
    assert zone.inside(nothing).tolist() == [False]


def test_pixels_and_shares_give_the_same_zone():
    shares = Zone(ZoneSettings("a", HALF), *SIZE)
    pixels = Zone(ZoneSettings("a", ((0, 0), (100, 0), (100, 100), (0, 100))), *SIZE)
    assert np.array_equal(shares.polygon, pixels.polygon)


def test_zone_outside_of_the_image():
    with pytest.raises(InputError, match="'far' covers no pixel of the 200x100 image"):
        Zone(ZoneSettings("far", ((300, 0), (400, 0), (400, 50))), *SIZE)
