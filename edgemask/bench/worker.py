"""One configuration in a process of its own: ``python -m edgemask.bench.worker CONFIGURATION``.

Prints JSON objects, one a line: ``{"done": 0 … 1}`` while it runs, then ``{"result": …}`` or
``{"error": …}``.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

from edgemask.bench.configuration import Configuration
from edgemask.errors import EdgeMaskError
from edgemask.live.memory import peak_rss_mb

__all__ = ["main", "measure"]

_WARM_UP = 3


def measure(
    configuration: Configuration,
    say: Callable[[float], None],
    look: Callable[[], Any] | None = None,
) -> dict[str, Any]:
    """Run one configuration.

    Parameters
    ----------
    configuration : Configuration
    say : callable
        Is told the share of the work that is done, 0 to 1.
    look : callable, optional
        Returns a :class:`~edgemask.live.board.Board`; the one of this machine by default.

    Returns
    -------
    dict
        An entry of ``runs`` in the record, see :func:`edgemask.bench.record.make_record`.

    Raises
    ------
    EdgeMaskError
        The picture or the pack cannot be used.
    """
    from edgemask.bench.measure import Clocks, Samples
    from edgemask.bench.picture import load_picture
    from edgemask.geometry import fit_input
    from edgemask.live.board import read_board
    from edgemask.pipeline import Pipeline
    from edgemask.segmenter import Segmenter

    before = time.process_time()
    picture = load_picture(configuration.image)
    reading = time.process_time() - before
    segmenter = Segmenter(
        configuration.pack, threads=configuration.threads, short_side=configuration.short_side
    )
    manifest = segmenter.pack.manifest
    clocks = Clocks()
    pipeline = Pipeline(manifest, segmenter.stages, clocks, segmenter.threads)
    warm = Samples(pipeline, clocks, segmenter.short_side)
    instances = warm.take(picture.rgb)
    first_result = time.process_time() - reading
    for _ in range(_WARM_UP - 1):
        warm.take(picture.rgb)
    samples = Samples(pipeline, clocks, segmenter.short_side)
    over_time = _run(samples, picture.rgb, configuration, say, look or read_board)
    spec = manifest["input"]
    short_side = segmenter.short_side or spec["short_side"]
    height, width = picture.rgb.shape[:2]
    size = fit_input(height, width, short_side, spec["stride"], spec["max_aspect"])
    pack = segmenter.pack
    return {
        "pack": pack.name,
        "pack_version": pack.version,
        "pack_sha256": pack.sha256,
        "threads": configuration.threads,
        "short_side": short_side,
        "image": {"name": picture.name, "width": size.image[1], "height": size.image[0]},
        "input": {"width": size.network[1], "height": size.network[0]},
        "instances": instances,
        "partitions": {name: stage.delegated for name, stage in segmenter.stages.items()},
        "decode_ms": picture.decode_ms,
        **samples.summary(),
        "first_result_cpu_s": round(first_result, 3),
        "peak_rss_mb": peak_rss_mb(),
        "over_time": over_time,
    }


def _run(
    samples: Any,
    rgb: Any,
    configuration: Configuration,
    say: Callable[[float], None],
    look: Callable[[], Any],
) -> list[dict[str, Any]]:
    """Run all frames; return what the board said meanwhile, once an interval."""
    from edgemask.bench.measure import percentile

    start = time.monotonic()
    limit = configuration.seconds
    rows: list[dict[str, Any]] = []
    seen, last = 0, start

    def more(count: int) -> bool:
        if limit is None:
            return count < configuration.frames
        return not count or time.monotonic() - start < limit

    for count in samples.until(rgb, more):
        now = time.monotonic()
        done = count / configuration.frames if limit is None else (now - start) / limit
        say(min(done, 1.0))
        over = limit is not None and now - start >= limit
        if limit is None or (now - last < configuration.interval and not over):
            continue
        board = look()
        wall = samples.wall["frame"][seen:]
        rows.append(
            {
                "seconds": round(now - start, 1),
                "frames_per_second": round((count - seen) / (now - last), 2),
                "wall_ms_p50": round(percentile(wall, 50), 3),
                "temperature_c": board.temperature_c,
                "cpu_mhz": board.cpu_mhz,
                "throttled": list(board.throttled.now) if board.throttled else None,
            }
        )
        seen, last = count, now
    return rows


def main(arguments: list[str]) -> int:
    """Measure what the argument says; print JSON lines."""
    # What the networks, or warnings about them, print must not come between the lines.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    warnings.showwarning = lambda message, *_, **__: print(
        json.dumps({"warning": str(message)}), file=out
    )

    def say(done: float) -> None:
        print(json.dumps({"done": round(done, 3)}), file=out)

    try:
        result = measure(Configuration.from_json(arguments[0]), say)
    except EdgeMaskError as error:
        print(json.dumps({"error": str(error), "kind": type(error).__name__}), file=out)
        return 1
    print(json.dumps({"result": result}), file=out)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
