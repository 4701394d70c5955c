"""The figures for Prometheus, read back with the rules of its text format."""

from __future__ import annotations

import re
from typing import Any

from live_fakes import FakeBoard, FakeSource, Opener, SlowSegmenter, until

from edgemask.live.engine import Engine
from edgemask.serve.metrics import exposition

SAMPLE = re.compile(r'([a-z_]+)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\[\\"n])*",?)*)\})? (\S+)')


def parse(text: str) -> tuple[dict[str, str], dict[str, float]]:
    """Return the type of each family and the value of each sample, name with labels."""
    types: dict[str, str] = {}
    samples: dict[str, float] = {}
    family = ""
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# HELP "):
            family = line.split()[2]
            assert family not in types
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            assert name == family
            types[name] = kind
        else:
            found = SAMPLE.fullmatch(line)
            assert found, line
            assert re.fullmatch(rf"{family}(_sum|_count)?", found[1])
            assert line not in samples
            samples[line.rpartition(" ")[0]] = float(found[3])
    return types, samples


def status_of(board: Any, segmenter: Any = None) -> dict[str, Any]:
    opener = Opener(lambda: FakeSource(live=False, frames=5))
    with Engine(opener, segmenter or SlowSegmenter(), board=board) as engine:
        assert engine.wait(5)
        until(lambda: engine.status()["source"]["state"] == "ended" and engine.status()["board"])
        return engine.status()


def test_types_and_values() -> None:
    types, samples = parse(exposition(status_of(FakeBoard(61.5, 0x50005)), True, {"stream": 3}))
    assert all(kind == "counter" for name, kind in types.items() if name.endswith("_total"))
    assert all(name.endswith("_total") for name, kind in types.items() if kind == "counter")
    assert types["edgemask_latency_seconds"] == "summary"
    assert samples["edgemask_frames_total"] == 5
    assert samples["edgemask_latency_seconds_count"] == 5
    assert samples["edgemask_latency_seconds_sum"] > 0
    assert samples['edgemask_stage_seconds_total{stage="backbone"}'] == 0.005
    assert samples["edgemask_temperature_celsius"] == 61.5
    assert samples['edgemask_throttled{flag="under-voltage"}'] == 1
    assert samples['edgemask_throttled{flag="frequency capped"}'] == 0
    assert samples['edgemask_source_state{state="ended"}'] == 1
    assert samples['edgemask_source_state{state="running"}'] == 0
    assert samples['edgemask_readers{kind="stream"}'] == 3
    assert samples["edgemask_processing"] == 1
    assert samples["process_resident_memory_bytes"] > 1e6


def test_what_is_not_known_is_left_out() -> None:
    status = status_of(FakeBoard(None, None), segmenter=SlowSegmenter(fail_on=lambda n: True))
    types, samples = parse(exposition(status, False, {}))
    for name in ("temperature_celsius", "throttled", "instances", "stage_seconds_total", "readers"):
        assert f"edgemask_{name}" not in types
    assert samples["edgemask_frame_errors_total"] == 5
    assert samples["edgemask_frames_total"] == 0


def test_labels_are_escaped() -> None:
    status = status_of(FakeBoard())
    status["board"] = 'A "board"\\\nof two lines'
    _, samples = parse(exposition(status, True, {}))
    (info,) = (name for name in samples if name.startswith("edgemask_info"))
    assert r"A \"board\"\\\nof two lines" in info
