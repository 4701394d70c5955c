"""Count the instructions of one frame on emulated ARM cores, and compare with what is recorded.

    benchmarks/arm64/setup.sh /tmp/arm64
    python benchmarks/arm64/count.py /tmp/arm64
    python benchmarks/arm64/count.py /tmp/arm64 --update

The frame is 640x480 with five people. Instructions are no time: they know nothing of caches and
of what a core does at once. But they are the same on every run, so a change of one per cent shows.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from cores import BOARDS  # noqa: E402
from emulator import Counted, Emulator  # noqa: E402
from pictures import crowd  # noqa: E402

RECORD = HERE.parent / "instructions.json"
GROWTH = 1.05
SLACK = 100_000  # instructions; a step of a million cannot be held to five per cent of itself
NETWORKS = ("backbone", "box_head", "mask_head")


def measure(emulator: Emulator, core: str) -> Counted:
    """Count a frame of the crowd on a core."""
    picture = emulator.work / "crowd.png"
    crowd().save(picture)
    return emulator.count(core, picture)


def grown(new: Counted, old: dict[str, Any]) -> list[str]:
    """Return what takes more than 5 % more instructions than recorded, as phrases."""
    pairs = {"frame": (new.frame, old["frame"])}
    pairs |= {name: (count, old["steps"].get(name, 0)) for name, count in new.steps.items()}
    return [
        f"{name}: {now:,} instructions, {before:,} are recorded"
        for name, (now, before) in pairs.items()
        if now > GROWTH * before + SLACK
    ]


def outside_share(steps: dict[str, int]) -> float:
    """Return the share of a frame that is spent outside the networks."""
    return 1 - sum(steps[name] for name in NETWORKS) / sum(steps.values())


def main() -> int:
    """Count on all cores; print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("work", type=Path, help="folder that setup.sh has filled")
    parser.add_argument("--update", action="store_true", help="write the record anew")
    options = parser.parse_args()
    emulator = Emulator(options.work)
    found = {core: measure(emulator, core) for core in BOARDS}
    first = next(iter(found.values()))
    print(f"{'million instructions':24s}" + "".join(f"{core:>13s}" for core in found))
    for name in first.steps:
        print(f"{name:24s}" + "".join(f"{c.steps[name] / 1e6:13.2f}" for c in found.values()))
    print(f"{'frame':24s}" + "".join(f"{c.frame / 1e6:13.2f}" for c in found.values()))
    shares = "".join(f"{outside_share(c.steps):13.1%}" for c in found.values())
    print(f"{'outside the networks':24s}{shares}")
    if options.update:
        sites = sorted((options.work / "site").glob("*.dist-info"))
        versions = dict(path.name.removesuffix(".dist-info").split("-")[:2] for path in sites)
        kept = {name: versions[name] for name in ("numpy", "pillow", "ai_edge_litert")}
        record = {
            "frame": "640x480, 5 people, short side 320, 1 thread",
            "model_sha256": first.record["model"],
            "versions": kept,
            "cores": {c: {"frame": n.frame, "steps": n.steps} for c, n in found.items()},
        }
        RECORD.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
        return 0
    old = json.loads(RECORD.read_text("utf-8"))
    more = [f"{c}: {line}" for c, n in found.items() for line in grown(n, old["cores"][c])]
    print("\n".join(more))
    return int(bool(more))


if __name__ == "__main__":
    sys.exit(main())
