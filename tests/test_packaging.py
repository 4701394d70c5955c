"""The wheel and the sdist: what is in them, and that they work where nothing else is.

Marked ``wheel``: minutes, and a package index is needed. Every environment is made for the purpose.
"""

from __future__ import annotations

import email
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from edgemask import __version__

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = {".git", "build", "dist", "runs", "edgemask-demo", "__pycache__"}

pytestmark = pytest.mark.wheel


def run(
    command: Sequence[str | os.PathLike[str]], cwd: Path, status: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run a command with none of this process's Python settings, and check its status."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "EDGEMASK", "VIRTUAL_ENV"))
    }
    done = subprocess.run(
        command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == status, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


def environment(folder: Path) -> Path:
    """Make a virtual environment and return the folder of its programs."""
    run([sys.executable, "-m", "venv", folder], folder.parent)
    return folder / "bin"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source tree without its history, so that building leaves nothing behind."""

    def ignore(_: str, names: list[str]) -> set[str]:
        return {n for n in names if n in LEFT_OUT or n.startswith(".venv") or "egg-info" in n}

    target = tmp_path_factory.mktemp("source") / "edgemask"
    shutil.copytree(ROOT, target, ignore=ignore)
    return target


@pytest.fixture(scope="module")
def built(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which ``python -m build`` has put the sdist and the wheel made from it."""
    folder = tmp_path_factory.mktemp("build")
    programs = environment(folder / "venv")
    run([programs / "python", "-m", "pip", "install", "-q", "build"], folder)
    run([programs / "python", "-m", "build", tree, "--outdir", folder / "dist"], folder)
    return folder / "dist"


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment into which nothing but the wheel was installed."""
    folder = tmp_path_factory.mktemp("clean")
    programs = environment(folder / "venv")
    run([programs / "python", "-m", "pip", "install", "-q", wheel], folder)
    return programs


def python_files(folder: Path) -> set[str]:
    """Return the Python files of a source folder, as paths relative to it."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*.py")}


def test_wheel_contents(wheel: Path, tree: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    info = f"edgemask-{__version__}.dist-info"
    assert {name.partition("/")[0] for name in names} == {"edgemask", "edgemask_convert", info}
    wanted = {f"edgemask/{name}" for name in python_files(tree / "edgemask")}
    wanted |= {f"edgemask_convert/{name}" for name in python_files(tree / "convert")}
    data = "edgemask/models/*.zip edgemask/assets/* edgemask/serve/*.html convert/configs/*.toml"
    for pattern in data.split():
        found = [path.relative_to(tree).as_posix() for path in tree.glob(pattern)]
        assert found
        wanted |= {re.sub("^convert/", "edgemask_convert/", name) for name in found}
    wanted |= {"edgemask/py.typed", f"{info}/licenses/LICENSE", f"{info}/licenses/NOTICE"}
    assert wanted <= names
    assert {name for name in names if not name.startswith(info)} <= wanted
    assert "edgemask/models/people.zip" in names
    assert wheel.stat().st_size < 20e6
    assert wheel.name.endswith("-py3-none-any.whl")


def test_metadata(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        info = f"edgemask-{__version__}.dist-info"
        metadata = email.message_from_bytes(archive.read(f"{info}/METADATA"))
        scripts = archive.read(f"{info}/entry_points.txt").decode()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert metadata["Version"] == __version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert set(metadata.get_all("Provides-Extra", [])) == set(project["optional-dependencies"])
    core = [r for r in metadata.get_all("Requires-Dist", []) if "extra ==" not in r]
    names = {re.split(r"[^\w.-]", requirement)[0] for requirement in core}
    assert names == {"numpy", "pillow", "tqdm", "ai-edge-litert"}
    assert "==" not in "".join(requirement.partition(";")[0] for requirement in core)
    assert "edgemask = edgemask.cli:main" in scripts
    assert "edgemask-convert = edgemask_convert.cli:main" in scripts
    assert str(metadata.get_payload()).startswith("# edgemask")


def test_sdist_contents(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for wanted in (
        *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "NOTICE", "pyproject.toml"),
        *(".ci/run", "docs/architecture.md", "tests/conftest.py", "tests/data/head.tflite"),
        *("benchmarks/memory.py", "convert/cli/__init__.py", "edgemask/models/people.zip"),
    ):
        assert wanted in names
    assert not any("__pycache__" in name or name.endswith(".pyc") for name in names)


def test_demo_and_predict_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    version = run([installed / "edgemask", "--version"], tmp_path).stdout
    assert version.strip() == f"edgemask {__version__}"
    shown = run([installed / "edgemask", "demo"], tmp_path).stdout
    assert "person" in shown
    with Image.open(tmp_path / "edgemask-demo" / "astronaut.overlay.png") as overlay:
        assert overlay.size == (512, 512)
    record = json.loads((tmp_path / "edgemask-demo" / "astronaut.json").read_text("utf-8"))
    assert [found["class_name"] for found in record["instances"]] == ["person"]

    with Image.open(ROOT / "edgemask" / "assets" / "astronaut.jpg") as photograph:
        photograph.save(tmp_path / "photo.png")
    run([installed / "edgemask", "predict", "photo.png", "--out", "results",
         "--format", "overlay,json,coco,masks"], tmp_path)  # fmt: skip
    results = {path.name for path in (tmp_path / "results").iterdir()}
    assert results == {"photo.overlay.png", "photo.json", "photo.mask.png", "coco.json"}
    failed = run([installed / "python", "-m", "edgemask", "predict", "none.jpg"], tmp_path, 1)
    assert failed.stderr.startswith("edgemask: error: ")
    assert failed.stderr.count("\n") == 1


def test_the_device_gets_no_training_framework(installed: Path, tmp_path: Path) -> None:
    listed = run([installed / "python", "-m", "pip", "list", "--format", "json"], tmp_path).stdout
    names = {entry["name"].lower() for entry in json.loads(listed)}
    assert {"edgemask", "numpy", "pillow", "ai-edge-litert"} <= names
    assert names.isdisjoint({"tensorflow", "keras", "torch", "opencv-python", "pycocotools"})
    run([installed / "python", "-m", "pip", "check"], tmp_path)
    # Help comes without TensorFlow, and what needs it says so in one line.
    assert "train" in run([installed / "edgemask-convert", "--help"], tmp_path).stdout
    (tmp_path / "model.npz").write_bytes(b"")
    failed = run([installed / "edgemask-convert", "quantize", "model.npz", "--images", ".",
                  "--out", "pack.zip"], tmp_path, 1)  # fmt: skip
    assert failed.stderr.startswith("edgemask-convert: error: ")
    assert "convert" in failed.stderr


@pytest.mark.parametrize("python", ["3.11", "3.13"])
def test_a_64_bit_pi_compiles_nothing(
    python: str, wheel: Path, installed: Path, tmp_path: Path
) -> None:
    """Bookworm has Python 3.11 and glibc 2.36, Trixie 3.13 and 2.41."""
    platforms = ["manylinux2014", *(f"manylinux_2_{minor}" for minor in range(17, 37))]
    options = [f"--platform={platform}_aarch64" for platform in platforms]
    resolved = run(
        [installed / "python", "-m", "pip", "install", "--dry-run", "--only-binary=:all:",
         f"--python-version={python}", "--target=none", *options, wheel],
        tmp_path,
    ).stdout  # fmt: skip
    assert re.search(r"Would install .*ai-edge-litert-\d", resolved)


def test_readme_demo_command_in_a_copy_without_history(tree: Path, tmp_path: Path) -> None:
    copy = tmp_path / "edgemask"
    shutil.copytree(tree, copy)
    command = run(["bash", ".ci/run", "--show", "demo-command"], copy).stdout
    shown = run(["bash", "-euo", "pipefail", "-c", command], copy).stdout
    assert "overlay: edgemask-demo/astronaut.overlay.png" in shown
    assert (copy / "edgemask-demo" / "astronaut.overlay.png").is_file()
