"""The report: Markdown with a picture, and the line that goes into the project's table."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgemask.bench.table import LABELS
from edgemask.outputs import write_file, write_png

__all__ = ["markdown", "readme_rows", "write_report"]


def readme_rows(record: Mapping[str, Any]) -> Iterator[str]:
    """Yield the rows for the README's table of boards, one per run, with its heading."""
    yield "| board | system | model | input | threads | ms per frame, p50 / p95 | frames/s | MB |"
    yield "|---|---|---|---|---|---|---|---|"
    system = record["system"]
    for run in record["runs"]:
        wall, size, memory = run["wall_ms"], run["input"], run["peak_rss_mb"]
        yield (
            f"| {system['board']} | {system['os']}, edgemask {record['edgemask']} | {run['pack']} "
            f"{run['pack_version']} | {size['width']}x{size['height']} | {run['threads']} | "
            f"{wall['p50']:.1f} / {wall['p95']:.1f} | {1e3 / wall['p50']:.1f} | "
            f"{'' if memory is None else f'{memory:.0f}'} |"
        )


def markdown(record: Mapping[str, Any], picture: str) -> str:
    """Return the report as Markdown.

    Parameters
    ----------
    record : mapping
        From :func:`edgemask.bench.record.make_record`.
    picture : str
        Name of the chart's file beside the report.
    """
    system = record["system"]
    packages = ", ".join(f"{name} {version}" for name, version in system["packages"].items())
    rows = [
        f"# edgemask {record['edgemask']} on {system['board']}",
        "",
        *readme_rows(record),
        "",
        f"![Milliseconds per frame, by step]({picture})",
        "",
        "| | |",
        "|---|---|",
        f"| measured | {record['time']}, load average {_shown(record['load_average'])} |",
        f"| system | {system['os']}, kernel {system['kernel']}, {system['machine']} |",
        f"| CPUs, memory | {system['cpus']}, {_shown(system['memory_mb'])} MB |",
        f"| governor | {_shown(system['governor'])} |",
        f"| throttled since boot | {_throttled(system['throttled_since_boot'])} |",
        f"| software | Python {system['python']}, {packages} |",
        "",
    ]
    for run in record["runs"]:
        rows += _run(run)
    return "\n".join(rows)


def _run(run: Mapping[str, Any]) -> Iterator[str]:
    image, size = run["image"], run["input"]
    yield f"## {run['pack']}, {size['width']}x{size['height']}, threads: {run['threads']}"
    yield ""
    yield (
        f"{image['name']} at {image['width']}x{image['height']}, {run['instances']} found, "
        f"{run['frames']} frames. Wall is what one waits, CPU what all threads used, both in ms. "
        f"First result after {run['first_result_cpu_s']:.2f} s of CPU. XNNPACK partitions: "
        + ", ".join(f"{name} {count}" for name, count in run["partitions"].items())
        + "."
    )
    yield ""
    yield "| step | wall p50 | p95 | CPU p50 | p95 | share of CPU |"
    yield "|---|---|---|---|---|---|"
    for stage in run["stages"]:
        name = LABELS.get(stage["name"], stage["name"])
        yield f"| {name} | {_times(stage)} | {stage['cpu_share']:.1%} |"
    yield f"| frame | {_times(run)} | |"
    yield ""
    if run["over_time"]:
        yield "| seconds | frames/s | ms p50 | °C | MHz | throttled |"
        yield "|---|---|---|---|---|---|"
        for row in run["over_time"]:
            yield (
                f"| {row['seconds']:.0f} | {row['frames_per_second']:.1f} | "
                f"{row['wall_ms_p50']:.1f} | {_shown(row['temperature_c'])} | "
                f"{_shown(row['cpu_mhz'])} | {_throttled(row['throttled'])} |"
            )
        yield ""


def _times(row: Mapping[str, Any]) -> str:
    wall, cpu = row["wall_ms"], row["cpu_ms"]
    return f"{wall['p50']:.2f} | {wall['p95']:.2f} | {cpu['p50']:.2f} | {cpu['p95']:.2f}"


def _shown(value: Any) -> str:
    return (
        "unknown" if value is None else f"{value:.0f}" if isinstance(value, float) else str(value)
    )


def _throttled(flags: list[str] | None) -> str:
    return "unknown" if flags is None else ", ".join(flags) or "no"


def write_report(path: str | os.PathLike[str], record: Mapping[str, Any]) -> Path:
    """Write the report, and its chart beside it; return the chart's path.

    Raises
    ------
    OutputError
        One of the files cannot be written.
    """
    import numpy as np

    from edgemask.bench.chart import draw

    path = Path(path)
    chart = path.with_suffix(".png")
    write_png(chart, np.asarray(draw(record)))
    write_file(path, lambda stream: stream.write(markdown(record, chart.name).encode()))
    return chart
