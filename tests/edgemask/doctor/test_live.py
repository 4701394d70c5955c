"""What the doctor tries on the running system: programs, and probes in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from boards import PI_5, make_board, write

from edgemask.doctor import Finding, Host, examine, probe
from edgemask.doctor.host import Answer, run_program

RUNTIME = {"name": "ai-edge-litert", "version": "2.3.0", "int8": True}
MODEL = {"name": "people 1", "found": 1, "milliseconds": 300.0, "threads": 4, "left_out": {},
         "peak_mb": 80.0}  # fmt: skip
GOOD: dict[str, Any] = {
    "numpy": {"version": "2.2.4"}, "runtime": RUNTIME, "model": MODEL,
    "camera": {"cameras": ["imx708_wide"]},
    "systemctl": "LoadState=loaded\nActiveState=active\nSubState=running\nNRestarts=0\n",
}  # fmt: skip
Run = Callable[[Sequence[str], float], Answer | None]


def answers(**changes: Any) -> Run:
    """Return a stand-in for running programs: a dict is a probe's result, None no answer."""
    known = GOOD | changes

    def run(command: Sequence[str], timeout: float) -> Answer | None:
        key = "systemctl" if command[0] == "systemctl" else command[-1]
        value = known[key]
        if isinstance(value, dict):
            return Answer(0, f"a line of chatter\n{json.dumps(value)}\n")
        return Answer(0, value) if isinstance(value, str) else value

    return run


def look(root: Path, **changes: Any) -> dict[str, Finding]:
    """Examine a root as if it were the running system, and return the findings by check."""
    os.makedirs(root / "run/systemd/timesync", exist_ok=True)
    (root / "run/systemd/timesync/synchronized").touch()
    return {one.check: one for one in examine(Host(root, live=True, run=answers(**changes)))}


@pytest.fixture(autouse=True)
def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look as root, whoever runs the tests."""
    monkeypatch.setattr("os.geteuid", lambda: 0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_board(tmp_path)


def test_all_is_well(root: Path) -> None:
    found = look(root)
    assert [one for one in found.values() if one.status == "problem"] == []
    assert found["runtime"].text == "ai-edge-litert 2.3.0; XNNPACK takes int8"
    assert found["model"].text.endswith("all of it in XNNPACK")
    assert found["picamera2"].text.endswith("they list imx708_wide")
    assert found["service camera"].text == "active (running)"


@pytest.mark.parametrize(
    ("check", "answer", "text", "cure"),
    [
        ("runtime", {**RUNTIME, "int8": False}, "without XNNPACK", "install ai-edge-litert"),
        ("runtime", Answer(-signal.SIGILL, ""), "another processor", "--force-reinstall"),
        ("runtime", {"error": "no TFLite runtime works", "kind": "x"}, "no TFLite", "install"),
        ("runtime", None, "no answer within", "install"),
        ("runtime", Answer(1, "", "Traceback\nMemoryError\n"), "MemoryError", "install"),
        ("model", {**MODEL, "left_out": {"backbone": "3 partitions"}}, "3 partitions", "install"),
        ("model", {**MODEL, "found": 0}, "found nobody", "install"),
        ("model", Answer(-signal.SIGKILL, ""), "ended by SIGKILL", "edgemask demo --debug"),
    ],
)
def test_runtime_and_model(root: Path, check: str, answer: Any, text: str, cure: str) -> None:
    found = look(root, **{check: answer})[check]
    assert found.status == "problem"
    assert text in found.text
    assert cure in found.cure


@pytest.mark.parametrize(
    ("error", "kind", "cure"),
    [
        ("numpy.dtype size changed, may indicate binary incompatibility", "ValueError", "numpy<2"),
        ("No module named 'libcamera._libcamera'", "ModuleNotFoundError", "--system-site-packages"),
        ("libcamera.so.0.6: cannot open shared object file", "ImportError", "--reinstall"),
    ],
)
def test_picamera2_that_does_not_import(root: Path, error: str, kind: str, cure: str) -> None:
    found = look(root, camera={"error": error, "kind": kind, "module": "libcamera"})["picamera2"]
    assert found.status == "problem"
    assert cure in found.cure


def test_numpy_that_does_not_load(tmp_path: Path) -> None:
    root = make_board(tmp_path, PI_5)
    (root / "usr/lib/python3/dist-packages/numpy-2.2.4.egg-info").unlink()
    found = look(root, numpy={"error": "libopenblas.so.0: cannot open", "kind": "ImportError"})
    assert found["numpy"].status == "problem"
    assert "libopenblas" in found["numpy"].text


@pytest.mark.parametrize(
    ("state", "status", "text", "cure"),
    [
        ("ActiveState=failed\nResult=watchdog\nNRestarts=19", "problem", "failed (watchdog)",
         "systemctl reset-failed edgemask@camera"),
        ("ActiveState=activating\nNRestarts=4", "problem", "keeps failing", "journalctl"),
        ("ActiveState=active\nSubState=running\nNRestarts=2", "ok", "restarted 2 times", ""),
        ("ActiveState=inactive\nNRestarts=0", "problem", "not running", "systemctl start"),
    ],
)  # fmt: skip
def test_service(root: Path, state: str, status: str, text: str, cure: str) -> None:
    found = look(root, systemctl=state + "\n")["service camera"]
    assert (found.status, bool(found.cure)) == (status, bool(cure))
    assert text in found.text
    assert cure in found.cure


def test_service_that_is_neither_enabled_nor_running(root: Path) -> None:
    (root / "etc/systemd/system/multi-user.target.wants/edgemask@camera.service").unlink()
    found = look(root, systemctl="ActiveState=inactive\n")["service camera"]
    assert (found.status, found.cure) == ("note", "sudo systemctl enable --now edgemask@camera")


def test_clock(root: Path) -> None:
    (root / "run/systemd/timesync").mkdir(parents=True)
    past = Host(root, live=True, run=answers(), now=lambda: 0.0)
    (clock,) = [one for one in examine(past) if one.check == "clock"]
    assert clock.status == "problem"
    assert clock.text.startswith("1970-01-01")
    (clock,) = [one for one in examine(Host(root, run=answers())) if one.check == "clock"]
    assert "not synchronised" in clock.text
    assert clock.cure == "sudo timedatectl set-ntp true"


@pytest.mark.parametrize(("groups", "lacking"), [([1000], "video,render"), ([1000, 44, 992], "")])
def test_groups_of_a_user(
    root: Path, monkeypatch: pytest.MonkeyPatch, groups: list[int], lacking: str
) -> None:
    known = [
        SimpleNamespace(gr_name=name, gr_gid=gid)
        for name, gid in (("video", 44), ("pi", 1000), ("render", 992))
    ]
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr("os.getgroups", lambda: groups)
    monkeypatch.setattr("grp.getgrall", lambda: known)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: SimpleNamespace(pw_name="pi"))
    found = look(root)["groups"]
    assert found.status == ("problem" if lacking else "ok")
    assert not lacking or found.cure.startswith(f"sudo usermod -aG {lacking} pi")


def test_a_service_that_runs_may_use_the_memory(root: Path) -> None:
    write(root, {"proc/meminfo": "MemTotal: 426000 kB\nMemAvailable: 90000 kB\n"})
    assert look(root)["memory"].status == "problem"
    (root / "run/edgemask/camera").mkdir(parents=True)
    assert look(root)["memory"].status == "ok"


@pytest.mark.parametrize("name", ["numpy", "runtime", "model"])
def test_probes_work_here(name: str) -> None:
    answer = run_program([sys.executable, "-m", "edgemask.doctor.probe", name], 120)
    assert answer is not None
    result = json.loads(answer.output.splitlines()[-1])
    assert "error" not in result, result
    if name == "model":
        assert result["found"] == 1
        assert result["left_out"] == {}
        assert 10 < result["peak_mb"] < 300


def test_a_probe_that_fails_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    probe.PROBES["none"] = lambda: {}["missing"]
    try:
        assert probe.main("none") == 0
    finally:
        del probe.PROBES["none"]
    assert json.loads(capsys.readouterr().out)["kind"] == "KeyError"


def test_programs_that_are_missing_or_slow() -> None:
    assert run_program(["/none/program"], 1) is None
    assert run_program([sys.executable, "-c", "import time; time.sleep(9)"], 0.2) is None
