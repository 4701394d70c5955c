"""Pictures, clips and the log of events, in a folder that never takes more than its share."""

from __future__ import annotations

import errno
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgemask.errors import OutputError
from edgemask.outputs import json_line, sync, sync_folder, write_file

__all__ = ["LOG", "OLD_LOG", "EventStore"]

LOG, OLD_LOG = "events.jsonl", "events.1.jsonl"

# A number and an event's id. Nothing shorter: cameras and people name files by digits too.
_NAME = r"(\d{8,})-\d{8}T\d{9}Z-[a-z0-9_-]+-\d+\.(?:jpg|mp4)"
_SNAPSHOT = re.compile(_NAME)
_UNFINISHED = re.compile(rf"\.{_NAME}(\.\d+)+\.tmp")
_FULL = (errno.ENOSPC, errno.EDQUOT)


class EventStore:
    """Writes snapshots, clips and log lines, and deletes the oldest of the first two to make room.

    In what follows a clip is a snapshot too. Any thread may write. When a snapshot or a line was
    written, it is on the disk, and until then nothing of a snapshot is. Nothing here raises when
    the disk is full or the folder cannot be written: the event goes on without a picture,
    :attr:`state` says why, and the next event tries again. Files that are not the store's own are
    neither counted nor touched.

    Parameters
    ----------
    folder : path
        Made if missing.
    budget : int
        Bytes that the folder may take, as the file system allocates them.
    keep_free : int
        Bytes of the disk that are left to others.
    statvfs : callable, optional
        Tells how full the disk is.

    Attributes
    ----------
    state : str
        ``ok``, ``disk full`` (nothing more can be deleted), ``budget too small`` (for a single
        snapshot), or ``not writable: reason``.
    used : int
        Bytes on the disk after the last write.
    deleted, failed : int
        Snapshots deleted to make room; snapshots and lines that could not be written.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        budget: int,
        keep_free: int = 0,
        *,
        statvfs: Callable[[Path], os.statvfs_result] = os.statvfs,
    ) -> None:
        self.folder = Path(folder)
        self.state, self.used, self.deleted, self.failed = "ok", 0, 0, 0
        self._budget = budget
        self._keep_free = keep_free
        self._statvfs = statvfs
        self._log_limit = min(max(budget // 20, 4096), 1_000_000)
        self._writing = threading.Lock()
        self._clean = False
        self._number = 0

    def save(self, name: str, content: bytes, suffix: str = ".jpg") -> Path | None:
        """Write a snapshot; return its path, or None if it could not be written.

        Parameters
        ----------
        name : str
            What follows the number in its file name: an :attr:`~.event.Event.id`. Under another
            name it is never deleted.
        content : bytes
        suffix : {'.jpg', '.mp4'}
        """

        def write() -> Path:
            path = self.folder / f"{self._next_number():08d}-{name}{suffix}"
            write_file(path, lambda stream: _write_through(stream, content))
            sync_folder(self.folder)
            return path

        path: Path | None = self._guarded(write, len(content))
        return path

    def log(self, record: dict[str, Any]) -> bool:
        """Append a line to the log; return whether it was written."""
        line = json_line(record)

        def write() -> bool:
            self._rotate(len(line))
            _append(self.folder / LOG, line)
            return True

        return bool(self._guarded(write, len(line)))

    def status(self) -> dict[str, Any]:
        """Return state, bytes used, budget and counters, JSON-ready."""
        return {
            "state": self.state,
            "used": self.used,
            "budget": self._budget,
            "deleted": self.deleted,
            "failed": self.failed,
        }

    def _guarded(self, write: Callable[[], Any], size: int) -> Any:
        """Make room, write, and if the disk is full all the same, make more room and try again."""
        with self._writing:
            return self._write(write, size)

    def _write(self, write: Callable[[], Any], size: int) -> Any:
        try:
            self._prepare()
            if not self._make_room(size):
                self.failed += 1
                return None
            try:
                result = write()
            except OSError as error:
                # Others fill the disk too, and there are quotas that no figure tells of.
                if error.errno not in _FULL or not self._free(2 * size):
                    raise
                result = write()
            self.used = self._measure()[0]
        except OSError as error:
            self.failed += 1
            full = error.errno in _FULL
            self.state = "disk full" if full else f"not writable: {_reason(error)}"
            return None
        self.state = "ok"
        return result

    def _prepare(self) -> None:
        """Make the folder and, once, remove what a crash has left unfinished."""
        _make_folder(self.folder)
        if not self._clean:
            for path in self.folder.iterdir():
                if _UNFINISHED.fullmatch(path.name):
                    path.unlink(missing_ok=True)
            self._clean = True

    def _make_room(self, size: int) -> bool:
        """Delete the oldest snapshots until `size` bytes more fit; return whether they do."""
        disk = self._statvfs(self.folder)
        block = disk.f_frsize or 4096
        # One block more: the folder itself may grow by an entry.
        need = -(-size // block) * block + block
        used, snapshots = self._measure(block)
        free_for_us = disk.f_bavail * disk.f_frsize - self._keep_free
        allowed = min(self._budget, used + free_for_us)
        fixed = used - sum(taken for _, taken in snapshots)
        for path, taken in snapshots:
            # Nothing is deleted for something that would not fit then either.
            if used + need <= allowed or fixed + need > allowed:
                break
            used -= self._delete(path, taken)
        self.used = used
        if used + need <= allowed:
            return True
        self.state = "budget too small" if allowed == self._budget else "disk full"
        return False

    def _free(self, size: int) -> bool:
        """Delete the oldest snapshots of at least `size` bytes; return whether there was any."""
        freed = 0
        for path, taken in self._measure()[1]:
            if freed >= size:
                break
            freed += self._delete(path, taken)
        return freed > 0

    def _delete(self, path: Path, taken: int) -> int:
        path.unlink(missing_ok=True)
        self.deleted += 1
        return taken

    def _measure(self, block: int = 4096) -> tuple[int, list[tuple[Path, int]]]:
        """Return the bytes of the folder with everything of ours, and its snapshots, oldest first.

        Read from the disk each time: somebody may have tidied up.
        """
        used = _allocated(self.folder.stat(), block)
        snapshots = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                ours = _SNAPSHOT.fullmatch(entry.name)
                if not ours and entry.name not in (LOG, OLD_LOG):
                    continue
                try:
                    taken = _allocated(entry.stat(follow_symlinks=False), block)
                except FileNotFoundError:
                    continue
                used += taken
                if ours:
                    snapshots.append((int(ours[1]), self.folder / entry.name, taken))
        return used, [(path, taken) for _, path, taken in sorted(snapshots)]

    def _next_number(self) -> int:
        """Return a number above those in use.

        Names by time alone would sort wrongly on a board whose clock is not set when it starts.
        """
        numbers = [_SNAPSHOT.fullmatch(path.name) for path, _ in self._measure()[1]]
        self._number = max([self._number, *(int(found[1]) for found in numbers if found)]) + 1
        return self._number

    def _rotate(self, size: int) -> None:
        path = self.folder / LOG
        if path.exists() and path.stat().st_size + size > self._log_limit:
            path.replace(self.folder / OLD_LOG)


def _write_through(stream: Any, content: bytes) -> None:
    """Write, and wait for the disk: a power cut must not leave a name without its content."""
    stream.write(content)
    stream.flush()
    sync(stream.fileno())


def _make_folder(folder: Path) -> None:
    """Make a folder and those that it is in, and wait until the disk has their names."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in made:
        sync_folder(path.parent)


def _append(path: Path, line: bytes) -> None:
    """Append a line as a whole, and wait for the disk; what fits only in part is taken back."""
    with open(path, "ab", buffering=0) as stream:
        end = stream.tell()
        # After a power cut the last line may lack its end. It must not swallow this one.
        if end:
            with open(path, "rb") as before:
                before.seek(-1, os.SEEK_END)
                line = line if before.read(1) == b"\n" else b"\n" + line
        try:
            if stream.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            sync(stream.fileno())
        except OSError:
            stream.truncate(end)
            raise
    if not end:  # the file is new
        sync_folder(path.parent)


def _allocated(status: os.stat_result, block: int) -> int:
    """Return the bytes a file takes; by its size, where the file system allocates late."""
    return max(status.st_blocks * 512, -(-status.st_size // block) * block)


def _reason(error: OSError) -> str:
    if isinstance(error, OutputError) and isinstance(error.__cause__, OSError):
        error = error.__cause__
    return error.strerror or str(error)
