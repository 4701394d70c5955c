from __future__ import annotations

import copy
import zipfile
from pathlib import Path
from typing import Any

import pytest
from edgemask_convert.cli.pack import PackRefused, check_drop
from edgemask_convert.export.packfile import write_pack
from synthetic import DATA, small_manifest

from edgemask.errors import ModelError
from edgemask.modelpack import load_pack

STAGES = {"backbone": "backbone", "box_head": "head", "mask_head": "outside"}


def contents() -> dict[str, bytes]:
    """Return the small flatbuffers by stage."""
    return {stage: (DATA / f"{file}.tflite").read_bytes() for stage, file in STAGES.items()}


def test_byte_identical(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pack(tmp_path / "a.zip", small_manifest(), contents())
    monkeypatch.setattr("time.time", lambda: 2e9)
    write_pack(tmp_path / "new" / "b.zip", small_manifest(), contents())
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "new" / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_round_trip(tmp_path: Path) -> None:
    write_pack(tmp_path / "a.zip", small_manifest(), contents())
    pack = load_pack(tmp_path / "a.zip")
    assert pack.manifest == small_manifest()
    assert pack.stages == contents()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "my model"}, "name must be a plain file name"),
        ({"metrics": {"ap": float("nan")}}, "is not valid JSON"),
        ({"credits": None}, "credits must be a list"),
    ],
)
def test_never_writes_what_would_not_load(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        write_pack(tmp_path / "a.zip", small_manifest() | change, contents())
    assert not list(tmp_path.iterdir())


def test_failed_write_leaves_the_old_pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.zip"
    write_pack(path, small_manifest(), contents())
    before = path.read_bytes()

    def full_disk(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_pack(path, small_manifest() | {"version": "2"}, contents())
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.zip"]


MEASURED = {"dataset": "dev.json", "images": 250, "short_side": 320, "segm": {"AP": 0.3}}


@pytest.mark.parametrize(("int8", "drop"), [(0.3, 0), (0.297, 0.003), (0.31, -0.01)])
def test_accepted_drop(int8: float, drop: float) -> None:
    assert check_drop(MEASURED | {"segm": {"AP": int8}}, MEASURED, 0.005) == pytest.approx(drop)


def test_too_large_a_drop() -> None:
    worse = MEASURED | {"segm": {"AP": 0.29}}
    with pytest.raises(PackRefused, match=r"loses 0\.0100 mask AP .* more than 0\.005"):
        check_drop(worse, MEASURED, 0.005)
    assert check_drop(worse, MEASURED, 0.02) == pytest.approx(0.01)


@pytest.mark.parametrize("key", ["dataset", "images", "short_side"])
def test_measured_differently(key: str) -> None:
    other = copy.deepcopy(MEASURED) | {key: 7}
    with pytest.raises(PackRefused, match=f"measured differently: {key} is 7 and"):
        check_drop(other, MEASURED, 0.005)
