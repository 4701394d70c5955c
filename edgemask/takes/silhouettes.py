"""A take as silhouettes, which visual hulls are carved from."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from edgemask import rle
from edgemask.errors import InputError
from edgemask.outputs import write_png
from edgemask.takes.reader import Record

__all__ = ["write_silhouettes"]


def write_silhouettes(records: Iterable[Record], folder: Path) -> int:
    """Write a PNG for each instance in each frame: ``000012_3.png`` is track 3 in frame 12.

    An image is as large as the frame, 255 where the instance is and 0 elsewhere. Instances without
    a track are not written: nothing would tell their files apart.

    Returns
    -------
    int
        The number of files.

    Raises
    ------
    InputError
        A mask is damaged.
    OutputError
        See :func:`edgemask.outputs.write_file`.
    """
    files = 0
    for record in records:
        for item in record.instances:
            if item.get("track_id") is None:
                continue
            try:
                mask = rle.decode(item["segmentation"]["counts"], *record.size)
            except InputError as error:
                raise InputError(f"a mask of frame {record.index} is damaged: {error}") from error
            path = folder / f"{record.index:06d}_{item['track_id']}.png"
            write_png(path, mask.astype(np.uint8) * np.uint8(255))
            files += 1
    return files
