"""The built wheel on emulated ARM cores: the same bits as here, and no more instructions than were.

Marked ``arm64``. Needs the folder that benchmarks/arm64/setup.sh fills, named by EDGEMASK_ARM64.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packaging.requirements import Requirement
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"
CORES = ("cortex-a53", "cortex-a72", "cortex-a76")
PYTHONS = ("3.11", "3.13")
GOLDEN = json.loads((ROOT / "tests" / "data" / "pipeline_golden.json").read_text("utf-8"))

pytestmark = [
    pytest.mark.arm64,
    pytest.mark.skipif(
        "EDGEMASK_ARM64" not in os.environ, reason="EDGEMASK_ARM64 names no emulator's folder"
    ),
]


@pytest.fixture(scope="module")
def tools(monkeypatch_module: pytest.MonkeyPatch) -> Any:
    """The modules count and pictures of the benchmarks."""
    for folder in (BENCHMARKS / "arm64", BENCHMARKS):
        monkeypatch_module.syspath_prepend(str(folder))
    return __import__("count")


@pytest.fixture(scope="module")
def monkeypatch_module() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def emulator(tools: Any) -> Any:
    """The emulator."""
    return tools.Emulator(Path(os.environ["EDGEMASK_ARM64"]))


@pytest.fixture(scope="module")
def counted(tools: Any, emulator: Any) -> Any:
    """A function core → instructions and hashes of the crowd; one run for each core."""
    kept: dict[str, Any] = {}

    def count(core: str) -> Any:
        if core not in kept:
            kept[core] = tools.measure(emulator, core)
        return kept[core]

    return count


@pytest.fixture(scope="module")
def sources(tools: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the bundled photograph and a picture drawn for the purpose."""
    folder = tmp_path_factory.mktemp("sources")
    tools.crowd(500, 301, people=2, columns=2).save(folder / "two.png")
    (folder / "astronaut.jpg").write_bytes(
        (ROOT / "edgemask" / "assets" / "astronaut.jpg").read_bytes()
    )
    return folder


def predict_arguments(sources: Path, out: Path) -> list[str]:
    options = ["--format", "json,coco,masks", "--score", "0.3", "--threads", "1"]
    return ["-m", "edgemask", "predict", str(sources), "--out", str(out), *options]


@pytest.fixture(scope="module")
def expected(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``edgemask predict`` writes on this machine."""
    out = tmp_path_factory.mktemp("here")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(
        [sys.executable, *predict_arguments(sources, out)], env=environment, check=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return out


@pytest.mark.parametrize("core", CORES)
def test_predict_writes_what_it_writes_here(
    core: str, emulator: Any, sources: Path, expected: Path, tmp_path: Path
) -> None:
    printed = emulator.run(core, *predict_arguments(sources, tmp_path))
    assert "2 of 2 images" in printed
    names = sorted(path.name for path in expected.iterdir())
    assert names == sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 5
    assert json.loads((expected / "astronaut.json").read_text())["instances"]
    for name in names:
        if name.endswith(".json"):
            assert (tmp_path / name).read_text() == (expected / name).read_text(), name
        else:
            here, there = (np.asarray(Image.open(folder / name)) for folder in (expected, tmp_path))
            np.testing.assert_array_equal(there, here, err_msg=name)


@pytest.mark.parametrize("core", CORES)
def test_every_stage_gives_the_bits_on_record(core: str, counted: Any) -> None:
    hashes = counted(core).record["hashes"]
    want = GOLDEN["frames"]["crowd"]
    differ = [key for key, value in want.items() if hashes.get(key) != value]
    assert not differ, f"from {differ[0]} on"


@pytest.mark.parametrize("core", CORES)
def test_instructions_have_not_grown(core: str, tools: Any, counted: Any) -> None:
    record = json.loads((BENCHMARKS / "instructions.json").read_text("utf-8"))
    cure = "python benchmarks/arm64/count.py FOLDER --update"
    found = counted(core)
    assert found.record["model"] == record["model_sha256"], f"another bundled model: {cure}"
    more = tools.grown(found, record["cores"][core])
    assert not more, f"{more} (recorded with {record['versions']}); if this is meant: {cure}"
    assert list(found.steps) == list(record["cores"][core]["steps"])


@pytest.mark.parametrize("core", CORES)
def test_most_instructions_are_the_networks(core: str, tools: Any, counted: Any) -> None:
    assert tools.outside_share(counted(core).steps) <= 0.4


@pytest.mark.parametrize("python", PYTHONS)
def test_every_dependency_has_a_wheel(python: str, emulator: Any, tmp_path: Path) -> None:
    """Nothing has to be compiled on a Pi."""
    (wheel,) = (emulator.work / "dist").glob("*.whl")
    platforms = [f"--platform=manylinux{v}_aarch64" for v in ("2014", "_2_17", "_2_27", "_2_28")]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--dry-run", "--ignore-installed",
         "--only-binary=:all:", "--implementation=cp", f"--python-version={python}", *platforms,
         f"--target={tmp_path / 'none'}", f"--report={tmp_path / 'report.json'}", str(wheel)],
        check=True,
    )  # fmt: skip
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    files = {
        item["metadata"]["name"].lower(): item["download_info"]["url"].rpartition("/")[2]
        for item in report["install"]
    }
    assert {"numpy", "pillow", "ai-edge-litert", "tqdm"} <= set(files)
    for name, file in files.items():
        assert file.endswith(("aarch64.whl", "any.whl")), f"{name}: {file}"
    # pip judges the markers by the machine it runs on; these are what a Pi's says.
    pi = {"sys_platform": "linux", "platform_machine": "aarch64", "python_version": python}
    wanted = [Requirement(text) for text in importlib.metadata.requires("edgemask") or []]
    active = {r.name for r in wanted if r.marker is None or r.marker.evaluate({**pi, "extra": ""})}
    assert active <= set(files)
    assert "ai-edge-litert" in active
