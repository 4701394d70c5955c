"""The program itself: help, wrong arguments, errors, interrupts, the progress bar."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import shlex
import subprocess
import sys
import warnings

import pytest
from cli_runs import one_error, run

from edgemask import __version__
from edgemask.cli import build_parser, common, demo, eval, info, main, predict
from edgemask.errors import OutputError

pytestmark = pytest.mark.usefixtures("fake_segmenter")


def test_version_and_help(capsys):
    assert run(capsys, "--version") == (0, f"edgemask {__version__}\n", "")
    status, text, _ = run(capsys, "--help")
    assert status == 0
    for verb in ("demo", "predict", "eval", "info"):
        assert verb in text
    assert run(capsys)[:2] == (0, text)


@pytest.mark.parametrize("module", [demo, predict, eval, info])
def test_help_of_a_verb_shows_an_example_that_parses(capsys, module):
    verb = module.__name__.rpartition(".")[2]
    status, text, _ = run(capsys, verb, "--help")
    assert status == 0
    assert module.EXAMPLE in text
    program, *arguments = shlex.split(module.EXAMPLE)
    assert program == "edgemask"
    assert build_parser().parse_args(arguments).verb == verb


@pytest.mark.parametrize(
    "arguments",
    [
        ["segment"],
        ["predict"],
        ["predict", "x.png", "--score", "1.5"],
        ["predict", "x.png", "--score", "high"],
        ["predict", "x.png", "--threads", "0"],
        ["predict", "x.png", "--max-detections", "-3"],
        ["predict", "x.png", "--short-side", "big"],
        ["predict", "x.png", "--format", "overlay,svg"],
        ["eval", "--images", "x"],
        ["info", "--colour"],
    ],
)
def test_arguments_that_are_wrong(capsys, arguments):
    status, text, err = run(capsys, *arguments)
    assert (status, text) == (1, "")
    one_error(err, "--help")


def test_debug_shows_the_traceback(capsys, tmp_path):
    status, _, err = run(capsys, "info", tmp_path / "none.zip", "--debug")
    assert status == 1
    assert err.startswith("edgemask: error: ")
    assert "Traceback" in err


def test_unexpected_error_is_one_line(capsys, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("division\nby zero")

    monkeypatch.setattr(common, "make_segmenter", fail)
    status, _, err = run(capsys, "demo")
    assert status == 1
    one_error(err, "ZeroDivisionError: division by zero", "--debug")


def test_interrupt(capsys, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(common, "make_segmenter", fail)
    status, _, err = run(capsys, "demo")
    assert status == 130
    one_error(err, "interrupted")


def test_warnings_are_one_line(capsys, monkeypatch, photo, out):
    def warn(*_):
        warnings.warn("slow\nmachine", RuntimeWarning, stacklevel=2)
        raise OutputError("no")

    before = warnings.showwarning
    monkeypatch.setattr(common, "make_segmenter", warn)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        _, _, err = run(capsys, "predict", photo)
        assert err == "edgemask: warning: slow machine\nedgemask: error: no\n"
    assert warnings.showwarning is before


def test_running_the_module():
    command = [sys.executable, "-m", "edgemask", "--version"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"edgemask {__version__}\n")


@pytest.mark.parametrize("arguments", [[], ["--help"], ["info", "PACK"]])
def test_reader_that_has_gone(small_pack, arguments):
    arguments = [str(small_pack) if argument == "PACK" else argument for argument in arguments]
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "edgemask", *arguments]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    # argparse itself forgives a closed pipe when it prints its help.
    assert done.returncode == (1 if "info" in arguments else 0)
    assert done.stderr == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_disk_that_is_full_under_what_is_printed():
    command = [sys.executable, "-m", "edgemask", "info"]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr == (
        "edgemask: error: the output cannot be written (No space left on device): free some space\n"
    )


@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [("info >&-", 0, ""), ("predict - <&-", 1, "standard input is closed")],
)
def test_closed_from_the_start(tmp_path, arguments, status, words):
    command = f"{sys.executable} -m edgemask {arguments}"
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    assert done.returncode == status
    assert words in done.stderr
    assert done.stderr.count("\n") == bool(words)


def test_importing_edgemask_costs_next_to_nothing():
    script = "import sys, edgemask; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout
    assert "edgemask" in loaded.split()
    assert not {"numpy", "PIL", "ai_edge_litert", "tflite_runtime"} & set(loaded.split())


def test_names_of_the_package():
    import edgemask

    assert set(edgemask.__all__) <= set(dir(edgemask))
    for name in edgemask.__all__:
        assert getattr(edgemask, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = edgemask.nonsense


def on_terminal(work):
    """Run work(stream) with a stream that is a terminal, and return what was written."""
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as stream:
        work(stream)
    written = b""
    with contextlib.suppress(OSError):  # EIO: the other end is closed, and all of it is read
        while chunk := os.read(master, 10_000):
            written += chunk
    os.close(master)
    return written.decode()


def test_progress_bar_on_a_terminal(monkeypatch):
    def work(stream):
        with common.Progress("working", 4, stream=stream, delay=0) as progress:
            progress.update(2)

    text = on_terminal(work)
    assert "working" in text
    assert "/4 [" in text
    assert text.rsplit("\r", 1)[1] == ""  # the bar is wiped, the next line starts where it stood


def test_no_progress_bar_for_short_work_or_a_pipe():
    def work(stream):
        with common.Progress("working", 4, stream=stream) as progress:
            progress.update(2)
        stream.write("end")

    assert on_terminal(work) == "end"
    piped = io.StringIO()
    with common.Progress("working", 4, stream=piped, delay=0) as progress:
        progress.update(2)
    assert piped.getvalue() == ""


def test_options_reach_the_segmenter(monkeypatch):
    made = {}

    def fake(model, **options):
        made.update(options, model=model)

    monkeypatch.undo()
    monkeypatch.setattr("edgemask.segmenter.Segmenter", fake)
    options = build_parser().parse_args(
        ["predict", "x", "--model", "tiny", "--threads", "2", "--short-side", "256"]
    )
    common.make_segmenter(options, 0.3, 7)
    assert made == {
        "model": "tiny",
        "threads": 2,
        "short_side": 256,
        "score_threshold": 0.3,
        "max_detections": 7,
    }


@pytest.mark.parametrize("arguments", [["--debug", "info", "none"], ["info", "none", "--debug"]])
def test_debug_may_stand_on_both_sides_of_the_verb(arguments, capsys):
    assert main(arguments) == 1
    err = capsys.readouterr().err
    assert err.startswith("edgemask: error: model pack 'none' cannot be read")
    assert "Traceback" in err
