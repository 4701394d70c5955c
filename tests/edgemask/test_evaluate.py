"""Average precision on hand-made cases whose result is known, and on data labelled in part."""

from __future__ import annotations

import contextlib
import copy
import json
import sys

import numpy as np
import pytest
from PIL import Image
from synthetic import draw_scene, make_instances

from edgemask import evaluate as evaluation
from edgemask.errors import InputError, RuntimeUnavailable, SourceError
from edgemask.evaluate import METRICS, evaluate, load_annotations, predict_dataset
from edgemask.outputs import coco_results

pytest.importorskip("pycocotools")

BOX = {"person": [10, 10, 20, 20], "other": [60, 60, 20, 20], "third": [10, 60, 20, 20]}


def image(image_id=1, **fields):
    return {"id": image_id, "file_name": f"{image_id}.png", "width": 100, "height": 100} | fields


def polygon(box):
    x, y, w, h = box
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def annotation(box, category_id=1, image_id=1, **fields):
    return {
        "image_id": image_id,
        "category_id": category_id,
        "bbox": box,
        "area": box[2] * box[3],
        "iscrowd": 0,
        "segmentation": polygon(box),
    } | fields


def dataset(images, annotations):
    numbered = [{"id": n, **entry} for n, entry in enumerate(annotations, 1)]
    categories = [{"id": 1, "name": "person"}, {"id": 2, "name": "bicycle"}]
    return {"images": images, "annotations": numbered, "categories": categories}


def detection(box, score=0.9, category_id=1, image_id=1):
    mask = np.zeros((1, 100, 100), bool)
    x, y, w, h = box
    mask[0, y : y + h, x : x + w] = True
    instances = make_instances(mask, [score], category_id)
    return coco_results(instances, image_id)[0]


def average(predictions, data, name="AP", **options):
    """Return one metric after checking that boxes and masks agree on it."""
    report = evaluate(predictions, data, **options)
    assert report["bbox"][name] == pytest.approx(report["segm"][name], abs=1e-6)
    return report["segm"][name]


ONE = dataset([image()], [annotation(BOX["person"])])
BOTH = dataset([image()], [annotation(BOX["person"]), annotation(BOX["other"])])


def test_truth_as_predictions_is_perfect():
    predictions = [detection(BOX["person"]), detection(BOX["other"], 0.6)]
    report = evaluate(predictions, BOTH)
    assert list(report) == ["bbox", "segm"]
    for metrics in report.values():
        assert list(metrics) == METRICS
        assert metrics["AP"] == metrics["AP50"] == metrics["AR100"] == pytest.approx(1)
        assert metrics["APs"] == pytest.approx(1)
        assert metrics["APm"] is None
        assert metrics["APl"] is None


def test_nothing_predicted():
    assert average([], BOTH) == 0


def test_half_of_it_found():
    # Precision is 1 up to recall 0.5: 51 of the 101 recall points.
    assert average([detection(BOX["person"])], BOTH) == pytest.approx(51 / 101)


def test_surer_false_positive_costs_half():
    predictions = [detection(BOX["third"], 0.9), detection(BOX["person"], 0.8)]
    assert average(predictions, ONE) == pytest.approx(0.5)


def test_loose_box_counts_at_low_thresholds_only():
    loose = detection([10, 10, 20, 14])  # IoU 0.7
    assert average([loose], ONE, "AP50") == pytest.approx(1)
    assert average([loose], ONE, "AP75") == 0
    assert average([loose], ONE) == pytest.approx(0.5, abs=0.01)


def test_crowds_are_ignored():
    data = dataset([image()], [annotation(BOX["person"]), annotation(BOX["other"], iscrowd=1)])
    predictions = [detection(BOX["other"], 0.9), detection(BOX["person"], 0.8)]
    assert average(predictions, data) == pytest.approx(1)


def test_category_ids_choose_what_is_averaged():
    data = dataset([image()], [annotation(BOX["person"]), annotation(BOX["other"], 2)])
    predictions = [detection(BOX["person"])]
    assert average(predictions, data) == pytest.approx(0.5)
    assert average(predictions, data, category_ids=[1]) == pytest.approx(1)
    assert average(predictions, data, category_ids=[2]) == 0


# ---- labeled_cats


def test_detection_of_a_category_that_is_not_labelled_here():
    data = dataset(
        [image(1, labeled_cats=[1]), image(2, labeled_cats=[1, 2])],
        [annotation(BOX["person"]), annotation(BOX["other"], 2, image_id=2)],
    )
    predictions = [
        detection(BOX["person"]),
        detection(BOX["third"], 0.95, 2),  # a bicycle where bicycles are not labelled
        detection(BOX["other"], 0.9, 2, image_id=2),
    ]
    assert average(predictions, data) == pytest.approx(1)
    without = copy.deepcopy(data)
    for entry in without["images"]:
        del entry["labeled_cats"]
    assert average(predictions, without) == pytest.approx(0.75)


def test_annotation_of_a_category_that_is_not_labelled_exhaustively():
    data = dataset(
        [image(1, labeled_cats=[2]), image(2, labeled_cats=[1])],
        [annotation(BOX["person"]), annotation(BOX["person"], image_id=2)],
    )
    assert average([detection(BOX["person"], image_id=2)], data, category_ids=[1]) == (
        pytest.approx(1)
    )


def test_no_category_labelled_is_not_all_labelled():
    data = dataset([image(1, labeled_cats=[]), image(2)], [annotation(BOX["person"], image_id=2)])
    predictions = [detection(BOX["third"], 0.99), detection(BOX["person"], image_id=2)]
    assert average(predictions, data) == pytest.approx(1)


# ---- exhaustive


@pytest.mark.parametrize(("exhaustive", "expected"), [(0, 1.0), (1, 0.5)])
def test_unmatched_detection_where_labels_may_be_missing(exhaustive, expected):
    data = dataset([image(exhaustive=exhaustive)], [annotation(BOX["person"])])
    predictions = [detection(BOX["third"], 0.95), detection(BOX["person"], 0.9)]
    assert average(predictions, data) == pytest.approx(expected)


def test_missed_annotation_counts_where_labels_may_be_missing():
    data = copy.deepcopy(BOTH)
    data["images"][0]["exhaustive"] = 0
    predictions = [detection(BOX["person"]), detection(BOX["third"], 0.95)]
    assert average(predictions, data) == pytest.approx(51 / 101)


def test_other_images_are_judged_as_usual():
    data = dataset(
        [image(1, exhaustive=0), image(2, exhaustive=1)],
        [annotation(BOX["person"]), annotation(BOX["person"], image_id=2)],
    )
    found = [detection(BOX["person"]), detection(BOX["person"], image_id=2)]
    assert average([*found, detection(BOX["third"], 0.99)], data) == pytest.approx(1)
    assert average([*found, detection(BOX["third"], 0.99, image_id=2)], data) < 0.7


def test_match_below_the_threshold_is_forgiven_only_there():
    data = dataset([image(exhaustive=0)], [annotation(BOX["person"])])
    loose = detection([10, 10, 20, 14])  # IoU 0.7: matched up to there, ignored above
    assert average([loose], data, "AP50") == pytest.approx(1)
    assert average([loose], data, "AP75") == 0


# ---- ids


@pytest.mark.parametrize("numbers", [(0, 1), (7, 7)])
def test_ids_that_mislead_pycocotools(numbers):
    """To it an object with the id 0 is never found, and objects that share an id are one."""
    data = copy.deepcopy(BOTH)
    for entry, number in zip(data["annotations"], numbers, strict=True):
        entry["id"] = number
    before = copy.deepcopy(data)
    predictions = [detection(BOX["person"]), detection(BOX["other"], 0.6)]
    assert average(predictions, data) == pytest.approx(1)
    assert data == before


def test_images_that_share_an_id():
    data = dataset([image(1), image(1)], [annotation(BOX["person"])])
    with pytest.raises(SourceError, match="2 images have the id 1: give each its own"):
        load_annotations(data)


# ---- files and errors


def test_files_and_quiet(tmp_path, capsys):
    (tmp_path / "a.json").write_text(json.dumps(ONE))
    (tmp_path / "p.json").write_text(json.dumps([detection(BOX["person"])]))
    report = evaluate(tmp_path / "p.json", str(tmp_path / "a.json"), ["segm"])
    assert list(report) == ["segm"]
    assert report["segm"]["AP"] == pytest.approx(1)
    assert capsys.readouterr() == ("", "")


def test_inputs_are_not_changed():
    data, predictions = copy.deepcopy(ONE), [detection(BOX["person"])]
    before = copy.deepcopy(predictions)
    evaluate(predictions, data)
    assert data == ONE
    assert predictions == before


def test_missing_fields_are_filled_in():
    data = copy.deepcopy(ONE)
    for entry in data["annotations"]:
        del entry["iscrowd"], entry["area"]
    assert average([detection(BOX["person"])], data) == pytest.approx(1)


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d.pop("images"),
        lambda d: d.pop("categories"),
        lambda d: d.update(annotations=3),
        lambda d: d["images"][0].pop("id"),
        lambda d: d["annotations"][0].update(image_id=77),
        lambda d: d["annotations"][0].update(category_id=77),
        lambda d: d["annotations"].append("text"),
    ],
)
def test_annotations_that_are_none(damage):
    data = copy.deepcopy(ONE)
    damage(data)
    with pytest.raises(SourceError, match="the annotations"):
        load_annotations(data)


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        ("images", "id"),
        ("annotations", "image_id"),
        ("annotations", "category_id"),
        ("categories", "id"),
    ],
)
def test_fields_that_are_missing(kind, field):
    data = copy.deepcopy(ONE)
    del data[kind][0][field]
    with pytest.raises(SourceError, match=rf"the annotations: {kind}\[0\] has no '{field}': fix"):
        load_annotations(data)


@pytest.mark.parametrize("field", ["file_name", "height", "width"])
def test_images_need_only_what_is_used(tmp_path, field):
    data = copy.deepcopy(ONE)
    del data["images"][0][field]
    assert evaluate([], data, ["bbox"])["bbox"]["AP"] == 0
    missing = pytest.raises(SourceError, match=rf"image 1 of the annotations has no '{field}': fix")
    with missing if field != "file_name" else contextlib.nullcontext():
        evaluate([], data, ["segm"])
    with missing:
        predict_dataset(None, data, tmp_path)


def test_annotations_need_no_ids():
    data = copy.deepcopy(ONE)
    for entry in data["annotations"]:
        del entry["id"]
    assert evaluate([], data)["segm"]["AP"] == 0


@pytest.mark.parametrize("kind", ["bbox", "segm", "keypoints"])
@pytest.mark.parametrize("box", [None, [1, 2, 3], "wide"])
def test_annotation_without_a_box(kind, box):
    data = dataset([image()], [annotation(BOX["person"], bbox=box, segmentation=[])])
    with pytest.raises(SourceError, match=r"annotation 1 has bbox .*: give x, y, width, height"):
        evaluate([], data, [kind])


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", "null", "[" * 100_000])
def test_files_that_are_none(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(SourceError, match=r"a\.json"):
        load_annotations(tmp_path / "a.json")


def test_missing_files(tmp_path):
    with pytest.raises(SourceError, match=r"a\.json cannot be read.*check the path"):
        evaluate([], tmp_path / "a.json")
    with pytest.raises(SourceError, match=r"p\.json"):
        evaluate(tmp_path / "p.json", ONE)


@pytest.mark.parametrize("predictions", [{}, [3], [{"image_id": 1}], [{"image_id": 1, "score": 1}]])
def test_predictions_that_are_none(predictions):
    with pytest.raises(SourceError, match=r"COCO result|results file"):
        evaluate(predictions, ONE)


def test_predictions_of_other_images_or_categories():
    with pytest.raises(InputError, match="image 5, which is not annotated"):
        evaluate([detection(BOX["person"], image_id=5)], ONE)
    with pytest.raises(InputError, match=r"categories \[9\] are not in the annotations"):
        evaluate([], ONE, category_ids=[1, 9])
    with pytest.raises(InputError, match="iou type 'poses'"):
        evaluate([], ONE, ["poses"])
    boxes_only = {k: v for k, v in detection(BOX["person"]).items() if k != "segmentation"}
    assert evaluate([boxes_only], ONE, ["bbox"])["bbox"]["AP"] == pytest.approx(1)
    with pytest.raises(InputError, match="no segmentation"):
        evaluate([boxes_only], ONE)


def test_without_pycocotools(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    with pytest.raises(RuntimeUnavailable, match="pip install pycocotools"):
        evaluate([], ONE)


# ---- a dataset


@pytest.fixture
def drawn(tmp_path):
    """Three drawn images in a folder, and their annotations."""
    images, annotations = [], []
    for n in range(1, 4):
        scene = draw_scene(seed=n, height=60 + n, width=90)
        scene.save(tmp_path / f"{n}.png")
        images.append(image(n, height=60 + n, width=90))
        for result in coco_results(make_instances(scene.masks), n):
            x, y, w, h = result["bbox"]
            annotations.append(annotation([x, y, w, h], image_id=n) | {"iscrowd": 0})
            annotations[-1]["segmentation"] = result["segmentation"]
    return tmp_path, dataset(images, annotations)


def test_predicting_a_dataset(drawn, fake_segmenter):
    folder, data = drawn
    steps = []
    predictions = predict_dataset(
        fake_segmenter(score_threshold=0.01), data, folder, lambda *step: steps.append(step)
    )
    assert steps == [(1, 3), (2, 3), (3, 3)]
    assert json.loads(json.dumps(predictions)) == predictions
    assert average(predictions, data, category_ids=[1]) == pytest.approx(1)
    two = [fake_segmenter(score_threshold=0.01) for _ in range(2)]
    assert predict_dataset(two, data, folder) == predictions


def test_missing_image(drawn, fake_segmenter):
    folder, data = drawn
    (folder / "2.png").unlink()
    with pytest.raises(SourceError, match=r"2\.png"):
        predict_dataset(fake_segmenter(), data, folder)


def test_image_of_another_size(drawn, fake_segmenter):
    folder, data = drawn
    Image.new("RGB", (45, 31)).save(folder / "2.png")
    with pytest.raises(SourceError, match=r"2\.png is 45x31 .* says 90x62"):
        predict_dataset(fake_segmenter(), data, folder)


def test_image_without_a_name(drawn, fake_segmenter):
    folder, data = drawn
    del data["images"][0]["file_name"]
    with pytest.raises(SourceError, match="file_name"):
        predict_dataset(fake_segmenter(), data, folder)


def test_thresholds_for_average_precision():
    assert (evaluation.SCORE_THRESHOLD, evaluation.MAX_DETECTIONS) == (0.01, 100)


@pytest.mark.parametrize("segmentation", [[], None, [[]], [[10, 60, 30, 80]], [[1, 2], [3, 4]]])
def test_annotation_without_a_mask(segmentation):
    """It counts for boxes; for masks it is neither a miss when absent nor a hit when found."""
    boxed = annotation(BOX["third"], segmentation=segmentation)
    data = dataset([image()], [annotation(BOX["person"]), boxed])
    report = evaluate([detection(BOX["person"])], data)
    assert report["segm"]["AP"] == pytest.approx(1)
    assert report["bbox"]["AP"] < 0.6
    both = [detection(BOX["person"]), detection(BOX["third"], 0.95)]
    assert evaluate(both, data)["segm"]["AP"] == pytest.approx(1)


@pytest.mark.parametrize("segmentation", [[10, 60, 30, 60, 30, 80], "10 60", 7])
def test_segmentation_that_is_none(segmentation):
    data = dataset([image()], [annotation(BOX["person"], segmentation=segmentation)])
    with pytest.raises(SourceError, match=r"annotation 1 has segmentation .*: give a list"):
        evaluate([], data)
    assert evaluate([], data, ["bbox"])["bbox"]["AP"] == 0


def test_polygons_of_two_corners_are_left_out():
    data = copy.deepcopy(ONE)
    data["annotations"][0]["segmentation"].insert(0, [60, 60, 80, 80])
    assert average([detection(BOX["person"])], data) == pytest.approx(1)
