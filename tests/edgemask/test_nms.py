"""NMS: the same indices as torchvision, and as the definition written in loops."""

from pathlib import Path

import numpy as np
import pytest

from edgemask.errors import InputError
from edgemask.nms import batched_nms, nms, nms_in_order

GOLDEN = np.load(Path(__file__).parents[1] / "data" / "kernels_golden.npz")
CASES = ["random", "tied", "many", "many_tied"]


def nms_in_loops(boxes, scores, threshold):
    """The definition, in float32 as torchvision computes it."""
    one = np.float32
    kept = []
    for i in sorted(range(len(boxes)), key=lambda n: (-scores[n], n)):
        for j in kept:
            a, b = boxes[i], boxes[j]
            width = max(one(0), min(a[2], b[2]) - max(a[0], b[0]))
            height = max(one(0), min(a[3], b[3]) - max(a[1], b[1]))
            area_a = (a[2] - a[0]) * (a[3] - a[1])
            area_b = (b[2] - b[0]) * (b[3] - b[1])
            overlap = width * height
            union = area_b + area_a - overlap
            if union and float(overlap / union) > threshold:
                break
        else:
            kept.append(i)
    return kept


def boxes_and_scores(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 250))
    low = rng.uniform(0, 200, (count, 2))
    boxes = np.concatenate([low, low + rng.uniform(0, 120, (count, 2))], 1).astype(np.float32)
    scores = rng.random(count).astype(np.float32)
    if seed % 2:
        boxes = np.round(boxes / 10) * 10
        scores = np.round(scores * 5) / 5
    return rng, boxes, scores


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("number", range(3))
def test_equal_to_torchvision(case, number):
    boxes, scores = GOLDEN[f"nms_{case}_boxes"], GOLDEN[f"nms_{case}_scores"]
    classes = GOLDEN[f"nms_{case}_classes"]
    threshold = float(GOLDEN["nms_thresholds"][number])
    kept = nms(boxes, scores, threshold)
    assert kept.dtype == np.int64
    np.testing.assert_array_equal(kept, GOLDEN[f"nms_{case}_kept{number}"])
    batched = batched_nms(boxes, scores, classes, threshold)
    assert batched.dtype == np.int64
    want = GOLDEN[f"nms_{case}_batched{number}"]
    if len(boxes) > 1000:  # there torchvision's order of equal scores is left to chance
        want = want[np.lexsort((want, -scores[want]))]
    np.testing.assert_array_equal(batched, want)


@pytest.mark.parametrize("seed", range(20))
def test_equal_to_the_definition(seed):
    rng, boxes, scores = boxes_and_scores(seed)
    threshold = float(rng.choice([0.0, 0.1, 0.3, 1 / 3, 0.5, 0.7, 1.0]))
    want = nms_in_loops(boxes, scores, threshold)
    assert nms(boxes, scores, threshold).tolist() == want
    for limit in (0, 1, 7, len(want), 10_000):
        assert nms(boxes, scores, threshold, limit).tolist() == want[:limit]


@pytest.mark.parametrize("seed", range(10))
def test_classes_do_not_compete(seed):
    rng, boxes, scores = boxes_and_scores(seed)
    boxes = np.round(boxes)  # whole numbers: moving the classes apart rounds nothing
    classes = rng.integers(0, 6, len(boxes))
    want = []
    for class_id in range(6):
        members = np.flatnonzero(classes == class_id)
        want += members[nms_in_loops(boxes[members], scores[members], 0.4)].tolist()
    want.sort(key=lambda n: (-scores[n], n))
    assert batched_nms(boxes, scores, classes, 0.4).tolist() == want
    assert batched_nms(boxes, scores, classes, 0.4, max_output=5).tolist() == want[:5]


def test_classes_do_not_compete_at_negative_coordinates():
    # Moved apart by max + 1, class 1 would come to lie on class 0.
    boxes = np.array([[0, 0, 10, 10], [-11, -11, -1, -1]], np.float32)
    assert batched_nms(boxes, [0.9, 0.8], [0, 1], 0.5).tolist() == [0, 1]


def test_many_boxes_keep_the_limit():
    boxes, scores = GOLDEN["nms_many_boxes"], GOLDEN["nms_many_scores"]
    want = GOLDEN["nms_many_batched1"][:50]
    got = batched_nms(boxes, scores, GOLDEN["nms_many_classes"], 0.5, max_output=50)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    ("overlap", "threshold", "kept"),
    # float32(0.3) is above 0.3, float32(0.7) below 0.7; 0.5 is exact.
    [(3, 0.3, [0]), (7, 0.7, [0, 1]), (5, 0.5, [0, 1])],
)
def test_overlap_of_exactly_the_threshold(overlap, threshold, kept):
    side = (10 + overlap) / 2
    boxes = [[0, 0, side, 1], [10 - side, 0, 10, 1]]
    assert nms(boxes, [1.0, 0.5], threshold).tolist() == kept


def test_equal_scores_go_by_index():
    boxes = np.tile(np.float32([[0, 0, 5, 5], [9, 9, 12, 12]]), (100, 1))
    assert nms(boxes, np.ones(200), 0.5).tolist() == [0, 1]


def test_empty_boxes_and_no_boxes():
    with np.errstate(all="raise"):
        assert nms([[3, 3, 3, 3], [3, 3, 3, 3]], [0.1, 0.2], 0.5).tolist() == [1, 0]
        assert nms([], [], 0.5).tolist() == []
        assert batched_nms(np.zeros((0, 4)), [], [], 0.5).tolist() == []
    assert nms([], [], 0.5).dtype == np.int64


def test_wrong_input():
    with pytest.raises(InputError, match="one per box"):
        nms(np.zeros((3, 4)), np.zeros(2), 0.5)
    with pytest.raises(InputError, match="one per box"):
        batched_nms(np.zeros((3, 4)), np.zeros(3), [1, 2], 0.5)


@pytest.mark.parametrize("count", [0, 1, 111, 112, 113, 200, 225, 500])
@pytest.mark.parametrize("limit", [None, 0, 1, 50])
def test_sorted_boxes_need_no_scores(count: int, limit: int | None) -> None:
    rng = np.random.default_rng(count)
    low = rng.uniform(0, 60, (count, 2))
    boxes = np.concatenate([low, low + rng.uniform(0, 60, (count, 2))], axis=1).astype(np.float32)
    scores = np.linspace(1, 0, count, dtype=np.float32)
    found = nms_in_order(boxes, 0.5, limit)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, nms(boxes, scores, 0.5, limit))
    if limit is None:
        assert (np.diff(found) > 0).all()


def test_a_block_of_which_nothing_is_kept() -> None:
    boxes = np.tile(np.float32([5, 5, 20, 30]), (300, 1))
    assert nms_in_order(boxes, 0.5).tolist() == [0]
    assert nms(boxes, np.ones(300), 0.5).tolist() == [0]
