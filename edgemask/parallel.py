"""Several frames or photographs worked on at the same time, each by networks of its own."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from edgemask.instances import Instances

__all__ = ["in_order", "segmented"]


class _Picture(Protocol):
    """A Frame, or anything else with pixels."""

    @property
    def rgb(self) -> Any: ...


Picture = TypeVar("Picture", bound=_Picture)
Item = TypeVar("Item")
Result = TypeVar("Result")
Worker = TypeVar("Worker")


def segmented(
    frames: Iterable[Picture], segmenters: Sequence[Callable[[Any], Instances]]
) -> Generator[tuple[Picture, Instances], None, None]:
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
    return in_order(frames, segmenters, lambda segmenter, frame: segmenter(frame.rgb))


def in_order(
    items: Iterable[Item], workers: Sequence[Worker], work: Callable[[Worker, Item], Result]
) -> Generator[tuple[Item, Result], None, None]:
    """Yield items with what `work` makes of them, in their order.

    Parameters
    ----------
    items : iterable
        Read one further than there are workers.
    workers : sequence
        What only one call at a time may use. With one of them `work` is called by the caller's
        thread, with several by threads of their own.
    work : callable
        ``work(worker, item)``.

    Raises
    ------
    Exception
        What reading an item or working on it raises, in its place among the items.
    """
    if len(workers) == 1:
        for item in items:
            yield item, work(workers[0], item)
        return
    free: queue.SimpleQueue[Worker] = queue.SimpleQueue()
    for worker in workers:
        free.put(worker)

    def call(item: Item) -> Result:
        own = free.get()
        try:
            return work(own, item)
        finally:
            free.put(own)

    pool = ThreadPoolExecutor(len(workers), "edgemask-segment")
    begun: deque[tuple[Item, Future[Result]]] = deque()
    reading, failed = iter(items), None
    try:
        while True:
            try:
                item = next(reading)
            except StopIteration:
                break
            except BaseException as error:  # Ctrl-C, too: what was read before is not lost
                failed = error
                break
            begun.append((item, pool.submit(call, item)))
            if len(begun) > len(workers):
                first, result = begun.popleft()
                yield first, result.result()
        for first, result in begun:
            yield first, result.result()
        if failed is not None:
            raise failed
    finally:
        pool.shutdown(cancel_futures=True)
