"""Writing results: overlays, JSON, COCO results and instance-id masks, never half a file."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgemask.errors import OutputError
from edgemask.instances import Instances

__all__ = [
    "OutputNames",
    "beside_of",
    "check_output",
    "coco_results",
    "image_ids",
    "instance_ids",
    "json_line",
    "output_error",
    "sync",
    "sync_folder",
    "write_file",
    "write_json",
    "write_png",
]

_NUMBERS = itertools.count()
_CURES = {
    errno.ENOSPC: "free some space or choose another folder",
    errno.EDQUOT: "free some space or choose another folder",
    errno.EIO: "check the disk, or choose another folder",
    errno.EROFS: "choose a folder on a writable file system",
    errno.EACCES: "choose a folder you may write to",
    errno.EPERM: "choose a folder you may write to",
    errno.ENAMETOOLONG: "choose a folder with a shorter path, or rename the input",
}


def write_file(path: str | os.PathLike[str], write: Callable[[IO[bytes]], object]) -> None:
    """Write a file completely or not at all.

    The content goes to a temporary name in the same folder, which is created if it is missing, and
    takes the place of `path` only when everything is on it. An older file stays until then.

    Parameters
    ----------
    path : path
    write : callable
        Gets the open binary file.

    Raises
    ------
    OutputError
        The folder cannot be created or written, or the disk is full. ``errno`` is set.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        beside = beside_of(path)
        try:
            with open(beside, "wb") as stream:
                write(stream)
            os.replace(beside, path)
        finally:
            # Gone after a success; after anything else, Ctrl-C included, it must not be left.
            beside.unlink(missing_ok=True)
    except OutputError:
        raise
    except OSError as error:
        raise output_error(path, error) from error


def sync(descriptor: int) -> None:
    """Wait until the disk has what was written to a file; some file systems have no such thing.

    Raises
    ------
    OSError
        The disk refuses.
    """
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Wait until the disk has the names in a folder: :func:`sync` of a file does not see to that.

    Does nothing where a folder cannot be opened, which is so on Windows.

    Raises
    ------
    OSError
        There is no such folder, or the disk refuses.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def beside_of(path: Path) -> Path:
    """Return where a file is written until it is complete, another path with each call.

    Its name is no longer than a file's may be, 255 bytes, in whatever script that of `path` is. So
    it is cut off, and two threads may write files that differ in what is cut off only.
    """
    start = path.name.encode("utf-8", "replace")[:100].decode("utf-8", "ignore")
    return path.with_name(f".{start}.{os.getpid()}.{next(_NUMBERS)}.tmp")


class _Enough(Exception):
    """Ends the writing of a file before it takes its place."""


def check_output(path: str | os.PathLike[str]) -> None:
    """Find out before the work, and not after, that a file cannot be written.

    Raises
    ------
    OutputError
        See :func:`write_file`.
    """

    def stop(stream: IO[bytes]) -> None:
        raise _Enough

    with contextlib.suppress(_Enough):
        write_file(path, stop)


def output_error(path: Path, error: OSError) -> OutputError:
    """Return the error that says why a file could not be written and what to do; has ``errno``."""
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        cure = f"a file is in the way of the folder {path.parent}: choose another folder"
    elif error.errno == errno.EISDIR:
        cure = "a folder has this name: remove it or choose another folder"
    else:
        cure = _CURES.get(error.errno or 0, "choose another folder")
    result = OutputError(f"{path} cannot be written ({reason}): {cure}")
    result.errno = error.errno
    return result


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Write a value as JSON; NaN is refused, since it is none.

    Raises
    ------
    OutputError
        See :func:`write_file`.
    """
    write_file(path, lambda stream: stream.write(json_line(content)))


def json_line(content: Any) -> bytes:
    """Return a value as a line of JSON in UTF-8; NaN is refused, since it is none.

    What is no text in a file's name is escaped, and so comes back as it was.
    """
    text = json.dumps(content, allow_nan=False, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace") + b"\n"


def write_png(path: str | os.PathLike[str], pixels: NDArray[Any]) -> None:
    """Write uint8 (H, W, 3), uint8 (H, W) or uint16 (H, W) as PNG.

    Raises
    ------
    OutputError
        See :func:`write_file`.
    """
    image = Image.fromarray(pixels)
    # Level 1 takes a third of the default's time on a photograph and 10 % more space.
    write_file(path, lambda stream: image.save(stream, "PNG", compress_level=1))


def instance_ids(instances: Instances) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Return which instance each pixel belongs to.

    Returns
    -------
    ndarray of uint8 (fewer than 256 instances) or uint16, shape (H, W)
        0 is background, k the instance at index k - 1. Where masks overlap, the instance with the
        higher score has the pixel.
    """
    ids = np.zeros(instances.size, np.uint8 if len(instances) < 256 else np.uint16)
    for n in np.argsort(instances.scores, kind="stable").tolist():
        crop, (x0, y0) = instances.masks.crops[n], instances.masks.origins[n].tolist()
        window = ids[y0 : y0 + crop.shape[0], x0 : x0 + crop.shape[1]]
        window[crop] = n + 1
    return ids


def coco_results(
    instances: Instances, image_id: int, file_name: str | None = None
) -> list[dict[str, Any]]:
    """Return instances in COCO's results format.

    Returns
    -------
    list of dict
        ``image_id``, ``category_id``, ``bbox`` (x y w h in pixels, two decimals), ``score`` (five
        decimals), ``segmentation`` (RLE, counts as str), ``keypoints`` (x, y, score of each in one
        list; in COCO they are indices of pixels, half a pixel less than in :class:`Instances`) and
        ``keypoint_score`` (the score times the mean of the keypoints', by which poses are ranked)
        if the instance has any, and, if given, ``file_name``.
    """
    results = []
    for box, score, class_id, rle in zip(
        instances.boxes.tolist(),
        instances.scores.tolist(),
        instances.class_ids.tolist(),
        instances.masks.to_coco_rle(),
        strict=True,
    ):
        x0, y0, x1, y1 = box
        result: dict[str, Any] = {
            "image_id": image_id,
            "category_id": class_id,
            "bbox": [round(value, 2) for value in (x0, y0, x1 - x0, y1 - y0)],
            "score": round(score, 5),
            "segmentation": {"size": rle["size"], "counts": rle["counts"].decode("ascii")},
        }
        if file_name is not None:
            result["file_name"] = file_name
        results.append(result)
    if instances.keypoints is not None:
        shifted = instances.keypoints - np.array([0.5, 0.5, 0], np.float32)
        for result, points in zip(results, shifted.tolist(), strict=True):
            if any(score > 0 for _, _, score in points):  # its class has keypoints
                result["keypoints"] = [round(value, 4) for point in points for value in point]
                mean = sum(score for _, _, score in points) / len(points)
                result["keypoint_score"] = round(result["score"] * mean, 5)
    return results


def image_ids(paths: Sequence[str]) -> list[int]:
    """Return an id for each image: its number if all are named by distinct ones, else 1, 2, 3, …

    COCO names its photographs by their ids (``000000000139.jpg``).
    """
    stems = [Path(path).stem for path in paths]
    if all(stem.isascii() and stem.isdigit() for stem in stems):
        numbers = [int(stem) for stem in stems]
        if len(set(numbers)) == len(numbers):
            return numbers
    return list(range(1, len(paths) + 1))


class OutputNames:
    """Names the result files of a run, so that no two inputs share one and no input is replaced.

    Parameters
    ----------
    folder : path
    inputs : iterable of str
        Every file that the run reads.
    reserved : iterable of str
        Stems that no input gets.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        inputs: Iterable[str],
        reserved: Iterable[str] = (),
    ) -> None:
        self.folder = Path(folder)
        self._inputs = {os.path.realpath(path) for path in inputs}
        self._taken: set[str] = {stem.casefold() for stem in reserved}

    def stem(self, source: str) -> str:
        """Return a name for a source that no earlier source got: ``photo``, then ``photo-2``, …"""
        wanted = Path(source).stem or "image"
        stem, count = wanted, 1
        # Compared without case: two names that differ only in it are one file on some disks.
        while stem.casefold() in self._taken:
            count += 1
            stem = f"{wanted}-{count}"
        self._taken.add(stem.casefold())
        return stem

    def path(self, name: str) -> Path:
        """Return the path of a result file.

        Raises
        ------
        OutputError
            It is one of the run's inputs.
        """
        path = self.folder / name
        if os.path.realpath(path) in self._inputs:
            raise OutputError(f"{path} is one of the inputs: choose another folder for the results")
        return path
