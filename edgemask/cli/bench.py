"""``edgemask bench``: how fast this machine is."""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

from edgemask.cli import common
from edgemask.errors import InputError

if TYPE_CHECKING:
    from edgemask.bench.configuration import Configuration

HELP = "measure time per step, memory and heat on this machine"
EXAMPLE = "edgemask bench --threads 1,2 --report pi.md"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    parser.add_argument(
        "packs",
        metavar="PACK",
        nargs="*",
        help="names of bundled models, or paths to model packs (default: all bundled ones)",
    )
    parser.add_argument(
        "--threads",
        metavar="N,N",
        type=_threads,
        help="numbers of threads, one run for each (default: 1, 2, 3, 4, 8 … up to the CPU count)",
    )
    parser.add_argument(
        "--short-side",
        metavar="N,N",
        type=_numbers,
        help="short sides of the networks' input in pixels, one run for each (default: the one "
        "the model was trained for)",
    )
    parser.add_argument(
        "--image",
        metavar="FILE",
        help="picture to segment (default: the bundled photograph at 640x480)",
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--frames",
        metavar="N",
        type=common.positive_int,
        default=50,
        help="frames per run (default: 50)",
    )
    length.add_argument(
        "--minutes",
        metavar="M",
        type=_minutes,
        help="length of a run, recording temperature and throttling over time; a Pi without a fan "
        "needs ten to reach its final temperature",
    )
    parser.add_argument("--json", metavar="FILE", help="write all figures as JSON")
    parser.add_argument(
        "--report",
        metavar="FILE.md",
        help="write a Markdown report to share, with a chart beside it (FILE.png)",
    )


def _numbers(text: str) -> list[int]:
    return list(dict.fromkeys(common.positive_int(part.strip()) for part in text.split(",")))


def _threads(text: str) -> list[int]:
    return list(dict.fromkeys(common.thread_count(part.strip()) for part in text.split(",")))


def _minutes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value <= 24 * 60:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of minutes above 0, up to 1440")
    return value


def run(options: argparse.Namespace) -> int:
    """Measure every combination, print a table for each, write the files."""
    from edgemask.bench.record import describe_system, make_record
    from edgemask.bench.report import write_report
    from edgemask.bench.runner import run as run_worker
    from edgemask.bench.table import lines
    from edgemask.outputs import check_output, write_json

    if options.report and Path(options.report).suffix != ".md":
        raise InputError(f"--report {options.report} does not end in .md: call it report.md")
    for target in filter(None, (options.json, options.report)):
        check_output(Path(target))
    system = describe_system()
    packages = ", ".join(f"{name} {version}" for name, version in system["packages"].items())
    print(f"{system['board']}, {system['os']}, {system['cpus']} CPUs")
    print(f"Python {system['python']}, {packages}")
    configurations = _configurations(options)
    runs = []
    steps = 1000
    with common.Progress("measuring", steps * len(configurations)) as progress:
        for n, configuration in enumerate(configurations):

            def say(done: float, before: int = n) -> None:
                progress.update(round((before + done) * steps))

            runs.append(run_worker(configuration, say))
            progress.clear()
            print()
            print("\n".join(lines(runs[-1])), flush=True)
    record = make_record(runs, system)
    if record["load_average"] and record["load_average"] > system["cpus"] + 0.5:
        print()
        print(f"The machine is busy (load {record['load_average']:.1f}): times are too high.")
    if options.json:
        write_json(options.json, record)
        print(f"\nJSON:   {options.json}")
    if options.report:
        chart = write_report(options.report, record)
        print(f"\nreport: {options.report}\nchart:  {chart}")
    return 0


def _configurations(options: argparse.Namespace) -> list[Configuration]:
    from edgemask.bench.configuration import Configuration
    from edgemask.interpreter import default_threads
    from edgemask.modelpack import bundled_packs

    cpus = default_threads()
    # Every number that a board has; a workstation's are doubled, or it would take all day.
    counts = sorted({*range(1, min(cpus, 4) + 1), *(n for n in (8, 16, 32) if n < cpus), cpus})
    return [
        Configuration(
            pack, threads, side, options.image, options.frames,
            None if options.minutes is None else options.minutes * 60,
        )
        for pack, side, threads in itertools.product(
            options.packs or bundled_packs(),
            options.short_side or [None],
            options.threads or counts,
        )
    ]  # fmt: skip
