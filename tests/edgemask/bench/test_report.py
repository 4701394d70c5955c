"""The record, and what is made of it: table, report, chart."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgemask.bench.chart import draw
from edgemask.bench.record import SCHEMA, describe_system, make_record
from edgemask.bench.report import markdown, readme_rows, write_report
from edgemask.bench.table import lines
from edgemask.errors import OutputError
from edgemask.live.board import Board, Throttled

PI = Board(
    "Raspberry Pi 4 Model B Rev 1.5", 61.0, Throttled(0x50000), 4 * 10**9, 10**9, 4, "ondemand",
    1800.0,
)  # fmt: skip


def make_run(threads: int = 1, scale: float = 1.0) -> dict[str, Any]:
    """A run with three steps and two looks at the board."""

    def times(ms: float) -> dict[str, float]:
        return {"p50": ms * scale, "p95": ms * scale * 1.25}

    steps = {"resize": 2.0, "backbone": 7.0, "new_step": 1.0}
    return {
        "pack": "people", "pack_version": "1", "pack_sha256": "0" * 64, "threads": threads,
        "short_side": 320, "image": {"name": "a.jpg", "width": 640, "height": 480},
        "input": {"width": 416, "height": 320}, "instances": 1,
        "partitions": {"backbone": 1, "box_head": 1}, "decode_ms": 4.5, "frames": 9,
        "wall_ms": times(10), "cpu_ms": times(9),
        "stages": [
            {"name": n, "wall_ms": times(ms), "cpu_ms": times(ms * 0.9), "cpu_share": ms / 10}
            for n, ms in steps.items()
        ],
        "outside_networks": 0.3, "first_result_cpu_s": 0.31, "peak_rss_mb": 77.1,
        "over_time": [
            {"seconds": 5.0, "frames_per_second": 99.0, "wall_ms_p50": 10.1, "temperature_c": 61.0,
             "cpu_mhz": 1800.0, "throttled": []},
            {"seconds": 10.0, "frames_per_second": 50.0, "wall_ms_p50": 20.1, "temperature_c": 82.0,
             "cpu_mhz": 900.0, "throttled": ["throttled"]},
        ],
    }  # fmt: skip


@pytest.fixture
def record() -> dict[str, Any]:
    """A record of two runs on a Pi 4."""
    return make_record([make_run(), make_run(4, 0.4)], describe_system(PI))


def test_record(record: dict[str, Any]) -> None:
    assert record["schema"] == SCHEMA
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", record["time"])
    system = record["system"]
    assert system["board"] == "Raspberry Pi 4 Model B Rev 1.5"
    assert system["memory_mb"] == 4000
    assert system["throttled_since_boot"] == ["under-voltage", "throttled"]
    assert {"numpy", "pillow"} <= set(system["packages"])
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_system_of_this_machine() -> None:
    system = describe_system()
    assert system["board"]
    assert system["cpus"] >= 1


def test_table(record: dict[str, Any]) -> None:
    text = "\n".join(lines(record["runs"][0]))
    for shown in ("people 1, 1 thread,", "416x320", "100.0 frames a second", "30% of the CPU",
                  "backbone 1, box_head 1", "77 MB", "new_step", "82"):  # fmt: skip
        assert shown in text, shown
    assert "4 threads," in next(lines(record["runs"][1]))


def test_table_with_nothing_known() -> None:
    run = make_run()
    run["peak_rss_mb"] = None
    run["over_time"] = [{**run["over_time"][0], "temperature_c": None, "cpu_mhz": None,
                         "throttled": None}]  # fmt: skip
    assert sum("unknown" in line for line in lines(run)) == 2


def columns(row: str) -> int:
    return row.count("|")


def test_readme_rows(record: dict[str, Any]) -> None:
    heading, rule, *rows = readme_rows(record)
    assert len(rows) == 2
    assert len({columns(row) for row in (heading, rule, *rows)}) == 1
    assert "| 10.0 / 12.5 | 100.0 | 77 |" in rows[0]
    assert "Raspberry Pi 4" in rows[0]


def test_markdown_tables_are_whole(record: dict[str, Any]) -> None:
    text = markdown(record, "chart.png")
    assert "](chart.png)" in text
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({columns(row) for row in block.splitlines()}) == 1, block
    assert "| governor | ondemand |" in text
    assert "| 10 | 50.0 | 20.1 | 82 | 900 | throttled |" in text


def colours(picture: Image.Image) -> dict[tuple[int, int, int], int]:
    pixels, counts = np.unique(np.asarray(picture).reshape(-1, 3), axis=0, return_counts=True)
    return {tuple(p): c for p, c in zip(pixels.tolist(), counts.tolist(), strict=True)}


def test_chart_has_bars_of_the_right_length(record: dict[str, Any]) -> None:
    one = copy.deepcopy(record)
    one["runs"] = one["runs"][:1]
    found = colours(draw(one))
    backbone, resize = found[31, 90, 150], found[247, 197, 72]
    assert backbone / resize == pytest.approx(3.5, rel=0.15)  # the squares of the legend count too
    two = draw(record)
    assert two.height > draw(one).height
    assert colours(two)[31, 90, 150] > backbone


def test_report_is_two_files(record: dict[str, Any], tmp_path: Path) -> None:
    chart = write_report(tmp_path / "new" / "pi.md", record)
    assert chart == tmp_path / "new" / "pi.png"
    assert "](pi.png)" in (tmp_path / "new" / "pi.md").read_text("utf-8")
    assert Image.open(chart).width == 960
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_report(tmp_path / "file" / "pi.md", record)
