"""The command ``edgemask watch``."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time

import pytest
from synthetic import draw_scene

from edgemask.cli import build_parser, main, watch
from edgemask.watch.watcher import Scene

pytestmark = pytest.mark.usefixtures("fake_segmenter")

ZONE = """
[[zone]]
name = "all"
polygon = [[0, 0], [1, 0], [1, 1], [0, 1]]
inside = "area"
min_seconds = 0
"""

FAR = "[[zone]]\nname = 'far'\npolygon = [[800, 1], [900, 1], [900, 900]]"


@pytest.fixture
def config(tmp_path):
    def write(text):
        path = tmp_path / "edgemask.toml"
        path.write_text(text, "utf-8")
        return str(path)

    return write


@pytest.fixture
def frames(tmp_path):
    """A folder with pictures of two people who do not move."""
    for n in range(6):
        draw_scene(count=2).save(tmp_path / "frames" / f"{n:03d}.png")
    return str(tmp_path / "frames")


def test_events_are_lines_of_json(capsys, config, frames, tmp_path):
    path = config('[events]\nfolder = "events"\n' + ZONE.replace("all", "Everywhere"))
    assert main(["watch", frames, "--config", path]) == 0
    printed = capsys.readouterr()
    (event,) = [json.loads(line) for line in printed.out.splitlines()]
    assert (event["kind"], event["zone"], event["size"]) == ("enter", "Everywhere", [48, 64])
    assert os.path.dirname(event["snapshot"]) == str(tmp_path / "events")
    assert printed.err == "1 event in 6 frames\n"


def test_source_of_the_configuration(capsys, config, frames):
    path = config(f"[source]\nuri = '{frames}'\n{ZONE}")
    assert main(["watch", "--config", path]) == 0
    assert capsys.readouterr().out.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "source", "words"),
    [
        ("", "FRAMES", ["no zone", "[[zone]]"]),
        ("[zone]\nname = 'a'", "FRAMES", ["zone", "list"]),
        (ZONE, "/nowhere/at/all.mp4", ["/nowhere/at/all.mp4"]),
        (ZONE, "synthetic:?peeple=3", ["peeple"]),
        (FAR, "FRAMES", ["'far' covers no pixel of the 64x48 image"]),
    ],
)
def test_mistakes_are_one_line(capsys, config, frames, text, source, words):
    source = frames if source == "FRAMES" else source
    assert main(["watch", source, "--config", config(text)]) == 1
    err = capsys.readouterr().err
    last = [line for line in err.splitlines() if line.startswith("edgemask: error: ")]
    assert len(last) == 1
    for word in words:
        assert word in last[0]


def test_frames_that_went_wrong_are_a_failure(capsys, config, frames, monkeypatch):
    monkeypatch.setattr(Scene, "update", lambda *_: 1 // 0)
    assert main(["watch", frames, "--config", config(ZONE)]) == 1
    err = capsys.readouterr().err
    assert "0 events in 6 frames\n" in err
    assert "error: watching went wrong on 6 frames: ZeroDivisionError" in err


def test_sigterm_ends_it(capsys, config):
    before = signal.getsignal(signal.SIGTERM)

    def send():
        end = time.monotonic() + 30
        while signal.getsignal(signal.SIGTERM) == before and time.monotonic() < end:
            time.sleep(0.1)
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=send)
    thread.start()
    began = time.monotonic()
    uri = "synthetic:?live=yes&frames=100000&fps=10&size=160x120"
    assert main(["watch", uri, "--config", config(ZONE)]) == 0
    thread.join()
    assert time.monotonic() - began < 30
    assert "frames" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == before


def test_help_shows_an_example_that_parses(capsys):
    assert main(["watch", "--help"]) == 0
    assert watch.EXAMPLE in capsys.readouterr().out
    program, *arguments = shlex.split(watch.EXAMPLE)
    assert program == "edgemask"
    assert build_parser().parse_args(arguments).config == "edgemask.toml"


def test_a_reader_that_goes_away_ends_it(config):
    """As in ``edgemask watch … | head -1``."""
    command = [
        sys.executable,
        "-m",
        "edgemask",
        "watch",
        "synthetic:?live=yes&people=3&size=320x240",
    ]
    text = "[model]\nscore = 0.01\n" + ZONE + "leave_seconds = 0\ncooldown = 0\n"
    process = subprocess.Popen([*command, "--config", config(text)], stdout=subprocess.PIPE)
    assert process.stdout
    try:
        assert json.loads(process.stdout.readline())["kind"] == "enter"
        process.stdout.close()
        assert process.wait(60) == 1
    finally:
        process.kill()
        process.wait()
