"""What the documentation shows: commands and examples that work, links that lead somewhere."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgemask.cli import main

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")
PAGES = sorted(
    path
    for folder in ("*.md", "docs/**/*.md", "benchmarks/*.md", "firmware/*.md")
    for path in ROOT.glob(folder)
)


def blocks(language: str, text: str = README) -> list[str]:
    """Return the code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(program: str) -> list[str]:
    """Return the lines of the README's shell blocks that run a program."""
    lines = "".join(blocks("sh")).splitlines()
    return [line for line in lines if line.split()[:1] == [program]]


@pytest.fixture
def photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the examples read, as the working directory."""
    photograph = ROOT / "edgemask" / "assets" / "astronaut.jpg"
    shutil.copy(photograph, tmp_path / "photo.jpg")
    for folder, name in (("holiday", "beach.jpg"), ("scans", "old.png")):
        (tmp_path / folder).mkdir()
        shutil.copy(photograph, tmp_path / folder / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("mark", ["demo-command", "test-command"])
def test_readme_has_one_line_for_all_the_set_up(mark: str) -> None:
    found = re.findall(rf"^<!-- {mark} -->\n```sh\n(.*?)```$", README, re.MULTILINE | re.DOTALL)
    assert len(found) == 1
    assert len(found[0].splitlines()) == 1


def test_ci_runs_the_readme_and_not_a_copy_of_it() -> None:
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    assert "readme_command test-command" in script
    result = subprocess.run(
        ["bash", ROOT / ".ci" / "run", "--show", "test-command"],
        capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert f"<!-- test-command -->\n```sh\n{result.stdout}```\n" in README
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


@pytest.mark.parametrize("command", commands("edgemask"))
@pytest.mark.usefixtures("photographs")
def test_command_line_examples(command: str) -> None:
    assert main(shlex.split(command)[1:]) == 0


def test_command_line_examples_were_found() -> None:
    assert len(commands("edgemask")) >= 3


def test_python_example(photographs: Path) -> None:
    (code,) = blocks("python")
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=photographs, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("person ")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), f"{page.name} links to {target}"
        if anchor:
            titles = re.findall(r"^#+ (.+)$", file.read_text("utf-8"), re.MULTILINE)
            slugs = [re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles]
            assert anchor in slugs, f"{page.name} links to {target}"


def test_picture_of_the_data_flow_shows_the_bundled_model(tmp_path: Path) -> None:
    copy = tmp_path / "docs" / "images"
    copy.mkdir(parents=True)
    shutil.copy(ROOT / "docs" / "images" / "data_flow.py", copy)
    subprocess.run(
        [sys.executable, copy / "data_flow.py"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, capture_output=True,
    )  # fmt: skip
    drawn = (copy / "data_flow.svg").read_text("utf-8")
    kept = (ROOT / "docs" / "images" / "data_flow.svg").read_text("utf-8")
    assert drawn == kept, "run python docs/images/data_flow.py"


def test_pictures_are_small() -> None:
    for path in (ROOT / "docs" / "images").glob("*.jpg"):
        assert path.stat().st_size < 150_000, path.name
