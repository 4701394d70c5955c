"""What ``edgemask predict`` writes for each image, and what it says about it."""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from edgemask.errors import OutputError

if TYPE_CHECKING:
    from edgemask.cli.film import Film
    from edgemask.instances import Instances
    from edgemask.outputs import OutputNames
    from edgemask.sources.base import Pixels

__all__ = ["Results", "describe", "formats"]

FORMATS = ("overlay", "json", "coco", "masks")


def formats(text: str) -> list[str]:
    """Parse the option --format."""
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in FORMATS:
            raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(FORMATS)}")
    return names


def describe(instances: Instances) -> str:
    """Return what was found as a phrase: ``2 instances (person 0.97, person 0.61)``.

    Where there are tracks, their numbers too: ``person #3 0.97``.
    """
    if not len(instances):
        return "nothing found"
    columns = zip(
        instances.class_names, instances.track_ids.tolist(), instances.scores.tolist(), strict=True
    )
    found = [f"{name}{f' #{track}' if track >= 0 else ''} {s:.2f}" for name, track, s in columns]
    shown = ", ".join(found[:5]) + (", …" if len(found) > 5 else "")
    return f"{len(found)} instance{'s' if len(found) > 1 else ''} ({shown})"


class Results:
    """Writes the results of images, in constant memory however many there are.

    Parameters
    ----------
    model : mapping
        What identifies the model, for the JSON records.
    wanted : set of str
        Some of `FORMATS`.
    names : OutputNames
    """

    def __init__(self, model: Mapping[str, str], wanted: set[str], names: OutputNames) -> None:
        self._model, self.wanted, self._names = model, wanted, names
        self._coco: IO[bytes] | None = None

    def write(
        self,
        rgb: Pixels,
        instances: Instances,
        source: str,
        stem: str,
        more: Mapping[str, Any] | None = None,
        film: Film | None = None,
    ) -> str:
        """Write an image's own files; several threads may do so at the same time.

        Parameters
        ----------
        rgb : ndarray of uint8, shape (H, W, 3)
            Drawn on.
        instances : Instances
        source : str
            What the image is called in the files.
        stem : str
            Begins the names of the files; may have a folder in it.
        more : mapping, optional
            What else belongs in the JSON record.
        film : Film, optional
            Where the overlay goes instead of into a PNG; its time is ``more["sensor_ns"]``.

        Returns
        -------
        str
            A line for the user, without what was segmented.
        """
        from edgemask.outputs import instance_ids, write_json, write_png
        from edgemask.overlay import draw

        written: list[Path] = []
        if "json" in self.wanted:
            written.append(self._names.path(f"{stem}.json"))
            record = {"file_name": source, **(more or {}), "model": self._model}
            write_json(written[-1], {**record, **instances.to_dict()})
        if "masks" in self.wanted:
            written.append(self._names.path(f"{stem}.mask.png"))
            write_png(written[-1], instance_ids(instances))
        if "overlay" in self.wanted and film is not None:
            film.add(draw(rgb, instances, out=rgb), (more or {}).get("sensor_ns"))
        elif "overlay" in self.wanted:
            written.append(self._names.path(f"{stem}.overlay.png"))
            # Last, and in place: a large photograph is not held in memory a second time.
            write_png(written[-1], draw(rgb, instances, out=rgb))
        where = f" -> {', '.join(map(str, written))}" if written else ""
        return f"{describe(instances)}{where}"

    def keep(self, instances: Instances, source: str, image_id: int) -> None:
        """Put an image's part of coco.json aside, on disk: a camera may run for days.

        The entries of the file are in the order of these calls.
        """
        from edgemask.outputs import coco_results, json_line

        if "coco" not in self.wanted:
            return
        folder = self._names.folder
        try:
            if self._coco is None:
                folder.mkdir(parents=True, exist_ok=True)
                self._coco = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
            for result in coco_results(instances, image_id, source):
                self._coco.write(json_line(result))
        except OSError as error:
            problem = OutputError(
                f"results cannot be kept in {folder} ({error.strerror or error}): choose another "
                "folder"
            )
            problem.errno = error.errno
            raise problem from error

    def finish(self) -> None:
        """Write coco.json with what has been found so far; also after an interruption."""
        from edgemask.outputs import write_file

        if "coco" not in self.wanted:
            return

        def content() -> Iterator[bytes]:
            yield b"["
            if self._coco is not None:
                self._coco.seek(0)
                for number, line in enumerate(self._coco):
                    yield (b", " if number else b"") + line.rstrip(b"\n")
            yield b"]\n"

        try:
            write_file(self._names.path("coco.json"), lambda stream: stream.writelines(content()))
        finally:
            if self._coco is not None:
                with contextlib.suppress(OSError):  # of what could not be kept, and was said
                    self._coco.close()
