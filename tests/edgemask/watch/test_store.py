"""The folder of events: whole files, within the budget, whatever the disk does."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import stat
import threading
import time
from types import SimpleNamespace

import pytest

from edgemask.watch import store as store_module
from edgemask.watch.store import LOG, OLD_LOG, EventStore

JPEG = b"\xff\xd8" + bytes(9_998)


def event(name):
    """An event's id, as :class:`~edgemask.watch.event.Event` makes them."""
    return f"20261122T210503265Z-{name}-enter-1"


def short(name):
    """The number and what was given to :func:`event`, of a file's name."""
    return name.replace("20261122T210503265Z-", "").replace("-enter-1.", ".")


def on_disk(folder):
    """Return what ``du`` would say, and the short names."""
    paths = list(folder.iterdir())
    blocks = sum(path.stat().st_blocks for path in [*paths, folder])
    return blocks * 512, sorted(short(path.name) for path in paths)


def disk(free, total=10**9):
    """Return a statvfs that reports `free` bytes, which may be a function."""

    def statvfs(_):
        available = free() if callable(free) else free
        return SimpleNamespace(f_frsize=4096, f_bavail=available // 4096, f_blocks=total // 4096)

    return statvfs


def test_snapshots_and_log(tmp_path):
    store = EventStore(tmp_path / "new" / "events", 10**6)
    path = store.save(event("door"), JPEG)
    assert path == tmp_path / "new" / "events" / f"00000001-{event('door')}.jpg"
    assert path.read_bytes() == JPEG
    assert store.log({"zone": "Tür"})
    assert store.log({"zone": "b"})
    lines = (path.parent / LOG).read_text("utf-8").splitlines()
    assert [json.loads(line)["zone"] for line in lines] == ["Tür", "b"]
    assert store.state == "ok"
    assert store.used >= on_disk(path.parent)[0]


def test_used_has_what_was_just_written(tmp_path) -> None:
    store = EventStore(tmp_path, 10**6)
    store.save(event("door"), JPEG)
    assert store.used >= len(JPEG)


@pytest.fixture
def steps(monkeypatch) -> list[str]:
    """What is done to the disk: a file or a folder (by its inode) is synced, a file is renamed."""
    done: list[str] = []
    sync, replace = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        sync(descriptor)
        status = os.fstat(descriptor)
        done.append(f"folder {status.st_ino}" if stat.S_ISDIR(status.st_mode) else "file")

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append("name"), replace(a, b)))
    return done


def test_a_snapshot_is_on_the_disk_before_it_has_its_name_and_then_so_is_that(
    tmp_path, steps
) -> None:
    assert EventStore(tmp_path, 10**6).save(event("door"), JPEG)
    assert steps == ["file", "name", f"folder {tmp_path.stat().st_ino}"]


def test_the_names_of_new_folders_and_of_a_new_log_are_on_the_disk(tmp_path, steps) -> None:
    folder = tmp_path / "a" / "b"
    store = EventStore(folder, 10**6)
    assert store.log({"n": 1})
    places = [f"folder {path.stat().st_ino}" for path in (folder.parent, tmp_path, folder)]
    assert steps == [*places[:2], "file", places[2]]
    steps.clear()
    assert store.log({"n": 2})  # the names are there already
    assert steps == ["file"]


def test_a_system_that_opens_no_folder_is_no_trouble(tmp_path, monkeypatch) -> None:
    real = os.open

    def refuse(path, *rest, **more):
        if os.path.isdir(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, *rest, **more)

    store = EventStore(tmp_path / "events", 10**6)
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        assert store.save(event("door"), JPEG)
        assert store.log({"n": 1})
    assert (store.state, store.failed) == ("ok", 0)


def test_budget_is_never_exceeded_and_the_oldest_go_first(tmp_path):
    budget = 100_000
    store = EventStore(tmp_path, budget)
    for n in range(1, 41):
        assert store.save(event(f"event-{n}"), JPEG)
        assert store.log({"n": n, "text": "x" * 500})
        used, names = on_disk(tmp_path)
        assert used <= budget
        assert not any(name.endswith(".tmp") for name in names)
    snapshots = [name for name in names if name.endswith(".jpg")]
    assert snapshots == [f"{n:08d}-event-{n}.jpg" for n in range(41 - len(snapshots), 41)]
    assert 4 <= len(snapshots) <= 8
    assert store.deleted == 40 - len(snapshots)
    assert json.loads((tmp_path / LOG).read_text("utf-8").splitlines()[-1])["n"] == 40


def test_the_log_is_rotated(tmp_path):
    store = EventStore(tmp_path, 200_000)  # a log of a twentieth
    for n in range(100):
        assert store.log({"n": n, "text": "x" * 300})
    sizes = [(tmp_path / name).stat().st_size for name in (LOG, OLD_LOG)]
    assert max(sizes) <= 10_000
    numbers = [
        json.loads(line)["n"]
        for name in (OLD_LOG, LOG)
        for line in (tmp_path / name).read_text("utf-8").splitlines()
    ]
    assert numbers == list(range(100 - len(numbers), 100))


def test_numbers_go_on_after_a_restart(tmp_path):
    EventStore(tmp_path, 10**6).save(event("a"), JPEG)
    EventStore(tmp_path, 10**6).save(event("b"), JPEG)
    # By time, this one would be the oldest: the clock was not set.
    path = EventStore(tmp_path, 10**6).save("19700101T000000000Z-door-enter-1", JPEG)
    assert path.name.startswith("00000003-")


def test_what_a_crash_left_is_cleaned_up(tmp_path):
    unfinished = tmp_path / f".00000007-{event('door')}.jpg.1234.tmp"
    unfinished.write_bytes(JPEG)
    (tmp_path / LOG).write_bytes(b'{"n": 1}\n{"n": 2, "half')
    store = EventStore(tmp_path, 10**6)
    store.log({"n": 3})
    assert not unfinished.exists()
    lines = (tmp_path / LOG).read_text("utf-8").splitlines()
    assert [lines[0], lines[-1]] == ['{"n": 1}', '{"n": 3}']


def test_unfinished_files_of_others_stay(tmp_path) -> None:
    for name in ("photo.tmp", ".photo.jpg.17.tmp", f".00000001-{event('a')}.jpg.17.3.tmp"):
        (tmp_path / name).write_bytes(b"x")
    EventStore(tmp_path, 10**6).save(event("door"), JPEG)
    left = sorted(path.name for path in tmp_path.iterdir() if path.name.endswith(".tmp"))
    assert left == [".photo.jpg.17.tmp", "photo.tmp"]


def test_files_of_others_are_left_alone(tmp_path):
    names = ["holiday.jpg", "20240115-120501.jpg", "1700000000-cam.mp4", "20231224-xmas-eve-1.jpg"]
    others = [tmp_path / name for name in names]
    for other in others:
        other.write_bytes(bytes(50_000))
    store = EventStore(tmp_path, 40_000)
    for n in range(5):
        path = store.save(event(f"e{n}"), JPEG)
    assert path.name.startswith("00000005-")
    assert all(other.exists() for other in others)
    assert store.deleted > 0


def test_a_budget_below_one_snapshot(tmp_path):
    store = EventStore(tmp_path, 10_000)
    assert store.save(event("a"), JPEG) is None
    assert store.state == "budget too small"
    assert store.failed == 1
    assert on_disk(tmp_path)[1] == []


def test_nothing_goes_for_what_would_not_fit_then_either(tmp_path):
    store = EventStore(tmp_path, 60_000)
    store.save(event("a"), JPEG)
    store.save(event("b"), JPEG)
    assert store.save(event("long"), bytes(70_000), ".mp4") is None
    assert store.state == "budget too small"
    assert on_disk(tmp_path)[1] == ["00000001-a.jpg", "00000002-b.jpg"]


def test_clips_and_pictures_share_the_budget(tmp_path):
    store = EventStore(tmp_path, 40_000)
    for n in range(6):
        assert store.save(event(f"e{n}"), JPEG, (".jpg", ".mp4")[n % 2])
        assert on_disk(tmp_path)[0] <= 40_000
    assert on_disk(tmp_path)[1] == ["00000005-e4.jpg", "00000006-e5.mp4"]


def test_several_threads_may_write(tmp_path):
    store = EventStore(tmp_path, 10**6)

    def write(letter):
        for n in range(20):
            assert store.save(event(f"{letter}{n}"), JPEG[:100])
            assert store.log({"by": letter, "n": n})

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    _, names = on_disk(tmp_path)
    numbers = [int(name.partition("-")[0]) for name in names if name.endswith(".jpg")]
    assert sorted(numbers) == list(range(1, 61))
    assert len((tmp_path / LOG).read_text("utf-8").splitlines()) == 60


def test_one_thread_at_a_time_makes_room(tmp_path) -> None:
    inside, most = [], []

    def statvfs(_):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.05)
        inside.pop()
        return SimpleNamespace(f_frsize=4096, f_bavail=10**6, f_blocks=10**6)

    store = EventStore(tmp_path, 10**6, statvfs=statvfs)
    threads = [threading.Thread(target=store.save, args=(event("a"), JPEG)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 4
    assert len(list(tmp_path.glob("*.jpg"))) == 4


def test_somebody_tidies_up_meanwhile(tmp_path, monkeypatch) -> None:
    store = EventStore(tmp_path, 10**6)
    assert store.save(event("a"), JPEG)

    def vanished(**options):
        raise FileNotFoundError(errno.ENOENT, "gone")

    @contextlib.contextmanager
    def scandir(_):
        name = f"00000009-{event('b')}.jpg"
        yield iter([SimpleNamespace(name=name, stat=vanished)])

    monkeypatch.setattr(os, "scandir", scandir)
    assert store.save(event("c"), JPEG)
    assert store.state == "ok"


def test_some_of_the_disk_is_left_to_others(tmp_path):
    free = 200_000
    store = EventStore(tmp_path, 10**9, keep_free=150_000, statvfs=disk(lambda: free))
    assert store.save(event("a"), JPEG)
    free = 160_000  # others have filled it
    assert store.save(event("b"), JPEG)  # in place of the first
    assert on_disk(tmp_path)[1] == ["00000002-b.jpg"]
    free = 100_000
    assert store.save(event("c"), JPEG) is None
    assert store.state == "disk full"
    free = 200_000
    assert store.save(event("d"), JPEG)
    assert store.state == "ok"


def full_disk(monkeypatch, times, code=errno.ENOSPC):
    """Let the next writes fail, half-way, as they do on a full disk."""
    left = [times]
    real = store_module._write_through

    def write(stream, content):
        if left[0]:
            left[0] -= 1
            stream.write(content[: len(content) // 2])
            raise OSError(code, os.strerror(code))
        real(stream, content)

    monkeypatch.setattr(store_module, "_write_through", write)


def test_a_disk_that_is_full_all_the_same(tmp_path, monkeypatch):
    store = EventStore(tmp_path, 10**6)
    for name in "abc":
        store.save(event(name), JPEG)
    full_disk(monkeypatch, 1)
    assert store.save(event("d"), JPEG)
    assert store.state == "ok"
    # Twice what was needed has gone, the oldest first.
    assert on_disk(tmp_path)[1] == ["00000003-c.jpg", "00000005-d.jpg"]  # a number is used once
    full_disk(monkeypatch, 2)
    assert store.save(event("e"), JPEG) is None
    assert store.state == "disk full"
    full_disk(monkeypatch, 0)
    assert store.save(event("f"), JPEG)
    assert store.state == "ok"
    assert not [name for name in on_disk(tmp_path)[1] if name.endswith(".tmp")]


def test_a_disk_that_goes_away_right_after_the_writing_is_no_exception(tmp_path, monkeypatch):
    folder = tmp_path / "stick"
    store = EventStore(folder, 10**6)
    monkeypatch.setattr(store_module, "sync_folder", lambda _: shutil.rmtree(folder))
    folder.mkdir()
    assert store.log({"n": 1}) is False
    assert (store.state, store.failed) == ("not writable: No such file or directory", 1)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_quota_is_a_full_disk(tmp_path, monkeypatch, code: int) -> None:
    store = EventStore(tmp_path, 10**6)
    full_disk(monkeypatch, 100, code)
    assert store.save(event("door"), JPEG) is None
    assert store.state == "disk full"


def test_a_line_is_on_the_disk_when_it_was_written(tmp_path, monkeypatch):
    synced, real = [], os.fsync

    def fsync(descriptor):
        real(descriptor)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            synced.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(os, "fsync", fsync)
    store = EventStore(tmp_path, 10**6)
    for number in range(2):
        assert store.log({"number": number})
        assert synced[-1] == (tmp_path / "events.jsonl").stat().st_size
    assert len(synced) == 2


def test_a_line_that_fits_only_in_part_is_taken_back(tmp_path, monkeypatch):
    store = EventStore(tmp_path, 10**6)
    store.log({"n": 1})
    real_open = open

    class Short:
        def __init__(self, stream):
            self.stream = stream

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.stream.close()

        def __getattr__(self, name):
            return getattr(self.stream, name)

        def write(self, data):
            return self.stream.write(data[:3])

    def short_open(path, mode="r", *args, **options):
        stream = real_open(path, mode, *args, **options)
        return Short(stream) if mode == "ab" else stream

    monkeypatch.setattr(store_module, "open", short_open, raising=False)
    assert not store.log({"n": 2})
    assert store.state == "disk full"
    monkeypatch.undo()
    assert store.log({"n": 3})
    assert (tmp_path / LOG).read_text("utf-8") == '{"n": 1}\n{"n": 3}\n'


def test_a_folder_that_cannot_be_written_is_named_and_comes_back(tmp_path):
    folder = tmp_path / "usb"
    folder.write_bytes(b"")  # a file where the folder should be
    store = EventStore(folder, 10**6)
    assert store.save(event("a"), JPEG) is None
    assert not store.log({})
    assert store.state.startswith("not writable: ")
    folder.unlink()
    assert store.save(event("a"), JPEG)
    assert store.state == "ok"


def test_a_folder_that_is_removed_comes_back(tmp_path):
    store = EventStore(tmp_path / "events", 10**6)
    store.save(event("a"), JPEG).unlink()
    (tmp_path / "events").rmdir()
    assert store.save(event("b"), JPEG)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_real_disk_that_is_smaller_than_the_budget(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = os.system(f"mount -t tmpfs -o size=128k tmpfs {folder} 2>/dev/null") == 0
    if not mounted:
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        store = EventStore(folder, 10**9)
        for n in range(40):
            assert store.save(event(f"e{n}"), JPEG), store.state
            assert store.log({"n": n})
        newest = max(name for name in on_disk(folder)[1] if name.endswith(".jpg"))
        assert newest == "00000040-e39.jpg"
    finally:
        os.system(f"umount {folder}")
