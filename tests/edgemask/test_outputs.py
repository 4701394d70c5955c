"""Results are written completely or not at all, under names that do not clash."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from synthetic import make_instances

from edgemask import rle
from edgemask.errors import OutputError
from edgemask.instances import Instances
from edgemask.outputs import (
    OutputNames,
    check_output,
    coco_results,
    image_ids,
    instance_ids,
    json_line,
    write_file,
    write_json,
    write_png,
)


def everything_in(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*"))


# ---- writing


def test_missing_folders_are_made(tmp_path):
    write_file(tmp_path / "a" / "b" / "c.txt", lambda stream: stream.write(b"text"))
    assert (tmp_path / "a/b/c.txt").read_bytes() == b"text"
    assert everything_in(tmp_path) == ["a", "a/b", "a/b/c.txt"]


@pytest.mark.parametrize("letter", ["a", "写", "🙂"])
def test_a_name_of_as_many_bytes_as_there_may_be(tmp_path, letter):
    name = letter * (255 // len(letter.encode()))
    write_file(tmp_path / name, lambda stream: stream.write(b"text"))
    assert everything_in(tmp_path) == [name]


def test_threads_that_write_files_of_nearly_the_same_name(tmp_path):
    paths = [tmp_path / f"{'a' * 120}-{n}.txt" for n in (1, 2)]
    both = threading.Barrier(2, timeout=10)

    def write(stream, path):
        both.wait()  # both files are open
        stream.write(path.name.encode())
        both.wait()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda path: write_file(path, lambda s: write(s, path)), paths))
    assert [path.read_text() for path in paths] == [path.name for path in paths]


def test_files_have_the_usual_permissions(tmp_path):
    before = os.umask(0o022)
    try:
        write_file(tmp_path / "c.txt", lambda stream: stream.write(b"text"))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "c.txt").stat().st_mode) == 0o644


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_failure_leaves_the_old_file_and_nothing_else(tmp_path, failure):
    path = tmp_path / "c.txt"
    path.write_bytes(b"old")

    def write(stream):
        stream.write(b"half of the n")
        stream.flush()
        raise failure

    with pytest.raises((OutputError, KeyboardInterrupt)):
        write_file(path, write)
    assert path.read_bytes() == b"old"
    assert everything_in(tmp_path) == ["c.txt"]


def test_an_error_that_says_what_to_do_is_not_wrapped(tmp_path) -> None:
    def write(stream):
        raise OutputError("this one")

    with pytest.raises(OutputError, match=r"^this one$"):
        write_file(tmp_path / "a.txt", write)


@pytest.mark.parametrize(
    ("code", "cure"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "free some space"),
        (errno.EROFS, "writable file system"),
        (errno.EACCES, "you may write to"),
        (errno.EIO, "another folder"),
    ],
)
def test_message_names_path_reason_and_cure(tmp_path, code, cure):
    def write(_):
        raise OSError(code, os.strerror(code))

    with pytest.raises(OutputError) as caught:
        write_file(tmp_path / "c.txt", write)
    message = str(caught.value)
    assert str(tmp_path / "c.txt") in message
    assert os.strerror(code) in message
    assert cure in message
    assert caught.value.errno == code


def test_error_in_opening_the_file(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(OutputError, match=r"Permission denied.*you may write to"):
        write_file(tmp_path / "c.txt", lambda stream: stream.write(b"x"))
    assert everything_in(tmp_path) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write into read-only folders")
def test_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="you may write to"):
        write_json(tmp_path / "c.json", {})
    tmp_path.chmod(0o700)


@pytest.fixture
def full_disk(tmp_path):
    """A file system of 64 kB; needs root and the right to mount."""
    folder = tmp_path / "full"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("a small file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_full_disk(full_disk):
    noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3), dtype=np.uint8)
    with pytest.raises(OutputError, match=r"No space left on device.*free some space"):
        write_png(full_disk / "p.png", noise)
    with pytest.raises(OutputError, match="No space left on device"):
        write_json(full_disk / "p.json", ["x" * 200_000])
    assert everything_in(full_disk) == []
    write_png(full_disk / "p.png", noise[:50, :50])
    assert everything_in(full_disk) == ["p.png"]


def test_read_only_file_system(full_disk):
    if subprocess.run(["mount", "-o", "remount,ro", str(full_disk)]).returncode:
        pytest.skip("cannot remount here")
    with pytest.raises(OutputError, match=r"Read-only file system.*writable file system"):
        write_json(full_disk / "p.json", {})


def test_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "out").write_text("I am a file")
    for path in (tmp_path / "out" / "c.json", tmp_path / "out" / "deeper" / "c.json"):
        with pytest.raises(OutputError, match="a file is in the way"):
            write_json(path, {})
    assert (tmp_path / "out").read_text() == "I am a file"


def test_folder_where_the_file_should_be(tmp_path):
    (tmp_path / "c.json").mkdir()
    with pytest.raises(OutputError, match="a folder has this name"):
        write_json(tmp_path / "c.json", {})
    assert everything_in(tmp_path) == ["c.json"]


def test_long_names(tmp_path):
    write_json(tmp_path / ("x" * 250 + ".json"), {})
    with pytest.raises(OutputError, match="rename the input"):
        write_json(tmp_path / ("x" * 300 + ".json"), {})


def test_json(tmp_path):
    write_json(tmp_path / "c.json", {"name": "Zoë", "score": 0.5, "none": None})
    assert json.loads((tmp_path / "c.json").read_text("utf-8"))["name"] == "Zoë"
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "d.json", float("nan"))
    assert everything_in(tmp_path) == ["c.json"]


def test_a_line_of_json_takes_any_file_name() -> None:
    assert json_line("grün") == '"grün"\n'.encode()
    assert json.loads(json_line("a\udcff")) == "a\udcff"


@pytest.mark.parametrize(
    "pixels",
    [
        np.arange(60, dtype=np.uint8).reshape(4, 5, 3),
        np.arange(20, dtype=np.uint8).reshape(4, 5),
        np.arange(0, 60000, 3000, dtype=np.uint16).reshape(4, 5),
    ],
)
def test_png(tmp_path, pixels):
    write_png(tmp_path / "p.png", pixels)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "p.png")), pixels)


# ---- content


def test_instance_ids(scene):
    instances = make_instances(scene.masks)
    ids = instance_ids(instances)
    assert ids.dtype == np.uint8
    for n, mask in enumerate(scene.masks):
        np.testing.assert_array_equal(ids == n + 1, mask)
    assert not instance_ids(Instances.empty(4, 5)).any()


def test_instance_ids_where_masks_overlap():
    masks = np.zeros((2, 4, 4), bool)
    masks[0, :3], masks[1, 1:] = True, True
    assert instance_ids(make_instances(masks, [0.9, 0.6]))[:, 0].tolist() == [1, 1, 1, 2]
    assert instance_ids(make_instances(masks, [0.6, 0.9]))[:, 0].tolist() == [1, 2, 2, 2]


def test_more_instances_than_a_byte_holds():
    masks = np.zeros((256, 1, 256), bool)
    masks[np.arange(256), 0, np.arange(256)] = True
    ids = instance_ids(make_instances(masks))
    assert ids.dtype == np.uint16
    assert ids[0].tolist() == list(range(1, 257))
    assert instance_ids(make_instances(masks[:255])).dtype == np.uint8


def test_coco_results(scene):
    instances = make_instances(scene.masks)
    results = coco_results(instances, 7, "a/photo.jpg")
    assert json.loads(json.dumps(results)) == results
    assert len(results) == len(instances)
    for result, mask, box in zip(results, scene.masks, instances.boxes.tolist(), strict=True):
        assert result["image_id"] == 7
        assert result["category_id"] == 1
        assert result["file_name"] == "a/photo.jpg"
        x0, y0, x1, y1 = box
        assert result["bbox"] == [x0, y0, x1 - x0, y1 - y0]
        assert result["segmentation"]["size"] == [48, 64]
        counts = result["segmentation"]["counts"].encode()
        np.testing.assert_array_equal(rle.decode(counts, 48, 64), mask)
    assert "file_name" not in coco_results(instances, 7)[0]


def test_scores_have_five_decimals() -> None:
    found = make_instances(np.ones((1, 8, 8), bool), [0.123456])
    assert coco_results(found, 1)[0]["score"] == 0.12346


# ---- names


def test_a_reserved_name_is_nobody_s(tmp_path):
    names = OutputNames(tmp_path, [], ["coco"])
    assert [names.stem(f"{folder}/COCO.jpg") for folder in "ab"] == ["COCO-2", "COCO-3"]


def test_reserved_names_are_compared_without_case(tmp_path) -> None:
    assert OutputNames(tmp_path, [], ["Report"]).stem("report.jpg") == "report-2"


def test_a_source_without_a_name() -> None:
    assert OutputNames("out", []).stem("/") == "image"


def test_whether_a_file_can_be_written_is_known_before(tmp_path):
    kept = tmp_path / "kept"
    kept.write_text("older")
    check_output(kept)
    check_output(tmp_path / "new" / "file")
    assert kept.read_text() == "older"
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["kept", "new"]
    for bad in (tmp_path, kept / "file", "."):
        with pytest.raises(OutputError, match="cannot be written") as caught:
            check_output(bad)
        assert "probe" not in str(caught.value)


def test_same_stems_get_different_names(tmp_path):
    names = OutputNames(tmp_path, [])
    sources = ["a/photo.jpg", "a/photo.png", "b/photo.jpg", "b/PHOTO.jpg", "photo-2.jpg"]
    stems = [names.stem(source) for source in sources]
    assert stems == ["photo", "photo-2", "photo-3", "PHOTO-4", "photo-2-2"]


def test_no_input_is_replaced(tmp_path):
    inputs = [str(tmp_path / "photo.jpg"), str(tmp_path / "photo.overlay.png")]
    names = OutputNames(tmp_path / "sub" / "..", inputs)
    assert names.path("photo.json").name == "photo.json"
    with pytest.raises(OutputError, match="is one of the inputs"):
        names.path("photo.overlay.png")


def test_an_input_that_is_reached_by_another_name_is_not_replaced(tmp_path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    names = OutputNames(tmp_path / "real", [str(tmp_path / "link" / "a.png")])
    with pytest.raises(OutputError, match="one of the inputs"):
        names.path("a.png")


def test_image_ids():
    assert image_ids(["x/000000000139.jpg", "x/285.png"]) == [139, 285]
    assert image_ids(["a/1.jpg", "b/1.jpg"]) == [1, 2]
    assert image_ids(["7.jpg", "photo.jpg"]) == [1, 2]
    assert image_ids([]) == []


def test_digits_of_other_scripts_are_no_ids() -> None:
    assert image_ids(["²", "3.jpg"]) == [1, 2]
    assert image_ids(["٣.jpg"]) == [1]


def test_coco_results_have_keypoints_as_pixel_indices():
    """The centre of pixel 3 is at 3.5 here and at 3 in COCO."""
    instances = make_instances(np.ones((2, 10, 12), bool), [0.9, 0.8])
    points = np.zeros((2, 17, 3), np.float32)
    points[0] = [3.5, 7.25, 0.123456]
    instances.keypoints = points
    person, other = coco_results(instances, 5)
    assert person["keypoints"] == [3.0, 6.75, 0.1235] * 17
    assert person["keypoint_score"] == pytest.approx(0.9 * 0.123456, abs=1e-5)
    assert "keypoints" not in other  # all scores are 0: its class has none
    assert "keypoint_score" not in other
    json.dumps(person)
    instances.keypoints = None
    assert "keypoints" not in coco_results(instances, 5)[0]
