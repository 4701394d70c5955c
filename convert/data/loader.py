"""Batches for training, prepared by a few threads ahead of the optimiser.

The order is a permutation per epoch drawn from the seed, so step k of a run is
always the same batch: a killed run resumes exactly where it stopped.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image, ImageOps

from edgemask.images import as_rgb

from ..config import Config
from .augment import make_sample
from .copy_paste import paste_objects
from .dataset import DatasetError, Record, orientation
from .rotate import rotate_record

# Told to the generator, so that the rest of a sample is the same with and without.
COPY_PASTE = 1
ROTATE = 2


def read_image(record: Record) -> Image.Image:
    """Decode the photograph of ``record`` as RGB.

    Raises
    ------
    DatasetError
        Naming image id and path, when the file cannot be decoded or its size
        differs from the annotation file's.
    """
    try:
        with Image.open(io.BytesIO(record.path.read_bytes())) as image:
            # As on the device: upright, 16 bits scaled, transparency over white.
            upright = image if orientation(image) == 1 else ImageOps.exif_transpose(image)
            rgb = Image.fromarray(as_rgb(upright))
    except Exception as error:  # Pillow answers damaged data with nearly any exception
        raise DatasetError(
            f"image {record.image_id}: cannot decode {record.path}: {error}"
        ) from error
    if rgb.size != (record.width, record.height):
        raise DatasetError(
            f"image {record.image_id}: {record.path} is {rgb.width}x{rgb.height}, the "
            f"annotations say {record.width}x{record.height}"
        )
    return rgb


def batches(
    records: list[Record],
    config: Config,
    start_step: int,
    total_steps: int,
    share: tuple[int, int] = (0, 1),
    zoom: int = 1,
) -> Iterator[dict[str, np.ndarray]]:
    """Yield the batches of steps ``start_step`` … ``total_steps`` - 1.

    Parameters
    ----------
    records, config
    start_step, total_steps : int
    share : (int, int)
        Index and number of the processes that train together: each yields its part of every batch.
    zoom : int
        See :func:`.augment.make_sample`.
    """
    size = config.train.batch_size
    seed = config.train.seed
    worker, count = share
    part = range(worker * size // count, (worker + 1) * size // count)

    donors = [n for n, record in enumerate(records) if record.has_mask.any()]

    def draw(index: int, entropy: list[int]) -> dict[str, np.ndarray]:
        record = records[index]
        image = read_image(record)
        if config.augment.rotate > 0:
            rng = np.random.default_rng([*entropy, ROTATE])
            if rng.random() < 0.5:
                degrees = rng.uniform(-config.augment.rotate, config.augment.rotate)
                record, image = rotate_record(record, image, degrees)
        return make_sample(record, image, config.augment, entropy, zoom)

    def sample(epoch: int, index: int) -> dict[str, np.ndarray]:
        made = draw(index, [seed, epoch, index])
        if config.augment.copy_paste > 0 and donors:
            rng = np.random.default_rng([seed, epoch, index, COPY_PASTE])
            if rng.random() < config.augment.copy_paste:
                donor = donors[rng.integers(len(donors))]
                made = paste_objects(made, draw(donor, [seed, epoch, index, COPY_PASTE, 1]), rng)
        return made

    def stream() -> Iterator[tuple[int, int]]:
        position = start_step * size
        while True:
            epoch, offset = divmod(position, len(records))
            order = np.random.default_rng([seed, epoch]).permutation(len(records))
            for index in order[offset:]:
                yield epoch, int(index)
            position = (epoch + 1) * len(records)

    with ThreadPoolExecutor(config.train.workers) as pool:
        pending: deque = deque()
        source = (item for n, item in enumerate(stream()) if n % size in part)
        for _ in range(len(part) * 4):
            pending.append(pool.submit(sample, *next(source)))
        for _ in range(start_step, total_steps):
            samples = []
            for _ in part:
                samples.append(pending.popleft().result())
                pending.append(pool.submit(sample, *next(source)))
            yield {key: np.stack([s[key] for s in samples]) for key in samples[0]}
        for future in pending:
            future.cancel()
