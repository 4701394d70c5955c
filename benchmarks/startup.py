"""What starting costs: importing edgemask, and the first result of a process.

    python benchmarks/startup.py --json benchmarks/results/startup.json

CPU seconds of whole processes, medians, the cases in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CASES = {
    "Python": "pass",
    "import numpy": "import numpy",
    "import numpy, edgemask": "import numpy, edgemask",
    "import numpy, edgemask.segmenter": "import numpy, edgemask.segmenter",
    "first result": "from edgemask import Segmenter; Segmenter(threads=1)(%r)",
}


def seconds(code: str) -> float:
    """Run code in a new interpreter and return the CPU time of the whole process."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    child = subprocess.Popen([sys.executable, "-c", code], env=environment)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{code!r} ended with status {child.returncode}")
    return usage.ru_utime + usage.ru_stime


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    photograph = str(ROOT / "edgemask" / "assets" / "astronaut.jpg")
    cases = {name: code % photograph if "%" in code else code for name, code in CASES.items()}
    times: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(options.rounds + 1):
        for name, code in cases.items():
            spent = seconds(code)
            if number:  # the first round fills the caches of the file system
                times[name].append(spent)
    rows = {name: round(statistics.median(own), 3) for name, own in times.items()}
    rows["edgemask above numpy"] = round(rows["import numpy, edgemask"] - rows["import numpy"], 3)
    for name, value in rows.items():
        print(f"{name:36s}{value:8.3f} s")
    if options.json:
        record = {"machine": platform.machine(), "python": platform.python_version()}
        record |= {"load_average": round(os.getloadavg()[0], 1), "cpu_s": rows}
        options.json.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
