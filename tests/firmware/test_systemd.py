"""install.sh and the shipped unit under a systemd that is really PID 1, within 512 MB of memory.

Marked ``systemd``; .ci/legs/systemd prepares what it needs and names it in the environment:
EDGEMASK_ROOTFS, a Debian root with systemd that may be written to, and EDGEMASK_WHEELS, a
folder with the wheels of edgemask and all it depends on. The container has no network. It is booted
once; guest.sh goes through the life of an installation and writes down what it sees.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LIMIT = 512 * 2**20

pytestmark = pytest.mark.systemd

SETTINGS = """\
# A camera that is drawn: six frames a second, for ever.
[source]
uri = "synthetic:?people=2&size=320x240&fps=6&live=true"

[serve]
port = 8080
"""
DRIVER = """\
[Unit]
Description=The life of an installation
After=multi-user.target
SuccessAction=exit-force
FailureAction=exit-force
[Service]
Type=oneshot
ExecStart=/guest/guest.sh
TimeoutStartSec=600
"""


@dataclass(frozen=True)
class Life:
    """What guest.sh saw, phase by phase, and the most memory that the container had."""

    folder: Path
    peak: int | None
    killed: int | None

    def out(self, phase: str) -> str:
        return (self.folder / f"{phase}.out").read_text("utf-8", "replace")

    def status(self, phase: str) -> int:
        return int((self.folder / f"{phase}.rc").read_text())

    def seconds(self, phase: str) -> float:
        return float((self.folder / f"{phase}.seconds").read_text())

    def done(self, phase: str) -> str:
        """Return what a phase printed, after making sure that it succeeded."""
        assert self.status(phase) == 0, f"{phase}\n{self.out(phase)}"
        return self.out(phase)

    def properties(self, phase: str) -> dict[str, str]:
        return dict(line.partition("=")[::2] for line in self.done(phase).splitlines())


@contextlib.contextmanager
def memory_group() -> Iterator[Path | None]:
    """Make a control group of 512 MB; None where this system does not let us."""
    v1 = Path("/sys/fs/cgroup/memory")
    parent = v1 if (v1 / "memory.limit_in_bytes").exists() else Path("/sys/fs/cgroup")
    group = parent / f"edgemask-{os.getpid()}"
    try:
        group.mkdir()
        limit = "memory.limit_in_bytes" if parent is v1 else "memory.max"
        (group / limit).write_text(str(LIMIT))
    except OSError:
        with contextlib.suppress(OSError):
            group.rmdir()
        yield None
        return
    yield group
    with contextlib.suppress(OSError):  # a container that hangs still has processes in it
        group.rmdir()


def read_number(group: Path | None, *names: str) -> int | None:
    """Return the first number behind a name in the files that exist: ``file`` or ``file:key``."""
    for name in names if group else ():
        file, _, key = name.partition(":")
        with contextlib.suppress(OSError):
            found = re.search(rf"{key}\s*(\d+)", (group / file).read_text())  # type: ignore[operator]
            if found:
                return int(found[1])
    return None


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Life:
    rootfs, wheels = (os.environ.get(f"EDGEMASK_{name}") for name in ("ROOTFS", "WHEELS"))
    if not rootfs or not wheels:
        pytest.skip("EDGEMASK_ROOTFS and EDGEMASK_WHEELS are not set: run .ci/legs/systemd")
    if os.geteuid() != 0 or shutil.which("systemd-nspawn") is None:
        pytest.skip("needs root and systemd-nspawn")
    folder = tmp_path_factory.mktemp("systemd")
    guest, results = folder / "guest", folder / "results"
    guest.mkdir()
    results.mkdir()
    shutil.copy(HERE / "guest.sh", guest)
    (guest / "camera.toml").write_text(SETTINGS)
    (guest / "edgemask-driver.service").write_text(DRIVER)
    binds = {
        f"{guest}": "/guest",
        f"{wheels}": "/wheels",
        f"{ROOT}": "/source",
        f"{guest}/edgemask-driver.service": "/etc/systemd/system/edgemask-driver.service",
    }
    command = [
        *("systemd-nspawn", "--register=no", "--keep-unit", "--quiet", f"--directory={rootfs}"),
        *("--private-network", "--boot", "--console=pipe", f"--bind={results}:/results"),
        *(f"--bind-ro={source}:{target}" for source, target in binds.items()),
        *("systemd.unit=multi-user.target", "systemd.wants=edgemask-driver.service"),
    ]
    with memory_group() as group:
        enter = f"echo $$ > {group}/cgroup.procs; " if group else ""
        subprocess.run(
            ["timeout", "600", "bash", "-c", enter + 'exec "$@"', "bash", *command],
            env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        peak = read_number(group, "memory.max_usage_in_bytes", "memory.peak")
        killed = read_number(group, "memory.oom_control:oom_kill ", "memory.events:oom_kill ")
    assert (results / "accounts-after.rc").exists(), "the container did not get to the end"
    return Life(results, peak, killed)


def test_dry_run_changes_nothing(life: Life) -> None:
    assert "systemctl enable" in life.done("dry-run")
    assert life.out("files-dry-run") == life.out("files-before")


def test_install(life: Life) -> None:
    text = life.done("install")
    assert "person" in text, "the demo ran as the service's account"
    example = (ROOT / "edgemask/assets/edgemask.toml").read_text("utf-8")
    assert (life.folder / "camera.toml").read_text("utf-8") == example


def test_second_install_keeps_the_settings(life: Life) -> None:
    life.done("install-again")
    life.done("settings-kept")


def test_the_installed_copy_makes_a_broken_environment_anew(life: Life) -> None:
    life.done("install-kept")


def test_unit_is_valid_and_hardened(life: Life) -> None:
    assert life.done("verify") == ""
    found = re.search(r"exposure level for \S+: ([\d.]+)", life.done("security"))
    assert found
    assert float(found[1]) <= 2.5


def test_it_starts_and_is_ready(life: Life) -> None:
    life.done("active")
    state = life.properties("state")
    assert (state["ActiveState"], state["SubState"], state["NRestarts"]) == (
        "active",
        "running",
        "0",
    )
    assert (state["User"], state["WatchdogUSec"]) == ("edgemask", "30s")
    assert state["StatusText"]
    assert life.done("enabled").strip() == "enabled"


def test_the_process_may_do_little(life: Life) -> None:
    text = life.out("process")
    status = dict(line.partition(":")[::2] for line in text.splitlines() if ":" in line)
    assert int(status["CapEff"], 16) == 0
    assert (status["NoNewPrivs"].strip(), status["Seccomp"].strip()) == ("1", "2")
    assert "0" not in status["Uid"].split()
    groups = re.search(r"^uid=.*", text, re.MULTILINE)
    assert groups
    assert "(video)" in groups[0]
    assert "(render)" in groups[0]
    assert len(re.findall("Read-only file system", text)) == 3
    assert "state is writable" in text
    # Tokens and passwords lie beside the settings, pictures in the state.
    for mode, name in (
        ("drwxr-x---", "/etc/edgemask"),
        ("-rw-r-----", "/etc/edgemask/camera.toml"),
        ("drwxr-x---", "/var/lib/edgemask/camera"),
        ("drwxr-x---", "/run/edgemask/camera"),
    ):
        assert re.search(rf"^{mode} .* {name}$", text, re.MULTILINE), name


def test_it_fits_a_board_with_512_mb(life: Life) -> None:
    high_water = re.search(r"VmHWM:\s*(\d+) kB", life.out("process"))
    assert high_water
    assert int(high_water[1]) * 1024 < 240 * 2**20  # MemoryHigh of the unit
    if life.peak is None:
        pytest.skip("this system gives no memory control group: only the process was measured")
    assert 0 < life.peak <= LIMIT
    assert life.killed in (0, None)


def test_a_second_camera_that_is_open_to_the_network(life: Life) -> None:
    text = life.done("second")
    assert re.search(r"^file -rw------- edgemask /var/lib/edgemask/door/\S+$", text, re.MULTILINE)
    assert re.search(r"http://\S+:8081/\?token=\S+", text)
    assert re.findall(r"^answer (\d+)$", text, re.MULTILINE) == ["401", "200"]
    assert text.splitlines()[-2:] == ["active", "active"]


def test_a_crash_is_mended(life: Life) -> None:
    life.done("kill")
    state = life.properties("kill")
    assert (state["ActiveState"], state["NRestarts"]) == ("active", "1")


def test_a_hung_process_is_noticed_and_mended(life: Life) -> None:
    assert life.properties("freeze")["ActiveState"] == "active"
    journal = life.out("journal")
    assert "Watchdog timeout (limit 30s)!" in journal
    assert "Fatal Python error: Aborted" in journal  # and where each thread was
    assert re.search(r'File "/opt/edgemask/venv/\S+edgemask/', journal)


def test_it_stops_cleanly(life: Life) -> None:
    life.done("stop")
    assert life.seconds("stop") < 5
    state = life.properties("stopped")
    assert (state["ActiveState"], state["Result"]) == ("inactive", "success")
    assert state["ExecMainStatus"] == "0"


def test_the_doctor_is_content(life: Life) -> None:
    record = json.loads(life.out("doctor"))
    found = {one["check"]: one for one in record["findings"]}
    assert [one for one in record["findings"] if one["status"] == "problem"] == []
    assert life.status("doctor") == 0
    for check in ("64-bit", "numpy", "runtime", "model", "service camera"):
        assert found[check]["status"] == "ok", found[check]
    assert found["numpy"]["text"].endswith("from apt")


def test_uninstall_leaves_the_settings_and_nothing_else(life: Life) -> None:
    life.done("start-again")
    life.done("uninstall")
    left = {"/etc/edgemask/camera.toml", "/etc/edgemask/door.toml"}
    assert set(life.out("settings-left").split()) == left
    assert life.out("units-left").strip() == ""
    life.done("purge")
    before, after = (set(life.out(f"files-{when}").splitlines()) for when in ("before", "after"))
    assert after - before == set()
    assert before - after == set()
    assert life.out("accounts-after") == life.out("accounts-before")
