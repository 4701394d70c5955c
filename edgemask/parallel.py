"""Several frames segmented at the same time, each by networks of its own."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgemask.instances import Instances
    from edgemask.sources.base import Frame

__all__ = ["segmented"]


def segmented(
    frames: Iterable[Frame], segmenters: Sequence[Callable[[Any], Instances]]
) -> Generator[tuple[Frame, Instances], None, None]:
    """Yield frames with their instances, in the order of the frames.

    For sources that wait: of a camera, the frames that are read ahead would be old ones.

    Parameters
    ----------
    frames : iterable of Frame
        Read one frame further than there are segmenters.
    segmenters : sequence of callable
        Segmenters that are alike, or anything that turns an image into Instances. One is called by
        the caller's thread, several by threads of their own.

    Raises
    ------
    Exception
        What reading or segmenting a frame raises, in its place among the frames.
    """
    if len(segmenters) == 1:
        for frame in frames:
            yield frame, segmenters[0](frame.rgb)
        return
    free: queue.SimpleQueue[Callable[[Any], Instances]] = queue.SimpleQueue()
    for segmenter in segmenters:
        free.put(segmenter)

    def segment(frame: Frame) -> Instances:
        own = free.get()
        try:
            return own(frame.rgb)
        finally:
            free.put(own)

    pool = ThreadPoolExecutor(len(segmenters), "edgemask-segment")
    begun: deque[tuple[Frame, Future[Instances]]] = deque()
    reading, failed = iter(frames), None
    try:
        while True:
            try:
                frame = next(reading)
            except StopIteration:
                break
            except BaseException as error:  # Ctrl-C, too: what was read before is not lost
                failed = error
                break
            begun.append((frame, pool.submit(segment, frame)))
            if len(begun) > len(segmenters):
                first, found = begun.popleft()
                yield first, found.result()
        for first, found in begun:
            yield first, found.result()
        if failed is not None:
            raise failed
    finally:
        pool.shutdown(cancel_futures=True)
