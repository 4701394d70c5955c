"""Every broken board there is, as a folder, and what the doctor says about it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from boards import PI_3, PI_4, PI_5, ZERO_2_W, hold, make_board, write

import edgemask
from edgemask.cli import main
from edgemask.doctor import Finding, Host, examine


def problems(root: Path, **options: object) -> dict[str, Finding]:
    """Return the problems of a root by the name of the check."""
    host = Host(root, live=False, **options)  # type: ignore[arg-type]
    return {found.check: found for found in examine(host) if found.status == "problem"}


@pytest.mark.parametrize("codename", ["bookworm", "trixie"])
@pytest.mark.parametrize("model", [ZERO_2_W, PI_3, PI_4, PI_5])
def test_a_healthy_board_has_no_problems(tmp_path: Path, model: str, codename: str) -> None:
    host = Host(make_board(tmp_path, model, codename), live=False)
    found = list(examine(host))
    assert [one for one in found if one.status == "problem"] == []
    texts = {one.check: one.text for one in found if one.status == "ok"}
    assert texts["board"] == model
    assert codename in texts["system"]
    assert texts["64-bit"] == "64-bit programs, kernel aarch64"
    assert texts["cameras"] == "imx708_wide"
    assert texts["heat"] == "48 °C"
    assert texts["service camera"] == "settings are valid; starts at boot"
    assert not any(one.cure for one in found)


def test_zero_2_w_on_bookworm_with_numpy_2(tmp_path: Path) -> None:
    root = make_board(tmp_path, ZERO_2_W, "bookworm")
    site = "opt/edgemask/venv/lib/python3.11/site-packages"
    write(root, {f"{site}/numpy-2.4.6.dist-info/METADATA": ""})
    found = problems(root)
    assert set(found) == {"numpy"}
    assert found["numpy"].text.startswith("2.4.6 hides apt's 1.24.2")
    assert found["numpy"].cure == "sudo /opt/edgemask/venv/bin/pip install 'numpy<2'"
    # A simplejpeg of its own in the environment is compiled for the NumPy beside it.
    write(root, {f"{site}/simplejpeg-1.9.0.dist-info/METADATA": ""})
    assert problems(root) == {}


def test_numpy_2_is_what_trixie_has(tmp_path: Path) -> None:
    root = make_board(tmp_path, PI_5, "trixie")
    site = "opt/edgemask/venv/lib/python3.13/site-packages"
    write(root, {f"{site}/numpy-2.5.5.dist-info/METADATA": ""})
    assert problems(root) == {}


def test_tflite_runtime_beside_numpy_2(tmp_path: Path) -> None:
    root = make_board(tmp_path, PI_5, "trixie")
    site = root / "opt/edgemask/venv/lib/python3.13/site-packages"
    (site / "ai_edge_litert-2.3.0.dist-info").rename(site / "tflite_runtime-2.14.0.dist-info")
    found = problems(root)
    assert found["numpy"].cure.endswith("pip install ai-edge-litert")
    assert "runtime" in found


def test_32_bit_pi_3(tmp_path: Path) -> None:
    found = problems(make_board(tmp_path, PI_3, "bookworm", bits=32))
    assert set(found) == {"64-bit"}
    assert "kernel aarch64, which does not make them 64-bit" in found["64-bit"].text
    assert "64-bit Raspberry Pi OS" in found["64-bit"].cure


@pytest.mark.parametrize(
    ("model", "good"),
    [
        ("Raspberry Pi Zero W Rev 1.1", False),
        ("Raspberry Pi Zero Rev 1.3", False),
        ("Raspberry Pi Model B Plus Rev 1.2", False),
        ("Raspberry Pi 2 Model B Rev 1.1", False),
        ("Raspberry Pi 2 Model B Rev 1.2", True),
        ("Raspberry Pi Compute Module Rev 1.0", False),
        ("Raspberry Pi Compute Module 4 Rev 1.1", True),
        ("Raspberry Pi 500 Rev 1.0", True),
        (ZERO_2_W, True),
    ],
)
def test_processors_without_64_bit(tmp_path: Path, model: str, good: bool) -> None:
    root = write(make_board(tmp_path), {"proc/device-tree/model": f"{model}\0"})
    assert ("board" not in problems(root)) is good


def test_under_voltage_on_a_pi_4(tmp_path: Path) -> None:
    now = problems(make_board(tmp_path / "now", PI_4, throttled=0x50005))
    assert now["power"].text == "now: under-voltage, throttled"
    assert "5 V 3 A" in now["power"].cure
    before = problems(make_board(tmp_path / "before", PI_4, throttled=0x10000))
    assert before["power"].text == "since boot: under-voltage"


def test_heat(tmp_path: Path) -> None:
    root = make_board(tmp_path / "now", PI_5, throttled=0x80008)
    write(root, {"sys/class/thermal/thermal_zone0/temp": "84100\n"})
    found = problems(root)
    assert found["heat"].text.startswith("84 °C")
    assert found["power"].text == "now: soft temperature limit"
    before = list(examine(Host(make_board(tmp_path / "before", throttled=0x80000), live=False)))
    (power,) = [one for one in before if one.check == "power"]
    assert (power.status, bool(power.cure)) == ("note", True)


def test_pi_5_without_a_camera(tmp_path: Path) -> None:
    root = make_board(tmp_path, PI_5, sensor=None)
    assert "ribbon cable" in problems(root)["cameras"].cure
    # A service that reads a network camera needs none on the board.
    write(root, {"etc/edgemask/camera.toml": '[source]\nuri = "rtsp://10.0.0.7/stream"\n'})
    assert problems(root) == {}


def test_usb_camera(tmp_path: Path) -> None:
    root = make_board(tmp_path, PI_5, sensor=None)
    write(root, {"sys/devices/usb1/1-1/video4linux/video0/name": "C920\n"})
    (root / "sys/class/video4linux").mkdir(parents=True)
    (root / "sys/class/video4linux/video0").symlink_to("../../devices/usb1/1-1/video4linux/video0")
    (root / "sys/devices/usb1/1-1/video4linux/video0/device").symlink_to("../../../1-1")
    host = Host(root, live=False)
    assert {one.check: one.text for one in examine(host)}["cameras"] == "C920 (USB)"


@pytest.mark.parametrize(
    ("lines", "cure"),
    [
        ("camera_auto_detect=0\n", "camera_auto_detect=1 | sudo tee -a /boot/firmware/config.txt"),
        ("#camera_auto_detect=1\n", "camera_auto_detect=1"),
        ("start_x=1\ngpu_mem=128\n", "s/^start_x=1/camera_auto_detect=1/"),
        ("camera_auto_detect=0\ndtoverlay=imx219,cam0\n", None),
    ],
)
def test_config_txt(tmp_path: Path, lines: str, cure: str | None) -> None:
    root = write(make_board(tmp_path), {"boot/firmware/config.txt": lines})
    found = problems(root)
    assert (cure in found["config.txt"].cure) if cure else (found == {})


def test_picamera2_missing_or_hidden(tmp_path: Path) -> None:
    root = make_board(tmp_path / "hidden")
    write(root, {"opt/edgemask/venv/pyvenv.cfg": "include-system-site-packages = false\n"})
    assert problems(root)["picamera2"].cure == (
        "sed -i '/^include-system/s/false/true/' /opt/edgemask/venv/pyvenv.cfg"
    )
    root = make_board(tmp_path / "missing")
    (root / "usr/lib/python3/dist-packages/picamera2").rename(root / "away")
    assert "apt install" in problems(root)["picamera2"].cure


def test_the_command_for_a_hidden_picamera2_works(tmp_path: Path) -> None:
    root = make_board(tmp_path)
    settings = root / "opt/edgemask/venv/pyvenv.cfg"
    settings.write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    command = problems(root)["picamera2"].cure.replace("/opt", f"{root}/opt")
    assert os.system(command) == 0
    assert problems(root) == {}


def test_busy_camera(tmp_path: Path) -> None:
    root = make_board(tmp_path)
    hold(root, 812, "edgemask", "/dev/media0")
    assert problems(root) == {}
    hold(root, 4711, "rpicam-vid", "/dev/media0")
    found = problems(root)["busy"]
    assert "rpicam-vid (pid 4711)" in found.text
    assert found.cure == "sudo kill 4711"


def test_groups(tmp_path: Path) -> None:
    root = write(make_board(tmp_path), {"etc/group": "video:x:44:pi\nrender:x:992:edgemask,pi\n"})
    assert problems(root)["groups"].cure.startswith("sudo usermod -aG video edgemask")


Usage = Callable[[Path], os.statvfs_result]


def usage(**changes: int) -> Usage:
    """Return a statvfs for a card with plenty of room but for the changes."""
    values = {"f_bsize": 4096, "f_frsize": 4096, "f_blocks": 7_000_000, "f_bfree": 4_000_000,
              "f_bavail": 4_000_000, "f_files": 1_800_000, "f_ffree": 1_500_000,
              "f_favail": 1_500_000, "f_flag": 0, "f_namemax": 255} | changes  # fmt: skip
    return lambda path: os.statvfs_result(tuple(values.values()))


def test_full_disk(tmp_path: Path) -> None:
    root = make_board(tmp_path)
    assert problems(root, statvfs=usage()) == {}
    found = problems(root, statvfs=usage(f_bavail=10_000))
    assert found["disk"].text == "only 41 MB free"
    assert "journalctl --vacuum-size" in found["disk"].cure
    assert "inodes" in problems(root, statvfs=usage(f_favail=12))["disk"].text
    # btrfs counts no inodes.
    assert problems(root, statvfs=usage(f_files=0, f_favail=0)) == {}


def test_read_only_card(tmp_path: Path) -> None:
    root = write(make_board(tmp_path), {"proc/mounts": "/dev/mmcblk0p2 / ext4 ro,noatime 0 0\n"})
    assert "remount,rw" in problems(root)["root"].cure
    write(root, {"proc/mounts": "overlay / overlay rw,lowerdir=/lower 0 0\n"})
    assert problems(root) == {}


def test_little_memory(tmp_path: Path) -> None:
    root = make_board(tmp_path, ZERO_2_W)
    write(root, {
        "proc/meminfo": "MemTotal: 426000 kB\nMemAvailable: 90000 kB\nCmaTotal: 262144 kB\n"
                        "CmaFree: 9000 kB\n",
        "proc/swaps": "Filename Type Size Used Priority\n",
    })  # fmt: skip
    found = problems(root)
    assert set(found) == {"memory", "swap", "cma"}
    assert found["swap"].cure == "sudo apt install zram-tools"
    assert "cma-128" in found["cma"].cure


def test_kernel_without_memory_limits_is_no_problem_but_told(tmp_path: Path) -> None:
    root = make_board(tmp_path)
    write(root, {
        "sys/fs/cgroup/cgroup.controllers": "cpu io pids\n",
        "boot/firmware/cmdline.txt": "console=tty1 root=PARTUUID=1-02 rootwait\n",
    })  # fmt: skip
    (limits,) = [one for one in examine(Host(root, live=False)) if one.check == "limits"]
    assert limits.status == "note"
    command = limits.cure.removeprefix("sudo ").replace("/boot", f"{root}/boot")
    assert os.system(command.partition(" && ")[0]) == 0
    line = (root / "boot/firmware/cmdline.txt").read_text()
    assert line == "console=tty1 root=PARTUUID=1-02 rootwait cgroup_enable=memory\n"


def test_old_release(tmp_path: Path) -> None:
    assert "system" in problems(make_board(tmp_path, PI_4, "bullseye"))


def test_environment_of_the_release_before(tmp_path: Path) -> None:
    root = make_board(tmp_path, PI_5, "trixie")
    (root / "opt/edgemask/venv/lib/python3.13").rename(root / "opt/edgemask/venv/lib/python3.11")
    assert "install.sh" in problems(root)["python"].cure


def test_settings_with_a_misspelt_key(tmp_path: Path) -> None:
    root = write(make_board(tmp_path), {"etc/edgemask/camera.toml": "[model]\nscroe = 0.5\n"})
    found = problems(root)["service camera"]
    assert "score" in found.text
    assert str(tmp_path) not in found.text
    assert found.cure.startswith("sudoedit /etc/edgemask/camera.toml")


def test_settings_may_use_the_folders_of_systemd(tmp_path: Path) -> None:
    text = '[serve]\ntoken_file = "$STATE_DIRECTORY/token"\n'
    root = write(make_board(tmp_path), {"etc/edgemask/camera.toml": text})
    assert problems(root) == {}
    assert "STATE_DIRECTORY" not in os.environ


def test_an_empty_folder_is_not_a_system(tmp_path: Path) -> None:
    found = list(examine(Host(tmp_path, live=False)))
    assert {one.status for one in found if one.check in ("system", "board", "numpy")} == {"note"}


def test_no_program_of_another_system_is_run(tmp_path: Path) -> None:
    root = make_board(tmp_path)
    (root / "sys/devices/platform/soc/soc:firmware/get_throttled").unlink()
    write(root, {"usr/bin/vcgencmd": f"#!/bin/sh\ntouch {tmp_path}/was-run\n"})
    (root / "usr/bin/vcgencmd").chmod(0o755)

    def run(*_: object) -> None:
        raise AssertionError("a program was run")

    problems(root, run=run)
    assert not (tmp_path / "was-run").exists()


def test_it_works_where_numpy_does_not_load(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "sys.modules['numpy'] = None  # importing it fails\n"
        "from edgemask.cli import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "doctor", "--root", make_board(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(Path(edgemask.__file__).parents[1])},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "no problems"


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_board(tmp_path, PI_4, throttled=0x1)
    assert main(["doctor", "--root", str(root)]) == 1
    lines = capsys.readouterr().out.splitlines()
    (at,) = [n for n, line in enumerate(lines) if line.startswith("problem")]
    assert lines[at].split()[:2] == ["problem", "power"]
    assert lines[at + 1].strip().startswith("-> use the power supply")
    assert lines[-1] == "1 problem"

    assert main(["doctor", "--json", "--root", str(root)]) == 1
    record = json.loads(capsys.readouterr().out)
    assert (record["schema"], record["problems"]) == ("edgemask.doctor/1", 1)
    (power,) = [one for one in record["findings"] if one["status"] == "problem"]
    assert power.keys() == {"check", "status", "text", "cure"}


def test_command_line_of_a_healthy_board(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--root", str(make_board(tmp_path))]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "no problems"


def test_a_root_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--root", str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err.startswith("edgemask: error: there is no folder")


def test_a_folder_that_is_no_root(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--root", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "has no etc/os-release" in err
    assert err.count("\n") == 1
