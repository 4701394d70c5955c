"""A program per event: what it gets, and that it can neither block nor pile up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from edgemask.watch.hook import Hook

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="pidfd_open is Linux's")


def until(condition, seconds=10.0):
    """Wait for a condition; return whether it came true."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie that somebody else has to reap is dead enough.
    status = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return bool(status.stdout.strip()) and not status.stdout.startswith("Z")


@pytest.fixture
def hook():
    """Make hooks that are stopped in the end."""
    made = []

    def make(*command, timeout=10.0):
        made.append(Hook([str(part) for part in command], timeout))
        return made[-1]

    yield make
    for one in made:
        one.stop(0.1)


def test_event_arrives_on_stdin_and_arguments_are_no_shell(tmp_path, hook):
    code = "import sys; open(sys.argv[1], 'a').write(sys.stdin.read())"
    target = tmp_path / "$(touch x); out"
    one = hook(sys.executable, "-c", code, target)
    one.submit({"zone": "Tür", "n": 1})
    one.submit({"n": 2})
    one.stop(20)
    lines = target.read_text("utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [{"zone": "Tür", "n": 1}, {"n": 2}]
    assert one.status() == {"state": "ok", "runs": 2, "failed": 0, "dropped": 0}


@pytest.mark.parametrize(
    ("command", "state"),
    [
        (["/bin/sh", "-c", "exit 3"], "exit status 3"),
        (["/bin/sh", "-c", "kill -TERM $$"], "killed by signal 15"),
        (["/nowhere/program"], "cannot start: No such file or directory"),
        (["/bin/true"], "ok"),  # which does not read its input
    ],
)
def test_how_it_ended(hook, command, state):
    one = hook(*command)
    one.submit({"text": "x" * 3000})
    one.stop(20)
    assert one.state == state
    assert one.failed == (state != "ok")


def test_a_command_that_no_system_takes(hook) -> None:
    one = hook("/bin/tr\0ue")
    one.submit({})
    one.submit({})
    one.stop(20)
    assert one.failed == 2
    assert one.state.startswith("cannot start: ")


def test_what_the_program_prints_is_not_among_the_events(hook, capfd) -> None:
    one = hook("/bin/echo", "hello")
    one.submit({"n": 1})
    one.stop(20)
    assert one.runs == 1
    assert capfd.readouterr().out == ""


def test_secrets_are_not_handed_on(tmp_path, hook, monkeypatch) -> None:
    monkeypatch.setenv("EDGEMASK_MQTT_PASSWORD", "rosebud")
    monkeypatch.setenv("EDGEMASK_RUNTIME", "litert")
    one = hook("sh", "-c", f"env > {tmp_path}/out")
    one.submit({})
    one.stop(20)
    assert one.state == "ok"
    given = (tmp_path / "out").read_text("utf-8").splitlines()
    assert "EDGEMASK_RUNTIME=litert" in given
    assert f"PATH={os.environ['PATH']}" in given
    assert not [line for line in given if "PASSWORD" in line or "rosebud" in line]


def test_time_out_kills_the_program_and_its_children(tmp_path, hook):
    pids = tmp_path / "pids"
    one = hook("/bin/sh", "-c", f"sleep 60 & echo $$ $! > {pids}; wait", timeout=0.5)
    one.submit({})
    assert until(lambda: one.state == "timed out")
    found = [int(pid) for pid in pids.read_text().split()]
    assert len(found) == 2
    assert until(lambda: not any(alive(pid) for pid in found))


def test_children_left_behind_do_not_pile_up(tmp_path, hook):
    pids = tmp_path / "pids"
    one = hook("/bin/sh", "-c", f"sleep 60 & echo $! >> {pids}")
    for _ in range(3):
        one.submit({})
    one.stop(20)
    found = [int(pid) for pid in pids.read_text().split()]
    assert len(found) == 3
    assert until(lambda: not any(alive(pid) for pid in found))


def test_events_wait_in_a_bounded_queue_and_one_program_runs(tmp_path, hook):
    log = tmp_path / "log"
    one = hook("/bin/sh", "-c", f"cat >> {log}; sleep 0.05")
    for n in range(40):
        one.submit({"n": n})  # does not wait
    assert until(lambda: one.runs + one.dropped == 40 and not one._waiting)
    one.stop(20)
    numbers = [json.loads(line)["n"] for line in log.read_text().splitlines()]
    assert numbers == sorted(numbers)
    assert numbers[-8:] == list(range(32, 40))
    assert one.dropped == 40 - len(numbers)


def test_eight_wait_and_what_waits_at_the_end_is_counted(hook) -> None:
    one = hook("/bin/sleep", "60", timeout=60)
    one.submit({"n": 0})
    assert until(lambda: one.runs == 1)
    for n in range(9):
        one.submit({"n": n})
    assert one.dropped == 1
    one.stop(0.2)
    assert one.dropped == 9


def test_stop_does_not_wait_for_a_program_that_hangs(hook):
    one = hook("/bin/sh", "-c", "sleep 60", timeout=60)
    one.submit({})
    one.submit({})
    assert until(lambda: one.runs == 1)
    began = time.monotonic()
    one.stop(0.2)
    assert time.monotonic() - began < 30  # of the program's 60
    assert until(lambda: not one._thread.is_alive())
