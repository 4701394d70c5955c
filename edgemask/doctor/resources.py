"""What runs out: memory, camera memory, disk."""

from __future__ import annotations

import re

from edgemask.doctor.host import Finding, Host, note, ok, problem

__all__ = [
    "check_camera_memory",
    "check_disk",
    "check_limits",
    "check_memory",
    "check_swap",
    "check_writable",
]

_MB = 1_000_000
# Peak of one process on 640x480 with all outputs is 82 MB (docs/architecture.md); the camera's
# buffers and libcamera come on top.
_NEEDED_MB = 150
_SMALL_BOARD_MB = 600
# Each buffer of a camera takes width x height x 3 bytes: three of 1280x720 are 8 MB, and the
# sensor's own come on top.
_CAMERA_MB = 16
_DISK_MB = 100  # what the events keep free unless they are told otherwise
_INODES = 1000
_STATE = "var/lib/edgemask"


def _meminfo(host: Host) -> dict[str, float]:
    """Return the rows of /proc/meminfo in MB."""
    rows = re.findall(r"^(\w+):\s+(\d+) kB", host.text("proc/meminfo") or "", re.MULTILINE)
    return {key: int(value) * 1024 / _MB for key, value in rows}


def check_memory(host: Host) -> Finding:
    """Tell how much memory there is."""
    memory = _meminfo(host)
    total, free = memory.get("MemTotal"), memory.get("MemAvailable")
    if total is None or free is None:
        return note("memory", "not known: there is no /proc/meminfo")
    text = f"{free:.0f} of {total:.0f} MB available"
    if free < _NEEDED_MB and not _is_running(host):
        return problem(
            "memory",
            f"{text}, but a camera with its model needs about {_NEEDED_MB}",
            "sudo systemctl set-default multi-user.target && sudo reboot  (no desktop)",
        )
    return ok("memory", text)


def _is_running(host: Host) -> bool:
    """Whether an edgemask service has taken its share already."""
    return bool(host.live and host.glob("run/edgemask/*"))


def check_swap(host: Host) -> Finding:
    """Tell whether there is swap: pip and apt need it on a small board."""
    total = _meminfo(host).get("MemTotal")
    lines = (host.text("proc/swaps") or "").splitlines()[1:]
    areas = [line.split() for line in lines if len(line.split()) >= 3]
    if not areas:
        if total is not None and total < _SMALL_BOARD_MB:
            return problem(
                "swap", f"none, on a board with {total:.0f} MB", "sudo apt install zram-tools"
            )
        if total is None:
            return note("swap", "none, and the amount of memory is not known")
        return ok("swap", "none, but there is enough memory without it")
    listed = ", ".join(f"{area[0]} {int(area[2]) * 1024 / _MB:.0f} MB" for area in areas)
    if all("zram" in area[0] for area in areas):
        return ok("swap", f"{listed}, in memory")
    return ok("swap", f"{listed}; zram-tools would wear an SD card less")


def check_camera_memory(host: Host) -> Finding:
    """Tell the contiguous memory (CMA) that a camera's buffers come from."""
    memory = _meminfo(host)
    total, free = memory.get("CmaTotal"), memory.get("CmaFree")
    if not total or free is None:
        return note("cma", "no contiguous memory is set aside, which a Pi's camera needs")
    text = f"{free:.0f} of {total:.0f} MB free"
    if free < _CAMERA_MB and not _is_running(host):
        return problem(
            "cma",
            f"{text}: a camera may fail to allocate its buffers",
            "edit /boot/firmware/config.txt: dtoverlay=vc4-kms-v3d,cma-128, then sudo reboot",
        )
    return ok("cma", text)


def check_limits(host: Host) -> Finding:
    """Tell whether the kernel can keep the service within its memory limits."""
    controllers = host.text("sys/fs/cgroup/cgroup.controllers")
    if controllers is None:
        return note("limits", "not known: no cgroup v2 is mounted")
    if "memory" in controllers.split():
        return ok("limits", "MemoryMax of the service is enforced")
    text = "the kernel does not limit memory, so MemoryMax of the service has no effect"
    command = "boot/firmware/cmdline.txt"
    if not host.path(command).is_file():
        return note("limits", text)
    return note(
        "limits", text, f"sudo sed -i '1s/$/ cgroup_enable=memory/' /{command} && sudo reboot"
    )


def check_disk(host: Host) -> Finding:
    """Tell the room for results, in bytes and in files."""
    folder = host.path(_STATE)
    while not folder.is_dir() and folder != host.root:
        folder = folder.parent
    usage = host.statvfs(folder)
    room = usage.f_bavail * usage.f_frsize / _MB
    text = f"{room:.0f} MB free"
    if room < _DISK_MB:
        return problem(
            "disk", f"only {text}", "sudo apt clean && sudo journalctl --vacuum-size=20M"
        )
    if usage.f_files and usage.f_favail < _INODES:
        return problem(
            "disk",
            f"{text}, but only {usage.f_favail} more files fit (inodes)",
            "sudo du --inodes -xd3 / | sort -n | tail  (shows where the files are)",
        )
    return ok("disk", text)


def check_writable(host: Host) -> Finding:
    """Tell whether the root file system can be written."""
    mounts = [line.split() for line in (host.text("proc/mounts") or "").splitlines()]
    roots = [fields for fields in mounts if len(fields) >= 4 and fields[1] == "/"]
    if not roots:
        return note("root", "not known: the system is not running")
    device, _, kind, options = roots[-1][:4]
    if kind == "overlay":
        return note("root", "an overlay: changes are lost at reboot")
    if "ro" in options.split(","):
        return problem(
            "root",
            f"{device} is mounted read-only, which the kernel does when a card fails",
            "sudo mount -o remount,rw / ; if it happens again, dmesg | grep -i mmc, and a new card",
        )
    return ok("root", f"{device} ({kind}) is writable")
