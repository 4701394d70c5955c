"""The gate on instructions, and what makes an emulator look like a board; without an emulator."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from edgemask.live.board import read_board

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
RECORD = json.loads((BENCHMARKS / "instructions.json").read_text("utf-8"))


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script that counts."""
    for folder in (BENCHMARKS, BENCHMARKS / "arm64"):
        monkeypatch.syspath_prepend(str(folder))
    return __import__("count")


def counted(count: ModuleType, core: dict[str, Any]) -> Any:
    return count.Counted(core["frame"], dict(core["steps"]), {})


@pytest.mark.parametrize("core", RECORD["cores"])
def test_what_is_recorded_passes(count: ModuleType, core: str) -> None:
    old = RECORD["cores"][core]
    assert count.grown(counted(count, old), old) == []
    assert sum(old["steps"].values()) == pytest.approx(old["frame"], rel=0.01)


@pytest.mark.parametrize(("factor", "caught"), [(1.04, False), (1.06, True), (0.5, False)])
def test_five_per_cent(count: ModuleType, factor: float, caught: bool) -> None:
    old = RECORD["cores"]["cortex-a72"]
    new = counted(count, old)._replace(frame=round(old["frame"] * factor))
    assert bool(count.grown(new, old)) is caught


def test_one_step_is_caught_though_the_frame_is_not(count: ModuleType) -> None:
    old = RECORD["cores"]["cortex-a72"]
    new = counted(count, old)
    new.steps["roi_align"] = round(new.steps["roi_align"] * 1.1)
    (line,) = count.grown(new, old)
    assert line.startswith("roi_align: ")


def test_a_step_that_is_not_on_record_is_caught(count: ModuleType) -> None:
    old = copy.deepcopy(RECORD["cores"]["cortex-a53"])
    del old["steps"]["paste"]
    assert len(count.grown(counted(count, RECORD["cores"]["cortex-a53"]), old)) == 1


def test_emulated_board_is_recognized(count: ModuleType, tmp_path: Path) -> None:
    for core, board in count.BOARDS.items():
        __import__("cores").write_tree(tmp_path, board)
        seen = read_board(tmp_path, programs=False)
        assert seen.model == board.name, core
        assert seen.cpu_count == 4
        assert f"CPU part\t: {board.part:#x}" in (tmp_path / "proc" / "cpuinfo").read_text("ascii")
