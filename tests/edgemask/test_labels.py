"""Labels stay inside the image, apart from each other, and out of the way where it is crowded."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from PIL import ImageFont
from synthetic import make_instances

from edgemask import labels
from edgemask.overlay import draw


@pytest.fixture
def stamped(monkeypatch):
    """Record the rectangle of every label that is drawn."""
    rects = []
    stamp = labels._stamp

    def record(image, rect, chip, colour):
        rects.append(rect)
        stamp(image, rect, chip, colour)

    monkeypatch.setattr(labels, "_stamp", record)
    return rects


def people(height, width, count, size):
    """Return masks of rectangles side by side at the top of the image."""
    masks = np.zeros((count, height, width), bool)
    for n in range(count):
        left = round(n * (width - size) / max(count - 1, 1))
        masks[n, height // 3 : height * 3 // 4, left : left + size] = True
    return make_instances(masks)


def test_one_label_above_the_head(stamped):
    draw(np.zeros((240, 320, 3), np.uint8), people(240, 320, 1, 60))
    ((left, top, right, bottom),) = stamped
    assert bottom <= 80 < bottom + 10
    assert left >= 0
    assert top >= 0
    assert right <= 320


@pytest.mark.parametrize("count", [2, 5, 8])
def test_labels_keep_apart_and_inside(stamped, count):
    draw(np.zeros((480, 640, 3), np.uint8), people(480, 640, count, 70))
    assert len(stamped) == count
    for left, top, right, bottom in stamped:
        assert 0 <= left < right <= 640
        assert 0 <= top < bottom <= 480
    for a, b in itertools.combinations(stamped, 2):
        assert min(a[2], b[2]) <= max(a[0], b[0]) or min(a[3], b[3]) <= max(a[1], b[1])


def test_label_of_an_instance_that_fills_the_image(stamped):
    draw(np.zeros((200, 300, 3), np.uint8), make_instances(np.ones((1, 200, 300), bool)))
    ((left, top, right, bottom),) = stamped
    assert 0 <= left < right <= 300
    assert 0 <= top < bottom <= 200


def test_crowd_in_a_small_image_is_not_covered(stamped):
    draw(np.zeros((100, 100, 3), np.uint8), people(100, 100, 20, 12))
    covered = sum((right - left) * (bottom - top) for left, top, right, bottom in stamped)
    assert 0 < len(stamped) < 20
    assert covered < 0.35 * 100 * 100


def test_no_label_where_none_fits(stamped):
    draw(np.zeros((6, 8, 3), np.uint8), make_instances(np.ones((1, 6, 8), bool)))
    assert stamped == []


def test_text_grows_with_the_image(stamped):
    for side in (200, 2000):
        draw(np.zeros((side, side, 3), np.uint8), people(side, side, 1, side // 4))
    (small, large) = ((bottom - top) for _, top, _, bottom in stamped)
    assert small >= 12
    assert large > 4 * small


@pytest.mark.parametrize("colour", [(240, 228, 66), (0, 114, 178)])
def test_text_contrasts_with_its_label(colour):
    chip = labels._chip("person 0.97", 40.0)
    image = np.full((chip.height, chip.width, 3), 128, np.uint8)
    labels._stamp(image, (0, 0, chip.width, chip.height), chip, colour)
    distance = np.abs(image.astype(int) - colour).sum(axis=2)
    assert (distance == 0).mean() > 0.4
    assert (distance > 200).mean() > 0.05


def test_old_pillow_without_a_scalable_font(monkeypatch):
    bitmap = getattr(ImageFont, "load_default_imagefont", ImageFont.load_default)()

    def load_default(*size):
        if size:
            raise TypeError("load_default() takes 0 positional arguments but 1 was given")
        return bitmap

    monkeypatch.setattr(ImageFont, "load_default", load_default)
    for cache in (labels._font, labels._chip):
        cache.cache_clear()
    try:
        small, large = labels._chip("person 0.97", 10.0), labels._chip("person 0.97", 40.0)
    finally:
        for cache in (labels._font, labels._chip):
            cache.cache_clear()
    assert 3 < large.width / small.width < 5
    assert np.asarray(large)[:, :, 0].max() > 200


def test_a_track_is_labelled_with_its_number(monkeypatch):
    texts = []
    chip = labels._chip

    def record(text, size):
        texts.append(text)
        return chip(text, size)

    monkeypatch.setattr(labels, "_chip", record)
    found = people(240, 320, 2, 60)
    found.track_ids = np.array([12, -1], np.int32)
    draw(np.zeros((240, 320, 3), np.uint8), found)
    assert "person #12" in texts
    assert not any("0." in text for text in texts if "#" in text)
    assert any(text.startswith(("person 0", "person 1")) for text in texts)
