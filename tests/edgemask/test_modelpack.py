"""Model packs: what a good one gives, and that every kind of bad one is refused."""

from __future__ import annotations

import copy
import hashlib
import json
import struct
import warnings
import zipfile
import zlib

import pytest
from synthetic import DATA, small_manifest, stage_spec, write_pack

from edgemask import modelpack
from edgemask.errors import ModelError
from edgemask.manifest import MAX_MEMBER_BYTES
from edgemask.modelpack import MAX_MEMBERS, bundled_packs, load_pack


def refused(path, *words):
    """Check that loading fails with one line that has all the words."""
    with pytest.raises(ModelError) as caught:
        load_pack(path)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message
    return message


def test_good_pack(small_pack):
    pack = load_pack(small_pack)
    assert (pack.name, pack.version, pack.path) == ("small", "1", str(small_pack))
    assert pack.sha256 == hashlib.sha256(small_pack.read_bytes()).hexdigest()
    assert sorted(pack.stages) == ["backbone", "box_head", "mask_head"]
    assert pack.stages["box_head"] == (DATA / "head.tflite").read_bytes()
    assert pack.class_ids == (1,)
    assert pack.class_names == {1: "person"}
    assert pack.input["short_side"] == 64
    assert pack.rpn["levels"] == ["2"]
    assert pack.roi["features"] == ["p2"]
    assert pack.detections["nms_threshold"] == 0.5
    assert pack.mask["size"] == 28
    assert pack.metrics["int8"]["mask_ap"] == 0.125
    assert pack.stage_spec("backbone")["file"] == "backbone.tflite"
    assert load_pack(str(small_pack)).sha256 == pack.sha256


def test_unknown_keys_and_members_are_allowed(tmp_path):
    manifest = small_manifest()
    manifest["notes"] = {"colour": "blue"}
    pack = load_pack(write_pack(tmp_path / "p.zip", manifest, {"LICENSE": b"text"}))
    assert pack.manifest["notes"] == {"colour": "blue"}
    assert "LICENSE" not in pack.stages


def test_bundled_names(tmp_path, monkeypatch):
    monkeypatch.setattr(modelpack.importlib.resources, "files", lambda _: tmp_path)
    assert bundled_packs() == []
    refused("people", "'people'", "no bundled packs")
    (tmp_path / "models").mkdir()
    write_pack(tmp_path / "models" / "tiny.zip")
    assert bundled_packs() == ["tiny"]
    assert load_pack("tiny").name == "small"
    refused("tinny", "'tinny'", "tiny")
    refused("../models/tiny", "cannot be read")


def test_only_packs_are_listed(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(modelpack.importlib.resources, "files", lambda _: tmp_path)
    (tmp_path / "models").mkdir()
    write_pack(tmp_path / "models" / "tiny.zip")
    (tmp_path / "models" / "LICENSE").write_text("text")
    assert bundled_packs() == ["tiny"]


def test_a_file_here_goes_before_a_bundled_pack(tmp_path, monkeypatch) -> None:
    write_pack(tmp_path / "people")
    monkeypatch.chdir(tmp_path)
    assert load_pack("people").name == "small"


@pytest.mark.parametrize("name", bundled_packs())
def test_every_bundled_pack_loads(name):
    assert load_pack(name).manifest["schema"] == 1


def test_missing_file(tmp_path):
    refused(tmp_path / "none.zip", "none.zip", "No such file")


@pytest.mark.parametrize("name", ["", "a\0b"])
def test_impossible_name(name):
    refused(name, "path to a pack")


def test_folder(tmp_path):
    refused(tmp_path, "is a folder", ".zip")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04" + b"\0" * 100])
def test_not_a_zip(tmp_path, content):
    (tmp_path / "p.zip").write_bytes(content)
    refused(tmp_path / "p.zip", "not a complete zip", "fetch the pack again")


def test_truncated_at_any_place(small_pack):
    whole = small_pack.read_bytes()
    for length in range(0, len(whole), 97):
        small_pack.write_bytes(whole[:length])
        refused(small_pack, "small.zip")


def test_flipped_byte_in_a_stage(small_pack):
    damaged = bytearray(small_pack.read_bytes())
    with zipfile.ZipFile(small_pack) as archive:
        start = archive.getinfo("head.tflite").header_offset
    damaged[start + 300] ^= 0xFF
    small_pack.write_bytes(damaged)
    refused(small_pack, "fetch the pack again")


def test_damaged_anywhere(small_pack) -> None:
    """Whatever byte is wrong, it is the pack that is refused, or the byte meant nothing."""
    whole = small_pack.read_bytes()
    errors = []
    for place in range(0, len(whole), 31):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        small_pack.write_bytes(damaged)
        try:
            load_pack(small_pack)
        except ModelError as error:
            errors.append(error)
    assert not any("\n" in str(error) for error in errors)
    assert {zipfile.BadZipFile, zlib.error} <= {type(error.__cause__) for error in errors}


def test_a_stage_whose_data_end_too_early(tmp_path) -> None:
    """The directory promises more than the compressed data hold."""
    path = write_pack(tmp_path / "p.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.getinfo("head.tflite").compress_size -= 20
        archive.writestr("again", b"")  # makes zipfile write the directory again
    refused(path, "fetch the pack again")


def test_no_manifest(tmp_path):
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        archive.writestr("photo.jpg", b"x")
    refused(tmp_path / "p.zip", "no model.json")


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"schema": NaN}', b"[1]", b"null"],
    ids=["empty", "cut", "bytes", "deep", "nan", "list", "null"],
)
def test_manifest_is_not_json_or_no_object(tmp_path, raw):
    refused(write_pack(tmp_path / "p.zip", raw), "model.json")


def test_a_manifest_of_megabytes(tmp_path) -> None:
    raw = json.dumps(small_manifest()).encode() + b" " * 2**20
    refused(write_pack(tmp_path / "p.zip", raw), "model.json is larger than 1048576 bytes")


def test_newer_schema(tmp_path):
    manifest = small_manifest() | {"schema": 2}
    refused(write_pack(tmp_path / "p.zip", manifest), "schema 2", "pip install --upgrade edgemask")


@pytest.mark.parametrize("schema", [0, "1", True, None, 1.5])
def test_wrong_schema(tmp_path, schema):
    manifest = small_manifest() | {"schema": schema}
    refused(write_pack(tmp_path / "p.zip", manifest), "schema")


def every_key(value, path=()):
    """Return the path of every key the format requires."""
    for key, inner in value.items():
        if path[:1] in (("training",), ("metrics",)):
            continue
        yield (*path, key)
        if isinstance(inner, dict):
            yield from every_key(inner, (*path, key))


KEYS = list(every_key(small_manifest()))


def changed(path, value):
    """Return the small manifest with one entry replaced, or removed if the value is ``...``."""
    manifest = copy.deepcopy(small_manifest())
    inner = manifest
    for key in path[:-1]:
        inner = inner[key]
    if value is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return manifest


@pytest.mark.parametrize("path", KEYS, ids=".".join)
def test_missing_key_is_named(tmp_path, path):
    message = refused(write_pack(tmp_path / "p.zip", changed(path, ...)))
    assert path[-1] in message or f"{'.'.join(path[:-1])} is empty" in message


@pytest.mark.parametrize("path", KEYS, ids=".".join)
@pytest.mark.parametrize("value", [[{}], float(10**9)], ids=["list", "number"])
def test_wrong_type_is_refused(tmp_path, path, value):
    refused(write_pack(tmp_path / "p.zip", changed(path, value)))


@pytest.mark.parametrize(
    ("path", "value", "word"),
    [
        (("classes",), [], "classes"),
        (("classes",), [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}], "distinct"),
        (("input", "std"), 0, "input.std"),
        (("input", "short_side"), True, "input.short_side"),
        (("input", "mean"), 10**400, "input.mean"),
        (("classes",), [{"id": 1, "name": "x" * 201}], "classes[0].name"),
        (("classes",), [{"id": 1, "name": "a\nb"}], "classes[0].name"),
        (("classes",), [{"id": 1, "name": "\ud800"}], "classes[0].name"),
        (("input", "layout"), "NCHW", "'NHWC'"),
        (("rpn", "strides"), [2, 4], "one entry per level"),
        (("rpn", "anchor_ratios"), [], "rpn"),
        (("rpn", "anchor_sizes"), [-1], "rpn.anchor_sizes[0]"),
        (("rpn", "box_weights"), [1, 1, 1], "four"),
        (("rpn", "pre_nms"), 10**9, "rpn.pre_nms"),
        (("rpn", "nms_threshold"), 1.5, "rpn.nms_threshold"),
        (("roi", "strides"), [], "roi.strides"),
        (("roi", "box", "features"), ["p9"], "p9"),
        (("roi", "mask", "level_thresholds"), [1.0], "level_thresholds"),
        (("stages", "backbone", "outputs"), {}, "empty"),
        (("stages", "backbone", "file"), "../backbone.tflite", "plain file name"),
        (("stages", "backbone", "sha256"), "00", "hexadecimal"),
        (("stages", "backbone", "bytes"), MAX_MEMBER_BYTES + 1, "bytes"),
        (("stages", "backbone", "inputs", "image", "scale"), None, "scale"),
        (("stages", "backbone", "inputs", "image", "shape"), [0], "shape[0]"),
        (("stages", "backbone", "inputs", "image", "dtype"), "uint8", "dtype"),
        (("stages", "backbone", "inputs", "image", "dtype"), "float32", "has null"),
        (
            ("stages", "mask_head", "outputs"),
            {"other": stage_spec("outside")["outputs"]["logits"]},
            "stages.mask_head.outputs.logits is missing",
        ),
        (("detections", "box_weights"), [10, 10, 5], "four"),
        (("classes",), [{"id": n, "name": "x"} for n in range(1001)], "at most 1000"),
        (("rpn", "nms_threshold"), True, "rpn.nms_threshold"),
        (("roi", "box", "sampling_ratio"), True, "roi.box.sampling_ratio"),
        (("input", "short_side"), 8, "input.short_side"),
        (("name",), "small\n", "plain file name"),
        (("metrics",), {"ap": float("nan")}, "not valid JSON"),
    ],
)
def test_contradictions_and_ranges(tmp_path, path, value, word):
    refused(write_pack(tmp_path / "p.zip", changed(path, value)), word)


def test_missing_member(tmp_path):
    manifest = changed(("stages", "backbone", "file"), "other.tflite")
    refused(write_pack(tmp_path / "p.zip", manifest), "other.tflite")


def test_wrong_hash(tmp_path):
    manifest = changed(("stages", "backbone", "sha256"), "0" * 64)
    refused(write_pack(tmp_path / "p.zip", manifest), "sha256", "backbone.tflite")


@pytest.mark.parametrize("difference", [-1, 1])
def test_member_of_another_size_than_declared(tmp_path, difference):
    size = small_manifest()["stages"]["backbone"]["bytes"]
    manifest = changed(("stages", "backbone", "bytes"), size + difference)
    refused(write_pack(tmp_path / "p.zip", manifest), "backbone.tflite", "bytes")


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "a/b", "a/", "..", "C:\\x", "x\0y", ".hidden", "\\\\host\\x"]
)
def test_member_that_could_leave_the_pack(tmp_path, name):
    path = write_pack(tmp_path / "p.zip")
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo("x")
        info.filename = info.orig_filename = name
        archive.writestr(info, b"x")
    refused(path, "do not use this file")


def test_duplicate_members(tmp_path):
    path = write_pack(tmp_path / "p.zip")
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("head.tflite", b"x")
    refused(path, "two members", "head.tflite")


def test_too_many_members(tmp_path):
    members = {f"file{n}": b"" for n in range(20)}
    refused(write_pack(tmp_path / "p.zip", None, members), "24 members")


def test_a_directory_of_more_members_than_fit_into_memory(tmp_path, monkeypatch) -> None:
    """It is refused before zipfile reads it."""
    entry = b"PK\x01\x02" + bytes(42)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 5000, 5000, 5000 * len(entry), 0, 0)
    (tmp_path / "p.zip").write_bytes(5000 * entry + end)
    monkeypatch.delattr(modelpack.zipfile, "ZipFile")
    refused(tmp_path / "p.zip", "5000 members")


def test_as_many_members_as_may_be(tmp_path) -> None:
    members = {f"file{n}": b"" for n in range(MAX_MEMBERS - 4)}
    assert load_pack(write_pack(tmp_path / "p.zip", None, members)).name == "small"
    members["more"] = b""
    refused(write_pack(tmp_path / "q.zip", None, members), f"{MAX_MEMBERS + 1} members")


def test_member_that_claims_ten_gigabytes(tmp_path):
    path = tmp_path / "p.zip"
    write_pack(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("huge", b"x")
        archive.filelist[-1].file_size = 10 * 2**30  # goes into the directory on closing
    assert path.stat().st_size < 20_000
    refused(path, "huge", "10240 MB", "limit of 64 MB")


def test_member_that_is_larger_than_it_claims(tmp_path):
    manifest = small_manifest()
    manifest["stages"]["backbone"]["bytes"] = 1000
    path = write_pack(tmp_path / "p.zip", manifest, {"backbone.tflite": b"\0" * 50_000_000})
    with zipfile.ZipFile(path, "a") as archive:
        archive.getinfo("backbone.tflite").file_size = 1000
        archive.writestr("again", b"")  # makes zipfile write the directory again
    assert path.stat().st_size < 100_000
    refused(path, "p.zip")


def test_pack_that_is_larger_than_any(tmp_path):
    with open(tmp_path / "p.zip", "wb") as stream:
        stream.truncate(10 * 2**30)  # a hole: no disk is used
    refused(tmp_path / "p.zip", "10240 MB", "256 MB")


def patched_directory(path, offset, value):
    """Set 16 bits in the header and in the directory entry of the last member."""
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        local = archive.infolist()[-1].header_offset
    central = data.rindex(b"PK\x01\x02")
    struct.pack_into("<H", data, local + 6 + offset, value)
    struct.pack_into("<H", data, central + 8 + offset, value)
    path.write_bytes(data)


@pytest.mark.parametrize(("offset", "value"), [(0, 1), (2, 99)], ids=["encrypted", "exotic"])
def test_member_that_zipfile_cannot_unpack(tmp_path, offset, value):
    path = tmp_path / "p.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.json", json.dumps(small_manifest()))
    patched_directory(path, offset, value)
    refused(path, "cannot be unpacked")


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_only_plain_zip_is_unpacked(tmp_path, method) -> None:
    """The header of LZMA says how much memory is to be taken."""
    with zipfile.ZipFile(tmp_path / "p.zip", "w", method) as archive:
        archive.writestr("model.json", json.dumps(small_manifest()))
    refused(tmp_path / "p.zip", "cannot be unpacked", "pack it with plain zip")
