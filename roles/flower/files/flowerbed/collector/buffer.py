"""Payloads between the reader and the counting: bounded, so that a flood costs events and never the machine."""

from __future__ import annotations

import threading
import time
from collections import deque

#: the most that waits, in bytes of payloads; a burst of a hundred thousand batches
MOST_BYTES = 96 * 2**20
#: what a payload of no bytes costs, about
PAYLOAD_BYTES = 64
#: about the payloads and bytes that are taken at once: what is taken and not yet counted is not in the bound
TAKE, TAKE_BYTES = 1000, 4 * 2**20


class Buffer:
    """One thread puts, another takes; when it is full the oldest go, and are counted."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most = most_bytes
        self._waiting: deque[tuple[list[bytes], int, float]] = deque()
        self._has_some = threading.Condition()
        #: bytes that wait, payloads that were dropped, and those that were taken or dropped; read by any thread
        self.bytes = 0
        self.dropped = 0
        self.passed = 0
        #: the time (monotonic) up to which everything that came was taken
        self.reached = time.monotonic()

    @property
    def is_half_full(self) -> bool:
        """Whether more than half of what may wait does."""
        return self.bytes > self._most / 2

    def put(self, payloads: list[bytes]) -> None:
        """Takes what the reader has; waits for nothing but the other thread's hands."""
        size = sum(map(len, payloads)) + PAYLOAD_BYTES * len(payloads)
        with self._has_some:
            self._waiting.append((payloads, size, time.monotonic()))
            self.bytes += size
            # the newest stay, whatever their size: an empty buffer would drop a large batch for ever
            while self.bytes > self._most and len(self._waiting) > 1:
                oldest, freed, _ = self._waiting.popleft()
                self.bytes -= freed
                self.dropped += len(oldest)
                self.passed += len(oldest)
            self._has_some.notify()

    def take(self, seconds: float) -> list[bytes]:
        """Some of what waits, the oldest first, after `seconds` at most; empty when nothing came."""
        with self._has_some:
            if not self._waiting:
                self._has_some.wait(seconds)
            taken: list[bytes] = []
            size = 0
            while self._waiting and len(taken) < TAKE and size < TAKE_BYTES:
                payloads, freed, self.reached = self._waiting.popleft()
                self.bytes -= freed
                size += freed
                taken += payloads
            self.passed += len(taken)
            if not self._waiting:
                self.reached = time.monotonic()
        return taken
