"""What a teacher may return, and how a user's own is loaded."""

from __future__ import annotations

import numpy as np
import pytest
from edgemask_convert.teach.protocol import SoftInstances, TeacherError, import_teacher
from edgemask_convert.teach.registry import make_teacher
from edgemask_convert.teach.vocabulary import Vocabulary

MASK = np.full((1, 3, 3), 0.5, np.float32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[0, 0, 2, 2]], [0.5, 0.5], [1], MASK), "one of each per box"),
        (([[0, 0, 2, 2]], [1.5], [1], MASK), "score"),
        (([[0, 0, 2, 2]], [float("nan")], [1], MASK), "score"),
        (([[0, 0, 2, float("inf")]], [0.5], [1], MASK), "infinite"),
        (([[0, 0, 2, 2]], [0.5], [1], MASK * 9), "probabilities"),
        (([[0, 0, 2, 2]], [0.5], [1], MASK * np.nan), "probabilities"),
        (([[0, 0, 2, 2]], [0.5], [1], MASK[:, :2]), "N, S, S"),
        (([[0, 0, 2, 2]], [0.5], [1], np.zeros((2, 3, 3))), "for 1 boxes"),
    ],
)
def test_what_is_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(TeacherError, match=message):
        SoftInstances(*arguments)


def test_empty_and_chosen() -> None:
    assert len(SoftInstances.empty()) == 0
    two = SoftInstances([[0, 0, 2, 2], [1, 1, 3, 3]], [0.5, 0.9], [1, 2], np.zeros((2, 3, 3)))
    assert two[two.scores > 0.6].class_ids.tolist() == [2]
    assert len(two[np.zeros(2, bool)]) == 0


def test_categories_are_matched_by_name() -> None:
    dataset = [{"id": 1, "name": "Person"}, {"id": 2, "name": "cell"}, {"id": 3, "name": "CAR"}]
    words = Vocabulary({1: "car", 2: "dog", 3: "person"}, dataset)
    assert words.known == [1, 3]
    assert words.to_teacher(np.array([3, 1])).tolist() == [1, 3]
    boxes = np.tile([0, 0, 2, 2], (3, 1))
    found = SoftInstances(boxes, [0.9, 0.8, 0.7], [2, 1, 3], np.zeros((3, 2, 2)))
    kept = words.to_dataset(found)
    assert kept.class_ids.tolist() == [3, 1]
    assert kept.scores.tolist() == pytest.approx([0.8, 0.7])


def test_ids_that_are_none_of_the_teachers_are_not_dropped_in_silence() -> None:
    words = Vocabulary({1: "cell", 2: "dog"}, [{"id": 5, "name": "cell"}])
    counted_from_0 = SoftInstances(
        np.tile([0, 0, 2, 2], (2, 1)), [0.9] * 2, [1, 0], np.ones((2, 2, 2))
    )
    with pytest.raises(TeacherError, match=r"class ids \[0\], which are no keys"):
        words.to_dataset(counted_from_0)


def test_keeping_to_some_categories() -> None:
    dataset = [{"id": 1, "name": "person"}, {"id": 2, "name": "car"}]
    assert Vocabulary({1: "car", 3: "person"}, dataset, [1]).known == [1]
    with pytest.raises(TeacherError, match="no name in common"):
        Vocabulary({1: "car"}, dataset, [1])


def test_no_common_category() -> None:
    with pytest.raises(TeacherError, match="no name in common"):
        Vocabulary({1: "car"}, [{"id": 1, "name": "cell"}])


def test_a_teacher_of_ones_own(tmp_path, monkeypatch) -> None:
    (tmp_path / "own_teacher_module.py").write_text(
        "class T:\n"
        "    name = 'own'\n    categories = {1: 'cell'}\n"
        "    def label(self, image): ...\n    def segment(self, image, boxes, ids): ...\n"
        "def make(path=None):\n    t = T()\n    t.path = path\n    return t\n"
        "def nothing():\n    return 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert make_teacher("own_teacher_module:make").name == "own"
    assert make_teacher("own_teacher_module:make:a:b").path == "a:b"
    with pytest.raises(TeacherError, match="name, categories, label, segment"):
        import_teacher("own_teacher_module:nothing")
    with pytest.raises(TeacherError, match="has no attribute 'other'"):
        import_teacher("own_teacher_module:other")
    with pytest.raises(TeacherError, match="cannot import"):
        import_teacher("there_is_no_such_module:make")
    with pytest.raises(TeacherError, match="not for the teacher"):
        make_teacher("own_teacher_module:make", short_sides=(320,))


@pytest.mark.parametrize("spec", ["", "maskrcnn2go", "pack", "nonsense"])
def test_incomplete_specs(spec: str) -> None:
    with pytest.raises(TeacherError, match="not complete"):
        make_teacher(spec)


def test_missing_weights(tmp_path) -> None:
    with pytest.raises(TeacherError, match=r"model\.pb and .*model_init\.pb missing"):
        make_teacher(f"maskrcnn2go:{tmp_path}")
