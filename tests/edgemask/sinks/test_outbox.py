"""What waits to be published: never too much, never the wrong thing, never lost if it matters."""

from __future__ import annotations

import threading
import time

import pytest

from edgemask.sinks.outbox import Message, Outbox


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def outbox(clock):
    return Outbox(2.0, 3, clock)


def drain(outbox):
    taken = []
    while (message := outbox.take(0)) is not None:
        taken.append((message.topic, message.payload))
    return taken


def test_only_the_newest_state_is_sent(outbox):
    for n in range(10):
        outbox.set_state("a", b"%d" % n)
    assert drain(outbox) == [("a", b"9")]


def test_a_state_that_does_not_change_is_sent_once(outbox, clock):
    for _ in range(5):
        outbox.set_state("a", b"1")
        clock.now += 10
        drain(outbox)
    outbox.set_state("a", b"1")
    assert drain(outbox) == []


def test_rate_of_a_topic_and_the_newest_in_the_end(outbox, clock):
    sent = []
    for n in range(100):  # ten seconds at ten a second
        outbox.set_state("a", b"%d" % n)
        sent += drain(outbox)
        clock.now += 0.1
    assert 16 <= len(sent) <= 21
    clock.now += 0.5
    sent += drain(outbox)
    assert sent[-1] == ("a", b"99")
    assert drain(outbox) == []


def test_topics_do_not_slow_each_other(outbox):
    for name in "abcde":
        outbox.set_state(name, b"1")
    assert [topic for topic, _ in drain(outbox)] == list("abcde")


def test_events_are_all_sent_in_order_and_first(outbox):
    outbox.set_state("a", b"1")
    outbox.add_event("e", b"1")
    outbox.add_event("e", b"1")
    assert drain(outbox) == [("e", b"1"), ("e", b"1"), ("a", b"1")]
    outbox.add_event("e", b"2")
    assert outbox.take(0) == Message("e", b"2", 1, False)


def test_the_oldest_event_gives_way(outbox):
    for n in range(5):
        outbox.add_event("e", b"%d" % n)
    assert drain(outbox) == [("e", b"2"), ("e", b"3"), ("e", b"4")]
    assert outbox.dropped == 2


def test_an_event_that_comes_back_is_within_the_bound_too() -> None:
    box = Outbox(100, max_events=2)
    box.add_event("e", b"1")
    first = box.take(0)
    assert first is not None
    box.add_event("e", b"2")
    box.add_event("e", b"3")
    box.put_back(first)
    assert drain(box) == [("e", b"2"), ("e", b"3")]
    assert box.dropped == 1


def test_repeat_sends_what_is_retained(outbox):
    outbox.set_state("kept", b"1")
    outbox.set_state("passing", b"1", retain=False)
    drain(outbox)
    outbox.repeat()
    assert drain(outbox) == [("kept", b"1")]


def test_put_back(outbox, clock):
    outbox.set_state("a", b"old")
    message = outbox.take(0)
    outbox.put_back(message)
    clock.now += 1
    assert drain(outbox) == [("a", b"old")]
    clock.now += 1
    outbox.set_state("a", b"older")
    message = outbox.take(0)
    outbox.set_state("a", b"newer")
    outbox.put_back(message)
    clock.now += 1
    assert drain(outbox) == [("a", b"newer")]
    for n in range(3):
        outbox.add_event("e", b"%d" % n)
    first = outbox.take(0)
    outbox.put_back(first)
    assert drain(outbox) == [("e", b"0"), ("e", b"1"), ("e", b"2")]


def test_closing_sends_the_rest_at_once(outbox):
    outbox.set_state("a", b"1")
    drain(outbox)
    outbox.set_state("a", b"2")  # not due yet
    assert drain(outbox) == []
    outbox.close()
    assert drain(outbox) == [("a", b"2")]


def test_closing_wakes_who_waits() -> None:
    box = Outbox(100)
    threading.Timer(0.1, box.close).start()
    began = time.monotonic()
    assert box.take(20) is None
    assert time.monotonic() - began < 10


def test_take_waits_for_something_to_send():
    outbox = Outbox(10.0)
    threading.Timer(0.1, outbox.add_event, ("e", b"1")).start()
    assert outbox.take(10.0) == Message("e", b"1", 1, False)
    outbox.set_state("a", b"1")
    assert outbox.take(0).payload == b"1"
    outbox.set_state("a", b"2")
    began = time.monotonic()
    assert outbox.take(10.0).payload == b"2"
    assert 0.05 < time.monotonic() - began < 5
    assert outbox.take(0.05) is None
