"""Make an emulated process believe that it runs on a Raspberry Pi.

    python benchmarks/arm64/cores.py ROOT cortex-a72

XNNPACK chooses its kernels by what /proc/cpuinfo and /sys/devices/system/cpu say, and under qemu 7
it would read those of the x86 host and crash. Files below the folder that ``qemu -L`` is given come
first, so a tree like a Pi's is written there. It has to fit ``QEMU_CPU``: the dot products of a
Cortex-A76 are illegal instructions on a Cortex-A53.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

_CORES = 4
_ARMV8 = "fp asimd evtstrm crc32 cpuid"
_ARMV82 = (
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop "
    "asimddp"
)


class Board(NamedTuple):
    """A board: its name, and what its processor says about itself."""

    name: str
    part: int
    variant: int
    revision: int
    features: str
    kilohertz: int


BOARDS = {
    "cortex-a53": Board("Raspberry Pi Zero 2 W Rev 1.0", 0xD03, 0, 4, _ARMV8, 1_000_000),
    "cortex-a72": Board("Raspberry Pi 4 Model B Rev 1.5", 0xD08, 0, 3, _ARMV8, 1_800_000),
    "cortex-a76": Board("Raspberry Pi 5 Model B Rev 1.0", 0xD0B, 4, 1, _ARMV82, 2_400_000),
}


def cpuinfo(board: Board) -> str:
    """Return what /proc/cpuinfo holds."""
    fields = {
        "BogoMIPS": "108.00",
        "Features": board.features,
        "CPU implementer": "0x41",
        "CPU architecture": "8",
        "CPU variant": hex(board.variant),
        "CPU part": hex(board.part),
        "CPU revision": str(board.revision),
    }
    common = "".join(f"{key}\t: {value}\n" for key, value in fields.items())
    cores = "".join(f"processor\t: {core}\n{common}\n" for core in range(_CORES))
    return f"{cores}Model\t\t: {board.name}\n"


def write_tree(root: Path, board: Board) -> None:
    """Write the files of a board below `root`, over those of another."""
    last = _CORES - 1
    files = {"proc/cpuinfo": cpuinfo(board), "proc/device-tree/model": f"{board.name}\0"}
    folder = "sys/devices/system/cpu"
    files |= {f"{folder}/{name}": f"0-{last}\n" for name in ("possible", "present", "online")}
    files[f"{folder}/kernel_max"] = f"{last}\n"
    for core in range(_CORES):
        own = f"{folder}/cpu{core}"
        files[f"{own}/cpufreq/cpuinfo_max_freq"] = f"{board.kilohertz}\n"
        files[f"{own}/cpufreq/cpuinfo_min_freq"] = "600000\n"
        files[f"{own}/topology/physical_package_id"] = "0\n"
        files[f"{own}/topology/core_id"] = f"{core}\n"
        for name in ("core_siblings", "package_cpus"):
            files[f"{own}/topology/{name}"] = f"{(1 << _CORES) - 1:x}\n"
            files[f"{own}/topology/{name}_list"] = f"0-{last}\n"
        files[f"{own}/topology/thread_siblings"] = f"{1 << core:x}\n"
        files[f"{own}/topology/thread_siblings_list"] = f"{core}\n"
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, "ascii")


if __name__ == "__main__":
    write_tree(Path(sys.argv[1]), BOARDS[sys.argv[2]])
