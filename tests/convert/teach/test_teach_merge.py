"""What of a teacher is believed: one image per rule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from edgemask_convert.data.soft_mask import decode_soft_mask
from edgemask_convert.teach.merge import Rules, mask_score, open_categories, teach_image
from edgemask_convert.teach.protocol import SoftInstances, TeacherError
from edgemask_convert.teach.vocabulary import Vocabulary

from edgemask import rle
from edgemask.errors import InputError

IMAGE = np.zeros((40, 60, 3), np.uint8)
DATASET = [{"id": 1, "name": "disc"}, {"id": 2, "name": "hat"}, {"id": 3, "name": "unknown"}]
SURE = np.full((4, 4), 0.9, np.float32)


def detections(*rows: tuple[list[float], float, int]) -> SoftInstances:
    """Teacher's detections; its ids are 7 for a disc and 9 for a hat."""
    boxes, scores, ids = zip(*rows, strict=True)
    return SoftInstances(np.array(boxes), scores, ids, np.tile(SURE, (len(rows), 1, 1)))


def label(number: int, box: list[float], category: int = 1, **extra: Any) -> dict[str, Any]:
    entry = {"id": number, "image_id": 5, "category_id": category, "bbox": box, "iscrowd": 0}
    return {**entry, "segmentation": [[0, 0, 1, 0, 1, 1]], **extra}


def teach(teacher: Any, annotations: list[dict], rules: Rules | None = None, **info: Any) -> Any:
    words = Vocabulary(teacher.categories, DATASET)
    info = {"id": 5, "height": 40, "width": 60, **info}
    return teach_image(IMAGE, info, annotations, teacher, words, rules or Rules())


def test_a_box_without_mask_is_filled(fake_teacher: Any) -> None:
    teacher = fake_teacher()
    labels = [label(1, [5, 5, 10, 10], segmentation=[]), label(2, [20, 5, 10, 10])]
    taught = teach(teacher, labels)
    assert list(taught.filled) == [1]
    fields = taught.filled[1]
    assert fields["mask_source"] == "teacher"
    assert fields["mask_score"] == pytest.approx(0.9)
    assert decode_soft_mask(fields["soft_mask"]).tolist() == [[230] * 4] * 4
    assert taught.added == []
    assert taught.looked_for == []
    assert teacher.labelled == 0  # every category is labelled: nothing to look for
    boxes, ids = teacher.asked
    assert boxes.tolist() == [[5, 5, 15, 15]]
    assert ids.tolist() == [7]


@pytest.mark.parametrize("segmentation", [[[]], [[5, 5, 15, 15]]])
def test_a_mask_without_area_is_filled(fake_teacher: Any, segmentation: Any) -> None:
    taught = teach(fake_teacher(), [label(1, [5, 5, 10, 10], segmentation=segmentation)])
    assert list(taught.filled) == [1]


def test_what_is_not_filled(fake_teacher: Any) -> None:
    teacher = fake_teacher()
    labels = [
        label(1, [5, 5, 10, 10], segmentation=[], iscrowd=1),
        label(2, [5, 5, 10, 10], segmentation=[], soft_mask={"size": 1, "data": "x"}),
        label(3, [5, 5, 10, 10], segmentation=[], category=3),
        label(4, [70, 5, 10, 10], segmentation=[]),
    ]
    assert teach(teacher, labels).filled == {}
    assert teacher.segmented == 0


def test_a_prompt_is_clipped_to_the_image(fake_teacher: Any) -> None:
    teacher = fake_teacher()
    teach(teacher, [label(1, [-5, 30, 20, 20], segmentation=[])])
    assert teacher.asked[0].tolist() == [[0, 30, 15, 40]]


def test_an_unsure_or_empty_mask_is_not_used(fake_teacher: Any) -> None:
    labels = [label(1, [5, 5, 10, 10], segmentation=[])]
    assert teach(fake_teacher(), labels, Rules(mask_score=0.95)).filled == {}
    teacher = fake_teacher()
    teacher.segment = lambda *_: np.zeros((1, 4, 4), np.float32)
    assert teach(teacher, labels, Rules(mask_score=0)).filled == {}


def test_a_teacher_that_takes_no_prompt_gives_the_mask_it_found_there(fake_teacher: Any) -> None:
    found = detections(([4, 4, 12, 12], 0.4, 7), ([4, 4, 12, 12], 0.9, 9))
    found.masks[0, :, :2] = 0  # the disc: only its right half
    teacher = fake_teacher(found, promptable=False)
    labels = [
        label(1, [4, 4, 8, 8], segmentation=[]),  # exactly there
        label(2, [8, 4, 6, 8], segmentation=[]),  # IoU 0.4: another object
    ]
    filled = teach(teacher, labels).filled
    assert list(filled) == [1]
    mask = decode_soft_mask(filled[1]["soft_mask"])
    assert (mask[:, 0] < 30).all()
    assert (mask[1:3, 3] > 200).all()


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({}, []),
        ({"labeled_cats": [1, 2, 3]}, []),
        ({"labeled_cats": [1]}, [2]),
        ({"labeled_cats": []}, [1, 2]),
        ({"labeled_cats": [1, 2], "exhaustive": 0}, [1, 2]),
        ({"exhaustive": 0}, [1, 2]),
        ({"exhaustive": 1, "labeled_cats": None}, []),
    ],
)
def test_where_the_labels_leave_room(info: dict, expected: list[int]) -> None:
    assert open_categories(info, [1, 2]) == expected


def test_bands_of_scores(fake_teacher: Any) -> None:
    rows = [
        ([1, 1, 9, 9], 0.9, 9),
        ([11, 1, 19, 9], 0.5, 9),
        ([21, 1, 29, 9.5], 0.49, 9),
        ([31, 1, 39, 9], 0.25, 9),
        ([41, 1, 49, 9], 0.24, 9),
        ([51, 1, 59, 9], 0.99, 7),  # discs are all labelled
    ]
    taught = teach(fake_teacher(detections(*rows)), [], labeled_cats=[1])
    assert [(a["bbox"][0], a["iscrowd"]) for a in taught.added] == [
        (1, 0),
        (11, 0),
        (21, 1),
        (31, 1),
    ]
    sure, _, doubtful, _ = taught.added
    assert sure["category_id"] == 2
    assert sure["image_id"] == 5
    assert sure["source"] == "teacher"
    assert sure["score"] == pytest.approx(0.9)
    assert sure["segmentation"] == []
    assert sure["area"] == 64
    assert decode_soft_mask(sure["soft_mask"]).shape == (4, 4)
    assert "soft_mask" not in doubtful
    region = rle.decode(doubtful["segmentation"]["counts"], *doubtful["segmentation"]["size"])
    assert region[1:10, 21:29].all()
    assert region.sum() == 9 * 8


def test_an_unsure_mask_leaves_the_box(fake_teacher: Any) -> None:
    teacher = fake_teacher(detections(([1, 1, 9, 9], 0.9, 9)))
    (added,) = teach(teacher, [], Rules(mask_score=0.95), labeled_cats=[]).added
    assert "soft_mask" not in added
    assert added["segmentation"] == []


def test_what_is_labelled_already_is_not_added(fake_teacher: Any) -> None:
    found = detections(
        ([0, 0, 10, 10], 0.9, 7),  # IoU 1 with a labelled disc
        ([0, 5, 10, 15], 0.9, 7),  # IoU 1/3: another disc
        ([20, 0, 30, 10], 0.9, 9),  # where people saw a disc
        ([40, 20, 50, 30], 0.9, 7),  # in a crowd of discs
        ([40, 20, 50, 30], 0.9, 9),  # a hat in a crowd of discs
    )
    labels = [
        label(1, [0, 0, 10, 10]),
        label(2, [20, 0, 10, 10]),
        label(3, [35, 15, 25, 25], iscrowd=1),
    ]
    taught = teach(fake_teacher(found), labels, labeled_cats=[], exhaustive=1)
    assert [(a["bbox"][:2], a["category_id"]) for a in taught.added] == [([0, 5], 1), ([40, 20], 2)]


def test_what_exhaustive_labels_deny_is_not_added(fake_teacher: Any) -> None:
    found = detections(([0, 0, 10, 10], 0.99, 7))
    assert teach(fake_teacher(found), [], labeled_cats=[1, 2]).added == []
    assert len(teach(fake_teacher(found), [], labeled_cats=[1, 2], exhaustive=0).added) == 1


def test_a_box_outside_of_the_image_is_an_error(fake_teacher: Any) -> None:
    teacher = fake_teacher(detections(([50, 0, 70, 10], 0.9, 7)))
    with pytest.raises(TeacherError, match="leaves the image"):
        teach(teacher, [], labeled_cats=[])


def test_a_teacher_with_too_few_masks_is_an_error(fake_teacher: Any) -> None:
    teacher = fake_teacher()
    teacher.segment = lambda *_: np.zeros((2, 4, 4), np.float32)
    with pytest.raises(TeacherError, match="for 1 boxes"):
        teach(teacher, [label(1, [5, 5, 10, 10], segmentation=[])])


def test_mask_score() -> None:
    masks = np.zeros((2, 2, 2), np.float32)
    masks[0] = [[0.9, 0.5], [0.4, 0.0]]
    np.testing.assert_allclose(mask_score(masks), [0.7, 0])


@pytest.mark.parametrize("values", [(0.2, 0.5), (1.1, 0.5), (0.5, -0.1)])
def test_thresholds_in_the_wrong_order(values: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="doubt"):
        Rules(*values)


def test_a_mask_is_taken_from_a_detection_of_the_same_class(fake_teacher: Any) -> None:
    found = detections(([4, 4, 12, 12], 0.9, 9), ([4, 4, 12, 12], 0.4, 7))
    found.masks[1, :, :2] = 0  # the disc, which is not the first: only its right half
    teacher = fake_teacher(found, promptable=False)
    filled = teach(teacher, [label(1, [4, 4, 8, 8], segmentation=[])]).filled
    mask = decode_soft_mask(filled[1]["soft_mask"])
    assert (mask[:, 0] < 30).all()
    hat = detections(([4, 4, 12, 12], 0.9, 9))
    teacher = fake_teacher(hat, promptable=False)
    assert teach(teacher, [label(1, [4, 4, 8, 8], segmentation=[])]).filled == {}


def test_area_is_that_of_the_mask(fake_teacher: Any) -> None:
    """COCO's size classes are by it."""
    found = detections(([1, 1, 9, 9], 0.9, 9))
    found.masks[0, :, 1:] = 0.1  # a quarter of the box
    (added,) = teach(fake_teacher(found), [], labeled_cats=[]).added
    assert added["area"] == pytest.approx(16)


def test_less_than_a_pixel_is_not_added(fake_teacher: Any) -> None:
    found = detections(([1, 1, 1.8, 9], 0.9, 9), ([1, 1, 9, 1.8], 0.2, 7), ([5, 5, 6, 6], 0.9, 7))
    added = teach(fake_teacher(found), [], Rules(doubt=0.1), labeled_cats=[]).added
    assert [a["bbox"] for a in added] == [[5, 5, 1, 1]]


def test_another_class_in_nearly_the_same_place(fake_teacher: Any) -> None:
    """IoU 2/3 with a labelled disc is too little to contradict a hat, and .82 is not."""
    found = detections(([20, 2, 30, 12], 0.9, 9), ([20, 1, 30, 11], 0.9, 9))
    added = teach(fake_teacher(found), [label(2, [20, 0, 10, 10])], labeled_cats=[]).added
    assert [a["bbox"][:2] for a in added] == [[20, 2]]
