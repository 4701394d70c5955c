"""Results of an engine that nobody had to run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from edgemask.instances import Instances
from edgemask.live.governor import GovernorState
from edgemask.live.result import Result
from edgemask.masks import CropMasks
from edgemask.sources.base import Frame

Box = tuple[int, int, int, int]


def people(boxes: Sequence[Box], size: tuple[int, int] = (100, 200)) -> Instances:
    """Return persons whose masks fill their boxes x0 y0 x1 y1."""
    crops = [np.ones((y1 - y0, x1 - x0), bool) for x0, y0, x1, y1 in boxes]
    masks = CropMasks(crops, [box[:2] for box in boxes], *size)
    count = len(boxes)
    array = np.array(boxes, np.float32).reshape(-1, 4)
    return Instances(array, [0.9] * count, [1] * count, masks, ["person"] * count)


@pytest.fixture
def results() -> Callable[..., Result]:
    """Make results one after the other: of boxes in a 200x100 image, `fps` a second."""
    made = 0

    def make(*boxes: Box, size: tuple[int, int] = (100, 200), fps: float = 10) -> Result:
        nonlocal made
        sensor_ns = round(made / fps * 1e9)
        rgb = np.full((*size, 3), 90, np.uint8)
        frame = Frame(rgb, made, sensor_ns, 1_700_000_000_000_000_000 + sensor_ns, f"f-{made:06d}")
        result = Result(frame, people(boxes, size), {}, 5.0, fps, GovernorState(), made)
        made += 1
        return result

    return make
