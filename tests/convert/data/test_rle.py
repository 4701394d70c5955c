from edgemask_convert.data.rle import to_rle


def test_segmentations_of_all_kinds() -> None:
    from pycocotools import mask as coco_mask

    polygon = [[5, 5, 15, 5, 15, 15, 5, 15]]
    assert coco_mask.area(to_rle(polygon, 20, 60)) == 100
    runs = {"size": [2, 2], "counts": [1, 2, 1]}
    assert coco_mask.area(to_rle(runs, 2, 2)) == 2
    packed = coco_mask.frPyObjects(runs, 2, 2)
    assert to_rle(packed, 20, 60) is packed


def test_parts_are_one_mask() -> None:
    from pycocotools import mask as coco_mask

    parts = [[0, 0, 4, 0, 4, 4, 0, 4], [2, 0, 8, 0, 8, 4, 2, 4]]  # they overlap
    assert coco_mask.area(to_rle(parts, 10, 10)) == 8 * 4
