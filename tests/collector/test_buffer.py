"""Between the reader and the counting: in order, bounded, and every payload is taken or counted as dropped."""

from __future__ import annotations

import threading
import time

from flowerbed.collector import buffer
from flowerbed.collector.buffer import PAYLOAD_BYTES, Buffer


def test_what_is_put_comes_out_in_order_and_in_portions() -> None:
    one = Buffer()
    everything = [str(number).encode() for number in range(3 * buffer.TAKE)]
    for first in range(0, len(everything), 100):
        one.put(everything[first : first + 100])
    found: list[bytes] = []
    while some := one.take(0):
        assert len(some) <= buffer.TAKE + 100
        found += some
        assert one.passed == len(found)
    assert found == everything
    assert (one.bytes, one.dropped) == (0, 0)


def test_large_payloads_come_in_smaller_portions() -> None:
    one = Buffer()
    for _ in range(10):
        one.put([b"x" * (buffer.TAKE_BYTES // 2)])
    assert len(one.take(0)) == 2


def test_the_oldest_go_and_are_counted() -> None:
    one = Buffer(most_bytes=10 * (PAYLOAD_BYTES + 1))
    for number in range(50):
        one.put([str(number % 10).encode()])
    assert (one.dropped, one.passed) == (40, 40)
    assert one.take(0) == [str(number).encode() for number in range(10)]
    assert one.passed == 50
    # one that is larger than all is let through: it would be dropped for ever
    one.put([b"x" * 5000])
    assert len(one.take(0)) == 1


def test_it_is_waited_for_and_woken() -> None:
    one = Buffer()
    began = time.monotonic()
    assert one.take(0.05) == []
    assert time.monotonic() - began >= 0.04
    threading.Timer(0.05, one.put, [[b"x"]]).start()
    assert one.take(30) == [b"x"]
    assert time.monotonic() - began < 20


def test_how_far_it_was_taken() -> None:
    """While something waits, nothing is known of what came later: no worker may be called silent for it."""
    one = Buffer()
    for _ in range(3):
        one.put([b"x"] * buffer.TAKE)
    behind = time.monotonic()
    one.take(0)
    assert one.reached <= behind
    one.take(0)
    one.take(0)
    assert one.reached >= behind


def test_half_of_what_may_wait() -> None:
    one = Buffer(most_bytes=4 * (PAYLOAD_BYTES + 1))
    one.put([b"a", b"b"])
    assert not one.is_half_full
    one.put([b"c"])
    assert one.is_half_full
