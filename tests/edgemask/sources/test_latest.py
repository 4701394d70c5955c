"""The hand-over of the newest value: nothing queues up, nobody waits in vain."""

from __future__ import annotations

import threading
import time

from edgemask.sources.latest import LatestSlot


def test_the_newest_value_wins_and_the_others_are_counted():
    slot = LatestSlot()
    for value in range(5):
        slot.put(value)
    assert slot.get(0) == 4
    assert slot.dropped == 4
    assert slot.get(0) is None
    slot.put(5)
    assert (slot.get(0), slot.dropped) == (5, 4)


def test_a_value_that_is_false_is_a_value():
    slot = LatestSlot()
    slot.put(0)
    slot.put(0)
    assert (slot.get(0), slot.dropped) == (0, 1)


def test_reader_waits_for_the_writer():
    slot = LatestSlot()
    threading.Timer(0.05, slot.put, ["late"]).start()
    assert slot.get(5) == "late"


def test_reader_does_not_wait_longer_than_it_said():
    start = time.monotonic()
    assert LatestSlot().get(0.05) is None
    assert 0.04 < time.monotonic() - start < 3


def test_close_wakes_every_reader():
    slot = LatestSlot()
    found = []
    readers = [threading.Thread(target=lambda: found.append(slot.get(30))) for _ in range(3)]
    for reader in readers:
        reader.start()
    slot.close()
    slot.close()
    for reader in readers:
        reader.join(5)
    assert found == [None] * 3


def test_last_value_survives_close_and_later_ones_do_not():
    slot = LatestSlot()
    slot.put("last")
    slot.close()
    slot.put("too late")
    assert not slot.closed
    assert slot.get(0) == "last"
    assert slot.closed
    assert slot.get(0) is None


def test_many_writers_lose_nothing_but_what_is_counted():
    slot = LatestSlot()

    def write():
        for value in range(500):
            slot.put(value)

    writers = [threading.Thread(target=write) for _ in range(3)]
    for writer in writers:
        writer.start()
    taken = 0
    while any(writer.is_alive() for writer in writers):
        taken += slot.get(0.01) is not None
    taken += slot.get(0) is not None
    assert taken + slot.dropped == 1500
