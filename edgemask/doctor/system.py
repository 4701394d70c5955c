"""The board and its system: release, 64-bit programs, clock."""

from __future__ import annotations

import datetime
import os
import re
import struct
from pathlib import Path

import edgemask
from edgemask.doctor.host import Finding, Host, note, ok, problem

__all__ = ["check_bits", "check_board", "check_clock", "check_release"]

_CARD = "write the 64-bit Raspberry Pi OS (Bookworm or later) to the card"
_TOO_OLD = ("buster", "bullseye")  # Python 3.7 and 3.9
# The models whose processor has no 64-bit mode. A Pi 2 has one from revision 1.2 on.
_ONLY_32_BIT = re.compile(
    r"Raspberry Pi (Zero( W)?|Model [AB]( Plus)?|Compute Module|2 Model B Rev 1\.[01])"
    r"( Rev [\d.]+)?$"
)


def check_release(host: Host) -> Finding:
    """Tell the release, and whether its Python is new enough."""
    release = host.os_release()
    name = release.get("PRETTY_NAME", "")
    if not name:
        return note("system", "no os-release: this does not look like the root of a Linux system")
    if release.get("VERSION_CODENAME") in _TOO_OLD:
        return problem("system", f"{name}, whose Python is older than 3.11", _CARD)
    return ok("system", name)


def check_board(host: Host) -> Finding:
    """Tell the board, and whether its processor can run 64-bit programs."""
    model = host.board.model
    if model is None:
        return note("board", "the system does not report its board")
    if _ONLY_32_BIT.match(model):
        return problem(
            "board", f"{model}: no 64-bit processor", "use a Raspberry Pi Zero 2 W, 3, 4 or 5"
        )
    if "Raspberry Pi" not in model:
        return note("board", f"not a Raspberry Pi: {model}")
    return ok("board", model)


def check_bits(host: Host) -> Finding:
    """Tell whether the programs are 64-bit ones; the kernel alone does not help."""
    bits = struct.calcsize("P") * 8 if host.live and host.root == Path("/") else _elf_bits(host)
    kernel = host.text("proc/sys/kernel/arch")
    if kernel is None and host.live:
        kernel = os.uname().machine
    below = f", kernel {kernel}" if kernel else ""
    if bits is None:
        return note("64-bit", "there is no /usr/bin/python3 to look at" + below)
    if bits == 64:
        return ok("64-bit", "64-bit programs" + below)
    deceptive = ", which does not make them 64-bit" if kernel in ("aarch64", "arm64") else ""
    return problem(
        "64-bit",
        f"32-bit programs{below}{deceptive}: LiteRT has no 32-bit wheel, and the alternatives "
        "run int8 many times slower",
        _CARD,
    )


def _elf_bits(host: Host) -> int | None:
    """Return 32 or 64 from the header of the system's Python; None if there is none."""
    program = host.path("usr/bin/python3")
    if program.is_symlink():  # absolute targets would leave the root
        program = host.path(f"usr/bin/{os.path.basename(os.readlink(program))}")
    try:
        with program.open("rb") as stream:
            header = stream.read(5)
    except OSError:
        return None
    return {b"\x7fELF\x01": 32, b"\x7fELF\x02": 64}.get(header)


def check_clock(host: Host) -> Finding:
    """Tell whether the clock can be right: a board without a battery starts in the past."""
    if not host.live:
        return note("clock", "not known: the system is not running")
    now = host.now()
    shown = datetime.datetime.fromtimestamp(now, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    cure = "sudo timedatectl set-ntp true"
    # Nothing can have been installed in the future. A day is for clocks that were set by hand.
    installed = Path(edgemask.__file__).stat().st_mtime
    if now < installed - 86400:
        return problem(
            "clock", f"{shown} is before edgemask was installed: the clock is not set", cure
        )
    daemon = host.path("run/systemd/timesync")
    if daemon.is_dir() and not (daemon / "synchronized").exists():
        return problem("clock", f"{shown}, not synchronised: times of results may be wrong", cure)
    return ok("clock", shown)
