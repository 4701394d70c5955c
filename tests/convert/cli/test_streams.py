"""What is printed when nobody reads it, and errors that nobody expected."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from edgemask_convert.cli import check, main

from edgemask.outputs import output_error


@pytest.fixture
def arguments(coco: Any) -> list[str]:
    coco.image(1)
    coco.add(1, [5, 5, 20, 20])
    coco.load()
    return ["check", "--annotations", str(coco.path), "--images", str(coco.folder)]


@pytest.mark.parametrize(
    ("redirected", "status", "error"),
    [
        ("| true", 0, ""),  # of the reader
        (">/dev/full", 1, "edgemask-convert: error: the output cannot be written (No space"),
        ("2>&-", 0, ""),
    ],
)
def test_streams_that_are_closed(
    arguments: list[str], redirected: str, status: int, error: str
) -> None:
    verb = " ".join(f"'{text}'" for text in arguments)
    command = f"'{sys.executable}' -m edgemask_convert {verb} {redirected}"
    ended = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert ended.returncode == status
    assert ended.stderr.startswith(error)
    assert "Broken pipe" not in ended.stderr
    assert ended.stderr.count("\n") == bool(error)


def test_an_error_that_nobody_expected_is_one_line(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(options: Any) -> int:
        raise KeyError("x")

    monkeypatch.setattr(check, "run", fail)
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("edgemask-convert: error: unexpected KeyError: 'x'; please report it")
    assert "Traceback" not in error


def test_a_full_disk_is_named_with_the_file(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(options: Any) -> int:
        raise output_error(Path("taught.json"), OSError(errno.ENOSPC, "No space left on device"))

    monkeypatch.setattr(check, "run", fail)
    assert main(arguments) == 1
    assert capsys.readouterr().err == (
        "edgemask-convert: error: taught.json cannot be written (No space left on device): free "
        "some space or choose another folder\n"
    )


def test_labelled_categories_that_are_none(
    arguments: list[str], coco: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    data = json.loads(Path(coco.path).read_text())
    data["images"][0]["labeled_cats"] = [[1]]
    Path(coco.path).write_text(json.dumps(data))
    assert main(arguments) == 1
    assert "has labeled_cats [1], not an integer" in capsys.readouterr().err
