"""The camera: its software, its line in config.txt, who holds it, and who may open it."""

from __future__ import annotations

import grp
import os
import pwd
import re
from pathlib import Path

from edgemask.doctor.host import Finding, Host, note, ok, problem
from edgemask.doctor.python import ask, environment, sees_system_packages
from edgemask.doctor.service import uses_camera

__all__ = ["check_cameras", "check_config", "check_groups", "check_holder", "check_stack"]

_ACCOUNT = "edgemask"
_APT = "sudo apt install -y --no-install-recommends python3-picamera2"
_SYSTEM_VENV = "python3 -m venv --system-site-packages"
_CONFIG = ("boot/firmware/config.txt", "boot/config.txt")
# An image sensor on the I2C bus: "imx708_wide 10-001a", "ov5647 10-0036".
_SENSOR = re.compile(r"^((?:imx|ov|arducam|ar|mt9|irs)\w*) \d+-[0-9a-f]{4}$")
_GROUPS = ("video", "render")


def check_stack(host: Host) -> Finding:
    """Tell whether libcamera and picamera2 can be imported by the Python that runs edgemask."""
    there = [
        name
        for name in ("libcamera", "picamera2")
        if host.path(f"usr/lib/python3/dist-packages/{name}").is_dir()
    ]
    venv = environment(host)
    if len(there) < 2 and not host.is_raspberry_pi:
        return note("picamera2", "not installed, and only a Raspberry Pi's own cameras need it")
    if len(there) < 2:
        missing = " and ".join({"libcamera", "picamera2"} - set(there))
        return problem("picamera2", f"{missing} not installed: no camera on the ribbon cable", _APT)
    if venv is not None and not sees_system_packages(venv):
        shown = venv if host.root == Path("/") else f"/{venv.relative_to(host.root)}"
        return problem(
            "picamera2",
            f"apt's libcamera and picamera2 cannot be seen from {shown}, which was made without "
            "--system-site-packages",
            f"sed -i '/^include-system/s/false/true/' {shown}/pyvenv.cfg",
        )
    if not host.live:
        return ok("picamera2", "installed, and visible from the environment")
    found = ask(host, "camera")
    if "error" not in found:
        listed = ", ".join(found["cameras"]) or "no camera"
        return ok("picamera2", f"libcamera and picamera2 import; they list {listed}")
    if "numpy.dtype size changed" in found["error"]:
        return problem(
            "picamera2",
            f"does not import: {found['error']}",
            f"sudo {venv}/bin/pip install 'numpy<2'" if venv else "pip install 'numpy<2'",
        )
    if found.get("kind") == "ModuleNotFoundError":
        return problem(
            "picamera2",
            f"only the system's Python can import {found.get('module')}, and this is another one",
            f"/usr/bin/{_SYSTEM_VENV} VENV, and install edgemask there",
        )
    return problem("picamera2", f"does not import: {found['error']}", f"{_APT} --reinstall")


def check_config(host: Host) -> Finding:
    """Tell whether the firmware is asked to look for a camera."""
    if not host.is_raspberry_pi:
        return note("config.txt", "only a Raspberry Pi has one")
    name = next((name for name in _CONFIG if host.path(name).is_file()), None)
    if name is None:
        return note("config.txt", "not found: is the boot partition mounted?")
    lines = [line.partition("#")[0].strip() for line in (host.text(name) or "").splitlines()]
    if "start_x=1" in lines:
        return problem(
            "config.txt",
            "start_x=1 turns on the legacy camera stack, which libcamera cannot use",
            f"sudo sed -i 's/^start_x=1/camera_auto_detect=1/' /{name} && sudo reboot",
        )
    overlays = [
        match[1]
        for line in lines
        if (match := re.match(r"dtoverlay=((?:imx|ov|arducam|ar\d|camera-)[\w-]*)", line))
    ]
    if overlays:
        return ok("config.txt", f"names the camera: {', '.join(overlays)}")
    if "camera_auto_detect=1" in lines:
        return ok("config.txt", "camera_auto_detect=1")
    return problem(
        "config.txt",
        "it has neither camera_auto_detect=1 nor a camera's dtoverlay",
        f"echo camera_auto_detect=1 | sudo tee -a /{name} && sudo reboot",
    )


def check_cameras(host: Host) -> Finding:
    """List the cameras that the kernel knows."""
    sensors, usb = set(), set()
    for path in host.glob("sys/class/video4linux/*/name"):
        name = host.text(str(path.relative_to(host.root))) or ""
        sensor = _SENSOR.match(name)
        if sensor:
            sensors.add(sensor[1])
        elif "usb" in os.path.realpath(path.parent / "device"):
            usb.add(name)
    found = [*sorted(sensors), *(f"{name} (USB)" for name in sorted(usb))]
    if found:
        return ok("cameras", ", ".join(found))
    if not uses_camera(host):
        return note("cameras", "none, and the settings of the service do not use one")
    if not host.is_raspberry_pi:
        return note("cameras", "none")
    if not host.path("sys").is_dir() or not host.glob("sys/*"):
        return note("cameras", "not known: the system is not running")
    return problem(
        "cameras",
        "none found",
        "sudo poweroff, and seat the ribbon cable at both ends (a Pi 5 and a Zero take the narrow "
        "one); then rpicam-hello --list-cameras",
    )


def check_holder(host: Host) -> Finding:
    """Tell which process holds a camera."""
    try:
        from edgemask.sources.holders import holders
    except ImportError as error:  # a NumPy that does not load, which has its own line
        return note("busy", f"not known: {error}")
    found = holders(lambda device: device.startswith(("/dev/media", "/dev/video")),
                    host.path("proc"))  # fmt: skip
    listed = ", ".join(f"{one.name} (pid {one.pid})" for one in found)
    strangers = [one for one in found if one.name != "edgemask"]
    if not found:
        hidden = "" if not host.live or os.geteuid() == 0 else " that this user can see"
        return ok("busy", f"no process{hidden} holds a camera")
    if not strangers:
        return ok("busy", f"held by {listed}")
    return problem(
        "busy",
        f"held by {listed}; a camera serves one program at a time",
        "sudo kill " + " ".join(str(one.pid) for one in strangers),
    )


def check_groups(host: Host) -> Finding:
    """Tell whether the user may open the camera's devices; for root, whether the service may."""
    if host.live and os.geteuid() != 0:
        name = pwd.getpwuid(os.geteuid()).pw_name
        present = {group.gr_gid: group.gr_name for group in grp.getgrall()}
        lacking = [
            group
            for gid, group in present.items()
            if group in _GROUPS and gid not in os.getgroups()
        ]
    else:
        name = _ACCOUNT
        accounts = (host.text("etc/passwd") or "").splitlines()
        if not any(line.startswith(f"{name}:") for line in accounts):
            return note("groups", f"there is no account {name}: the service is not installed")
        rows = [line.split(":") for line in (host.text("etc/group") or "").splitlines()]
        members = {row[0]: row[3].split(",") for row in rows if len(row) == 4}
        lacking = [group for group in _GROUPS if group in members and name not in members[group]]
    if lacking:
        return problem(
            "groups",
            f"{name} is not in {' and '.join(lacking)}, whose members may open the camera",
            f"sudo usermod -aG {','.join(lacking)} {name}  (then log in again, or restart the "
            "service)",
        )
    return ok("groups", f"{name} may open the camera's devices")
