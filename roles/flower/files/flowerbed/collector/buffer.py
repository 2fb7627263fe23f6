"""Payloads between the reader and the counting: bounded, so that a flood costs events and never the machine."""

from __future__ import annotations

import threading
from collections import deque

#: the most that waits, in bytes of payloads; a minute of 20,000 events a second of 400 bytes would be 480 MB
MOST_BYTES = 64 * 2**20
#: what a payload of no bytes costs, about
PAYLOAD_BYTES = 64


class Buffer:
    """One thread puts, another takes; when it is full the oldest go, and are counted."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most = most_bytes
        self._waiting: deque[list[bytes]] = deque()
        self._has_some = threading.Condition()
        #: bytes that wait, and payloads that were dropped; read by any thread
        self.bytes = 0
        self.dropped = 0

    def put(self, payloads: list[bytes]) -> None:
        """Takes what the reader has; waits for nothing but the other thread's hands."""
        size = _size(payloads)
        with self._has_some:
            self._waiting.append(payloads)
            self.bytes += size
            # the newest stay, whatever their size: an empty buffer would drop a large batch for ever
            while self.bytes > self._most and len(self._waiting) > 1:
                oldest = self._waiting.popleft()
                self.bytes -= _size(oldest)
                self.dropped += len(oldest)
            self._has_some.notify()

    def take(self, seconds: float) -> list[bytes]:
        """All that waits, after `seconds` at most; empty when nothing came."""
        with self._has_some:
            if not self._waiting:
                self._has_some.wait(seconds)
            taken = [payload for payloads in self._waiting for payload in payloads]
            self._waiting.clear()
            self.bytes = 0
        return taken


def _size(payloads: list[bytes]) -> int:
    return sum(map(len, payloads)) + PAYLOAD_BYTES * len(payloads)
