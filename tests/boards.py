"""Root folders of boards, healthy and broken: what a Raspberry Pi shows in files of a few bytes."""

from __future__ import annotations

from pathlib import Path

ZERO_2_W = "Raspberry Pi Zero 2 W Rev 1.0"
PI_3 = "Raspberry Pi 3 Model B Plus Rev 1.3"
PI_4 = "Raspberry Pi 4 Model B Rev 1.5"
PI_5 = "Raspberry Pi 5 Model B Rev 1.0"

_PYTHON = {"bullseye": "python3.9", "bookworm": "python3.11", "trixie": "python3.13"}
_VERSION = {"bullseye": 11, "bookworm": 12, "trixie": 13}
_NUMPY = {"bullseye": "1.19.5", "bookworm": "1.24.2", "trixie": "2.2.4"}
_MEMORY_MB = {ZERO_2_W: 416, PI_3: 900, PI_4: 3800, PI_5: 8000}


def write(root: Path, files: dict[str, str | bytes]) -> Path:
    """Write files below a root and return it."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def make_board(
    root: Path,
    model: str = PI_5,
    codename: str = "trixie",
    *,
    bits: int = 64,
    sensor: str | None = "imx708_wide 10-001a",
    throttled: int = 0,
) -> Path:
    """Write the root of a Raspberry Pi on which edgemask is installed and nothing is wrong."""
    python, memory = _PYTHON[codename], _MEMORY_MB[model]
    debian = f"Debian GNU/Linux {_VERSION[codename]} ({codename})"
    apt = "usr/lib/python3/dist-packages"
    site = f"opt/edgemask/venv/lib/{python}/site-packages"
    write(root, {
        "etc/os-release": f'PRETTY_NAME="{debian}"\nID=debian\nVERSION_CODENAME={codename}\n',
        "proc/device-tree/model": f"{model}\0",
        "proc/sys/kernel/arch": "aarch64\n",
        f"usr/bin/{python}": b"\x7fELF" + (b"\x02" if bits == 64 else b"\x01"),
        f"usr/lib/{python}/os.py": "",
        "proc/meminfo": f"MemTotal: {memory * 1000} kB\nMemAvailable: {memory * 600} kB\n"
                        "CmaTotal: 262144 kB\nCmaFree: 200000 kB\n",
        "proc/swaps": "Filename Type Size Used Priority\n/dev/zram0 partition 400000 0 100\n",
        "proc/mounts": "/dev/mmcblk0p2 / ext4 rw,noatime 0 0\n",
        "sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory pids\n",
        "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
        "sys/class/thermal/thermal_zone0/temp": "48312\n",
        "sys/devices/platform/soc/soc:firmware/get_throttled": f"{throttled:x}\n",
        "boot/firmware/config.txt": "# camera\ncamera_auto_detect=1\n",
        f"{apt}/libcamera/__init__.py": "",
        f"{apt}/picamera2/__init__.py": "",
        f"{apt}/picamera2-0.3.31.egg-info": "",
        f"{apt}/simplejpeg-1.8.1.egg-info": "",
        f"{apt}/numpy-{_NUMPY[codename]}.egg-info": "",
        "opt/edgemask/venv/pyvenv.cfg": "home = /usr/bin\ninclude-system-site-packages = true\n",
        f"{site}/ai_edge_litert-2.3.0.dist-info/METADATA": "",
        "etc/edgemask/camera.toml": "",
        "etc/systemd/system/edgemask@.service": "",
        "etc/systemd/system/multi-user.target.wants/edgemask@camera.service": "",
        "etc/passwd": "root:x:0:0::/root:/bin/sh\nedgemask:x:996:991::/var/lib/edgemask:/bin/no\n",
        "etc/group": "video:x:44:edgemask\nrender:x:992:edgemask\nedgemask:x:991:\n",
        "var/lib/edgemask/camera/.keep": "",
    })  # fmt: skip
    (root / "usr/bin/python3").symlink_to(python)
    if sensor:
        write(root, {"sys/class/video4linux/v4l-subdev0/name": f"{sensor}\n"})
    return root


def hold(root: Path, pid: int, name: str, device: str) -> None:
    """Let a process have a device open."""
    write(root, {f"proc/{pid}/comm": f"{name}\n"})
    folder = root / f"proc/{pid}/fd"
    folder.mkdir()
    (folder / "5").symlink_to(device)
