"""What the board says about itself: model, temperature, throttling, memory, clock.

Everything is read from files under a root folder, so that any board can be shown to a test. What
a system does not have is None, never an error.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

__all__ = ["FLAGS", "Board", "Throttled", "read_board"]

FLAGS = ("under-voltage", "frequency capped", "throttled", "soft temperature limit")
"""Names of the firmware's throttling flags, from bit 0 on."""

_THROTTLED_FILE = "sys/devices/platform/soc/soc:firmware/get_throttled"
_CPU = "sys/devices/system/cpu"
_CPUFREQ = f"{_CPU}/cpu0/cpufreq"


@dataclass(frozen=True, slots=True)
class Throttled:
    """The firmware's throttling flags, as ``vcgencmd get_throttled`` reports them.

    Attributes
    ----------
    bits : int
        Bits 0 to 3 are now, bits 16 to 19 the same since boot.
    """

    bits: int

    @property
    def now(self) -> tuple[str, ...]:
        """Names of what holds at this moment; empty if all is well."""
        return tuple(name for n, name in enumerate(FLAGS) if self.bits >> n & 1)

    @property
    def since_boot(self) -> tuple[str, ...]:
        """Names of what has happened since the board was started."""
        return tuple(name for n, name in enumerate(FLAGS) if self.bits >> (n + 16) & 1)

    @property
    def hot(self) -> bool:
        """Whether the firmware is slowing the CPU now because of heat."""
        return "soft temperature limit" in self.now or "throttled" in self.now


@dataclass(frozen=True, slots=True)
class Board:
    """A board at one moment. None is what this system does not tell.

    Attributes
    ----------
    model : str or None
        ``"Raspberry Pi 5 Model B Rev 1.0"``; elsewhere the name of the CPU.
    temperature_c : float or None
        Of the CPU, °C.
    throttled : Throttled or None
    memory_total, memory_available : int or None
        Bytes.
    cpu_count : int
        CPUs of the board, whether or not this process may use them all.
    cpu_governor : str or None
        The kernel's, such as ``"ondemand"``.
    cpu_mhz : float or None
        Clock of the first CPU.
    """

    model: str | None
    temperature_c: float | None
    throttled: Throttled | None
    memory_total: int | None
    memory_available: int | None
    cpu_count: int
    cpu_governor: str | None
    cpu_mhz: float | None


def read_board(root: str | os.PathLike[str] = "/", *, programs: bool = True) -> Board:
    """Read the state of the board.

    Parameters
    ----------
    root : path
        Folder that stands for ``/``.
    programs : bool
        Whether ``vcgencmd`` below the root may be run; False for a system that is not this one.

    Returns
    -------
    Board
    """
    base = Path(root)
    memory = _memory(base)
    return Board(
        model=_model(base),
        temperature_c=_temperature(base),
        throttled=_throttled(base, programs),
        memory_total=memory.get("MemTotal"),
        memory_available=memory.get("MemAvailable"),
        cpu_count=_cpu_count(base),
        cpu_governor=_text(base / _CPUFREQ / "scaling_governor"),
        cpu_mhz=_number(base / _CPUFREQ / "scaling_cur_freq", 1e-3),
    )


def _text(path: Path) -> str | None:
    """Return a file's text without blanks and the device tree's NUL; None if there is none."""
    try:
        return path.read_bytes().decode("utf-8", "replace").strip("\0 \t\r\n") or None
    except OSError:
        return None


def _number(path: Path, factor: float) -> float | None:
    try:
        return float(_text(path) or "") * factor
    except ValueError:
        return None


def _model(base: Path) -> str | None:
    name = _text(base / "proc/device-tree/model")
    if name:
        return name
    for key in ("Model", "model name"):
        found = re.search(rf"^{key}\s*:\s*(.+)$", _text(base / "proc/cpuinfo") or "", re.MULTILINE)
        if found:
            return found[1].strip()
    return None


def _temperature(base: Path) -> float | None:
    """Return the CPU's temperature: the zone that says so in its type, else the first that works.

    Other zones (Wi-Fi, power supply, the RP1 of a Pi 5) have little to do with throttling.
    """
    readings: list[tuple[bool, float]] = []
    for zone in sorted((base / "sys/class/thermal").glob("thermal_zone*")):
        celsius = _number(zone / "temp", 1e-3)
        if celsius is not None and -40 <= celsius <= 150:
            kind = (_text(zone / "type") or "").lower()
            readings.append((any(word in kind for word in ("cpu", "soc", "x86_pkg")), celsius))
    chosen = [celsius for is_cpu, celsius in readings if is_cpu] or [c for _, c in readings]
    return chosen[0] if chosen else None


def _throttled(base: Path, programs: bool) -> Throttled | None:
    text = _text(base / _THROTTLED_FILE)
    if text is None and programs:
        text = _vcgencmd(base / "usr/bin/vcgencmd")
    try:
        return Throttled(int((text or "").partition("=")[2] or text or "", 16))
    except ValueError:
        return None


def _vcgencmd(program: Path) -> str | None:
    """Ask the firmware through its program: kernels without the file above, and older systems."""
    try:
        done = subprocess.run(
            [program, "get_throttled"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, timeout=2, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _memory(base: Path) -> dict[str, int]:
    found = re.findall(r"^(\w+):\s+(\d+) kB", _text(base / "proc/meminfo") or "", re.MULTILINE)
    return {key: int(value) * 1024 for key, value in found}


def _cpu_count(base: Path) -> int:
    count = 0
    for part in (_text(base / _CPU / "present") or "").split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            count += int(last if last.isdigit() else first) - int(first) + 1
    return count or os.cpu_count() or 1
