"""Handing over between threads."""

from __future__ import annotations

import threading
import time

from edgemask.live.mailbox import Mailbox


def test_a_full_box_forgets_the_oldest_and_counts() -> None:
    box: Mailbox[int] = Mailbox(2)
    assert all(box.put(n) for n in range(5))
    assert [box.get(0), box.get(0), box.get(0)] == [3, 4, None]
    assert box.dropped == 3


def test_who_forgets_is_told_what() -> None:
    forgotten: list[int] = []
    box = Mailbox(1, on_drop=forgotten.append)
    for n in range(3):
        box.put(n)
    assert forgotten == [0, 1]


def test_a_box_holds_one_at_least() -> None:
    box: Mailbox[int] = Mailbox(0)
    assert box.put(1)
    assert box.get(0) == 1


def test_a_patient_writer_waits_for_room_and_loses_nothing() -> None:
    box: Mailbox[int] = Mailbox(1)
    writer = threading.Thread(target=lambda: [box.put(n, wait=True) for n in range(200)])
    writer.start()
    assert [box.get(5) for _ in range(200)] == list(range(200))
    writer.join(5)
    assert box.dropped == 0


def test_closing_wakes_everybody() -> None:
    box: Mailbox[int] = Mailbox(1)
    box.put(1)
    taken: list[bool] = []
    writer = threading.Thread(target=lambda: taken.append(box.put(2, wait=True)))
    writer.start()
    time.sleep(0.02)
    box.close()
    writer.join(5)
    assert taken == [False]
    assert not box.finished
    assert list(box) == [1]
    assert box.finished
    assert box.get() is None
    assert not box.put(3)


def test_a_reader_waits_no_longer_than_it_wants_to() -> None:
    start = time.monotonic()
    assert Mailbox[int]().get(0.05) is None
    assert 0.04 < time.monotonic() - start < 2
