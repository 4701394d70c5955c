"""Drawing: what is covered, what is left alone, and how much memory it takes."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest
from synthetic import draw_scene, make_instances

import edgemask
from edgemask import overlay
from edgemask.errors import InputError
from edgemask.instances import Instances
from edgemask.masks import CropMasks
from edgemask.overlay import PALETTE, draw


def disc(height=120, width=160, centre=(80, 60), radius=30):
    """Return a mask, shape (1, H, W)."""
    y, x = np.ogrid[0.5:height, 0.5:width]
    return ((x - centre[0]) ** 2 + (y - centre[1]) ** 2 <= radius**2)[None]


@pytest.fixture
def grey():
    return np.full((120, 160, 3), 90, np.uint8)


def test_draws_a_copy(grey):
    out = draw(grey, make_instances(disc()))
    assert out.shape == grey.shape
    assert out.dtype == np.uint8
    assert (grey == 90).all()
    assert (out != 90).any()


def test_draws_in_place_and_elsewhere(grey):
    instances = make_instances(disc())
    expected = draw(grey, instances)
    elsewhere = np.zeros_like(grey)
    assert draw(grey, instances, out=elsewhere) is elsewhere
    np.testing.assert_array_equal(elsewhere, expected)
    assert draw(grey, instances, out=grey) is grey
    np.testing.assert_array_equal(grey, expected)


def test_nothing_to_draw(grey):
    out = draw(grey, Instances.empty(120, 160))
    assert out is not grey
    np.testing.assert_array_equal(out, grey)


def test_inside_is_tinted_and_outside_untouched(grey):
    out = draw(grey, make_instances(disc()), alpha=0.5, labels=False)
    middle = 0.5 * 90 + 0.5 * np.array(PALETTE[0])
    assert np.abs(out[60, 80] - middle).max() <= 1
    y, x = np.ogrid[0.5:120, 0.5:160]
    far = np.hypot(x - 80, y - 60) > 30 + 8
    np.testing.assert_array_equal(out[far], grey[far])


def test_outline_has_the_colour_and_a_dark_casing(grey):
    out = draw(grey, make_instances(disc(radius=40)), alpha=0, labels=False)
    row = out[60, :60].astype(int)
    assert (row[:30] == 90).all()
    bright = np.array(PALETTE[0]) * 0.75 + 255 * 0.25
    assert np.abs(row[38:42] - bright).sum(axis=1).min() < 60
    assert row.min() < 80
    np.testing.assert_array_equal(out[60, 60:100], grey[60, 60:100])


def test_edges_are_anti_aliased(grey):
    out = draw(grey, make_instances(disc(radius=40)), labels=False)
    assert len(np.unique(out[:, :, 0])) > 20


def test_no_outline_along_the_border_of_the_image(grey):
    everything = np.ones((1, 120, 160), bool)
    out = draw(grey, make_instances(everything), alpha=0.5, labels=False)
    assert (out == out[60, 80]).all()


def test_instance_in_front_is_drawn_over_the_larger_one(grey):
    masks = np.concatenate([disc(radius=50), disc(radius=15)])
    out = draw(grey, make_instances(masks), alpha=1, labels=False)
    assert out[60, 80].tolist() == list(PALETTE[1])
    swapped = draw(grey, make_instances(masks[::-1]), alpha=1, labels=False)
    assert swapped[60, 80].tolist() == list(PALETTE[0])


def test_a_track_keeps_its_colour(grey):
    masks = np.concatenate([disc(centre=(40, 60), radius=20), disc(centre=(120, 60), radius=20)])
    instances = make_instances(masks)
    instances.track_ids[:] = 5, 9
    first = draw(grey, instances, alpha=1, labels=False)
    second = draw(grey, instances[[1, 0]], alpha=1, labels=False)
    np.testing.assert_array_equal(first, second)
    assert first[60, 40].tolist() == list(PALETTE[5])


def test_more_instances_than_colours():
    masks = np.zeros((21, 60, 160), bool)
    for n in range(21):
        masks[n, 20:50, 7 * n : 7 * n + 6] = True
    indices = overlay._colour_indices(make_instances(masks))
    assert indices[:7] == list(range(7))
    # No two of three neighbours share a colour.
    for near in zip(indices, indices[1:], indices[2:], strict=False):
        assert len(set(near)) == 3
    assert set(indices) == set(range(7))


def test_empty_mask(grey):
    crops = [np.zeros((0, 0), bool), np.zeros((5, 5), bool)]
    masks = CropMasks(crops, [[0, 0], [100, 50]], 120, 160)
    instances = Instances([[0, 0, 9, 9], [100, 50, 105, 55]], [0.9, 0.8], [1, 1], masks, ["a", "b"])
    np.testing.assert_array_equal(draw(grey, instances, labels=False), grey)
    assert draw(grey, instances).shape == grey.shape


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (2, 3), (9, 9), (40, 30), (13, 900)])
def test_tiny_images(shape):
    rgb = np.zeros((*shape, 3), np.uint8)
    assert draw(rgb, make_instances(np.ones((3, *shape), bool))).shape == rgb.shape


def test_looks_the_same_at_any_size():
    small, large = (
        draw(np.full((h, h, 3), 90, np.uint8), make_instances(disc(h, h, (h / 2, h / 2), h / 3)))
        for h in (500, 1500)
    )
    shrunk = large.reshape(500, 3, 500, 3, 3).mean(axis=(1, 3))
    assert np.abs(shrunk - small).mean() < 1


@pytest.mark.parametrize("alpha", [0, 0.45, 1])
@pytest.mark.parametrize("colour", [*PALETTE, (0, 0, 0), (255, 255, 255)])
def test_blending_never_overflows(colour, alpha):
    style = overlay._Style.for_image(480, 640)
    keep, paint = overlay._profile(colour, style, alpha)
    assert (keep[0] == 256).all()
    assert not paint[0].any()
    for old in (0, 1, 254, 255):
        total = old * keep.astype(np.int64) + paint + 128
        assert total.max() < 65536
        blended = total >> 8
        assert (blended >= np.minimum(old, 0)).all()
        assert blended[0].tolist() == [old] * 3


def test_palette_survives_colour_blindness():
    # Viénot, Brettel and Mollon 1999: what the two common kinds see, in linear RGB.
    protanopia = [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]]
    deuteranopia = [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]]
    linear = (np.array(PALETTE) / 255) ** 2.2
    for matrix in (np.eye(3), np.array(protanopia), np.array(deuteranopia)):
        seen = np.clip(linear @ matrix.T, 0, 1) ** (1 / 2.2) * 255
        for one, other in itertools.combinations(seen, 2):
            assert np.linalg.norm(one - other) > 25


def test_memory_stays_below_a_copy_of_the_image():
    height, width = 2000, 3000
    rgb = np.zeros((height, width, 3), np.uint8)
    crop = np.ones((height - 20, width - 20), bool)
    masks = CropMasks([crop, crop], [[10, 10], [5, 5]], height, width)
    boxes = [[10, 10, 2990, 1990], [5, 5, 2985, 1985]]
    instances = Instances(boxes, [0.9, 0.8], [1, 1], masks, ["person"] * 2)
    draw(rgb, instances[0], out=rgb)
    tracemalloc.start()
    draw(rgb, instances, out=rgb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < rgb.nbytes * 1.2


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((48, 64, 3), np.float32),
        np.zeros((48, 64), np.uint8),
        np.zeros((64, 48, 3), np.uint8),
        np.zeros((48, 64, 4), np.uint8),
    ],
)
def test_images_that_do_not_fit_the_instances(image, scene):
    with pytest.raises(InputError, match=r"\(48, 64, 3\)"):
        draw(image, make_instances(scene.masks))
    with pytest.raises(InputError, match="out"):
        draw(scene.rgb, make_instances(scene.masks), out=image)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_alpha_out_of_range(scene, alpha):
    with pytest.raises(InputError, match="alpha"):
        draw(scene.rgb, make_instances(scene.masks), alpha=alpha)


def test_scenes_of_many_kinds():
    for seed in range(20):
        scene = draw_scene(seed, 30 + 17 * seed, 400 - 18 * seed, count=seed % 8)
        out = draw(scene.rgb, make_instances(scene.masks))
        assert out.shape == scene.rgb.shape


def test_draw_is_exported():
    assert edgemask.draw is draw


def test_keypoints_are_drawn_above_a_score():
    rgb = np.full((120, 160, 3), 90, np.uint8)
    masks = np.zeros((1, 120, 160), bool)
    masks[0, 20:100, 40:120] = True
    instances = make_instances(masks)
    plain = draw(rgb, instances, labels=False)
    points = np.zeros((1, 17, 3), np.float32)
    points[0, [7, 9]] = [[60.5, 60.5, 0.6], [100.5, 60.5, 0.6]]  # left elbow and wrist
    instances.keypoints = points
    posed = draw(rgb, instances, labels=False)
    rows, columns = np.nonzero((posed != plain).any(axis=2))
    assert 50 < rows.min() < rows.max() < 70
    assert 50 < columns.min() < 60
    assert 100 < columns.max() < 110
    np.testing.assert_array_equal(draw(rgb, instances, labels=False, keypoint_score=0.7), plain)
    with pytest.raises(InputError, match="keypoint_score is 2"):
        draw(rgb, instances, keypoint_score=2)
