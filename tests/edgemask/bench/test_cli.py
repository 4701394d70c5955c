"""``edgemask bench``: what it prints and writes."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from edgemask.bench.configuration import Configuration
from edgemask.cli import bench, build_parser, main
from edgemask.interpreter import default_threads
from edgemask.modelpack import bundled_packs


def configurations(*arguments: str) -> list[Configuration]:
    return bench._configurations(build_parser().parse_args(["bench", *arguments]))


def test_every_combination_once() -> None:
    found = configurations("a.zip", "b.zip", "--threads", "1,2,1", "--short-side", "256,320")
    assert [(c.pack, c.short_side, c.threads) for c in found] == [
        (pack, side, threads)
        for pack in ("a.zip", "b.zip")
        for side in (256, 320)
        for threads in (1, 2)
    ]
    assert {c.frames for c in found} == {50}
    assert {c.seconds for c in found} == {None}


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {c.pack for c in configurations()} == set(bundled_packs())
    assert max(c.threads for c in configurations()) == default_threads()
    for cpus, threads in ((1, [1]), (2, [1, 2]), (4, [1, 2, 3, 4]), (6, [1, 2, 3, 4, 6])):
        monkeypatch.setattr("edgemask.interpreter.default_threads", lambda n=cpus: n)
        assert [c.threads for c in configurations("a.zip")] == threads


def test_minutes() -> None:
    (found,) = configurations("a.zip", "--threads", "1", "--minutes", "0.5")
    assert found.seconds == 30


@pytest.mark.parametrize(
    "arguments",
    [
        ["--threads", "0"],
        ["--threads", "1,,2"],
        ["--minutes", "0"],
        ["--minutes", "nan"],
        ["--minutes", "x"],
        ["--frames", "5", "--minutes", "1"],
    ],
)
def test_bad_options(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *arguments]) == 1
    assert capsys.readouterr().err.startswith("edgemask: error: ")


def test_example_parses() -> None:
    program, *arguments = shlex.split(bench.EXAMPLE)
    assert program == "edgemask"
    build_parser().parse_args(arguments)


def test_whole_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record, report = tmp_path / "b.json", tmp_path / "b.md"
    arguments = ["people", "--threads", "1", "--short-side", "64,96", "--frames", "3"]
    assert main(["bench", *arguments, "--json", str(record), "--report", str(report)]) == 0
    printed = capsys.readouterr()
    assert "input 96x64:" in printed.out  # as near to 4:3 as multiples of 32 come
    assert "input 128x96:" in printed.out
    assert "\r" not in printed.err  # no progress bar without a terminal
    found: dict[str, Any] = json.loads(record.read_text("utf-8"))
    assert [run["short_side"] for run in found["runs"]] == [64, 96]
    for run in found["runs"]:
        assert run["frames"] == 3
        total = sum(stage["cpu_share"] for stage in run["stages"])
        assert total == pytest.approx(1, abs=0.01)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.json", "b.md", "b.png"]
    assert str(report) in printed.out


def test_failures_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    for arguments in (
        [str(tmp_path / "no.zip")],
        ["people", "--threads", "1", "--image", str(tmp_path / "no.png")],
        ["people", "--report", "report.txt"],
        ["people", "--report", str(tmp_path / "file" / "report.md")],
    ):
        assert main(["bench", *arguments]) == 1
        err = capsys.readouterr().err
        assert err.startswith("edgemask: error: ")
        assert err.count("\n") == 1
