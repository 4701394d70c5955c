"""How errors and progress are shown, also where stderr is closed or a terminal has no size."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgemask.cli import common, main


@pytest.fixture(autouse=True)
def no_debug() -> None:
    common.debug = False


@pytest.mark.parametrize("arguments", [["predict", "nope.jpg"], ["track", "nope.jpg"]])
def test_debug_shows_where_an_error_came_from(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    assert "Traceback" not in capsys.readouterr().err
    assert main([*arguments, "--debug"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("edgemask: error: ")
    assert error.count("Traceback") == 1
    assert "SourceError" in error


def test_options_are_not_abbreviated(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "people", "--deb"]) == 1
    assert "unrecognized arguments: --deb" in capsys.readouterr().err


def test_a_file_that_looks_like_an_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-photo.jpg").touch()
    monkeypatch.setattr(sys, "argv", ["edgemask", "predict", "-photo.jpg"])
    assert main(["predict", "-photo.jpg"]) == 1
    assert "give a file whose name begins with - as ./-name" in capsys.readouterr().err


def test_a_closed_stderr_stops_nothing(tmp_path: Path) -> None:
    photo = Path(common.__file__).parents[1] / "assets" / "astronaut.jpg"
    command = f"exec '{sys.executable}' -m edgemask predict '{photo}' --format json 2>&-"
    ended = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0
    assert "1 instance" in ended.stdout


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full is Linux's")
@pytest.mark.parametrize(
    "report", [common.report_state, common.report_warning, common.report_error]
)
def test_a_stderr_that_takes_nothing_stops_nothing(
    report: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log on a full disk: an exception would end the thread that had something to say."""
    full = open("/dev/full", "w")  # noqa: SIM115, closing it fails as well
    monkeypatch.setattr(sys, "stderr", full)
    report("no connection")
    report("no connection")
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), full.fileno())
    full.close()


def shown(work: Callable[[common.Progress], object], total: int) -> str:
    """What a progress bar writes to a terminal of 0 by 0 characters, as pty makes them."""
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as stream:
        with common.Progress("working", total, stream=stream, delay=0) as progress:
            work(progress)
        stream.flush()
        text = os.read(master, 4096).decode()
    os.close(master)
    return text


def work(progress: common.Progress) -> None:
    progress.update(3)
    progress._bar.refresh()


def test_a_bar_on_a_terminal_without_a_size() -> None:
    assert "working:  30%|" in shown(work, 10)


def test_what_has_no_known_end_is_counted() -> None:
    text = shown(work, 0)
    assert "working: 3it" in text
    assert "%" not in text
