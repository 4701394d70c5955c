"""Run programs on emulated ARM cores, in a folder that setup.sh has filled."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from cores import BOARDS, write_tree

HERE = Path(__file__).resolve().parent
FRAME = HERE / "frame.py"
INHERITED = ("PATH", "HOME", "TMPDIR")
WARM_UP = 1  # the first frame of a network lays out its memory


class Counted(NamedTuple):
    """Instructions of one frame: in all, and per step in the order in which they run."""

    frame: int
    steps: dict[str, int]
    record: dict[str, Any]  # all that frame.py printed


class Emulator:
    """Python 3.11 and the wheel of edgemask on emulated cores.

    Parameters
    ----------
    work : Path
        The folder that setup.sh has filled.
    """

    def __init__(self, work: Path) -> None:
        self.work = work.resolve()
        missing = [n for n in ("root", "site", "qemu10", "insncount.so") if not (work / n).exists()]
        if missing:
            raise SystemExit(f"{work} has no {missing[0]}: run benchmarks/arm64/setup.sh {work}")

    def run(self, core: str, *arguments: str | Path, counts: Path | None = None) -> str:
        """Run Python on a core and return what it prints.

        Parameters
        ----------
        core : str
            A name that ``QEMU_CPU`` knows.
        *arguments : str or path
            Of the interpreter.
        counts : Path, optional
            Where the instruction counter writes; without it the faster emulator runs.
        """
        root = self.work / "root"
        write_tree(root, BOARDS[core])
        emulator = [str(self.work / "qemu10")]
        # A board does not have this machine's settings: an OPENBLAS_CORETYPE that is meant for its
        # processor changes which kernels, and so how many instructions, the emulated one takes.
        environment = {
            **{name: os.environ[name] for name in INHERITED if name in os.environ},
            "QEMU_CPU": core,
            "PYTHONPATH": str(self.work / "site"),
            "PYTHONHASHSEED": "0",
            "OPENBLAS_NUM_THREADS": "1",
        }
        if counts is not None:
            emulator = ["qemu-aarch64", "-plugin", str(self.work / "insncount.so")]
            environment["INSNCOUNT_OUT"] = str(counts)
        command = [*emulator, "-L", str(root), str(root / "usr/bin/python3.11"), *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{core}: status {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def count(self, core: str, picture: Path, frames: int = 3) -> Counted:
        """Count the instructions of frames of a picture (medians, without the first frame)."""
        out = self.work / f"counts-{core}.txt"
        printed = self.run(
            core, FRAME, picture, "--hashes", "--count", str(frames + WARM_UP), counts=out
        )
        record = json.loads(printed)
        marks = [int(line.split()[1]) for line in out.read_text("ascii").splitlines()[:-1]]
        names = record["steps"]
        per_frame = len(names) + 2  # the start, the end of each step, the end of the frame
        if len(marks) != (frames + WARM_UP) * per_frame:
            raise RuntimeError(f"{core}: {len(marks)} marks for {frames + WARM_UP} frames")
        rows = [marks[n : n + per_frame] for n in range(0, len(marks), per_frame)][WARM_UP:]
        steps = {
            name: int(statistics.median(row[n + 1] - row[n] for row in rows))
            for n, name in enumerate(names)
        }
        frame = int(statistics.median(row[-1] - row[0] for row in rows))
        return Counted(frame, steps, record)
