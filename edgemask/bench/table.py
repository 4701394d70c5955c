"""The table in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["LABELS", "lines"]

#: What the steps of a frame are called for readers; the pipeline's own names are keys.
LABELS = {
    "resize": "resize",
    "backbone": "backbone",
    "proposals": "proposals",
    "roi_align": "RoIAlign, boxes",
    "box_head": "box head",
    "nms": "box decoding, NMS",
    "mask_roi_align": "RoIAlign, masks",
    "mask_head": "mask head",
    "paste": "paste",
    "keypoint_roi_align": "RoIAlign, keypoints",
    "keypoint_head": "keypoint head",
    "keypoints": "keypoints",
}


def lines(run: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines that show one run."""
    image, size = run["image"], run["input"]
    threads = f"{run['threads']} thread{'' if run['threads'] == 1 else 's'}"
    yield (
        f"{run['pack']} {run['pack_version']}, {threads}, input {size['width']}x{size['height']}: "
        f"{image['name']} at {image['width']}x{image['height']}, {run['instances']} found, "
        f"{run['frames']} frames"
    )
    yield ""
    yield f"  {'ms':<22s}{'wall p50':>10s}{'p95':>9s}{'CPU p50':>10s}{'p95':>9s}{'share':>8s}"
    for stage in run["stages"]:
        name = LABELS.get(stage["name"], stage["name"])
        yield f"  {name:<22s}{_times(stage)}{stage['cpu_share']:>8.1%}"
    yield f"  {'frame':<22s}{_times(run)}"
    yield ""
    fps = 1e3 / run["wall_ms"]["p50"]
    outside = run["outside_networks"]
    yield f"  {fps:.1f} frames a second; {outside:.0%} of the CPU outside the networks"
    partitions = ", ".join(f"{name} {count}" for name, count in run["partitions"].items())
    yield f"  XNNPACK partitions: {partitions}"
    memory = run["peak_rss_mb"]
    yield (
        f"  first result after {run['first_result_cpu_s']:.2f} s of CPU; peak memory "
        f"{'unknown' if memory is None else f'{memory:.0f} MB'}; reading the file "
        f"{run['decode_ms']:.1f} ms more"
    )
    if run["over_time"]:
        yield ""
        yield from _over_time(run["over_time"])


def _times(row: Mapping[str, Any]) -> str:
    wall, cpu = row["wall_ms"], row["cpu_ms"]
    return f"{wall['p50']:>10.2f}{wall['p95']:>9.2f}{cpu['p50']:>10.2f}{cpu['p95']:>9.2f}"


def _over_time(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield f"  {'s':>6s}{'frames/s':>10s}{'ms p50':>9s}{'°C':>7s}{'MHz':>7s}  throttled"
    for row in rows:
        celsius, clock, why = row["temperature_c"], row["cpu_mhz"], row["throttled"]
        yield (
            f"  {row['seconds']:>6.0f}{row['frames_per_second']:>10.1f}{row['wall_ms_p50']:>9.1f}"
            f"{'–' if celsius is None else f'{celsius:.0f}':>7s}"
            f"{'–' if clock is None else f'{clock:.0f}':>7s}"
            f"  {'unknown' if why is None else ', '.join(why) or 'no'}"
        )
