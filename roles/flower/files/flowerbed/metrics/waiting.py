"""Messages that were sent and that no worker has received yet: how old the oldest of a queue is, by our own clock."""

from __future__ import annotations

#: messages that are remembered; when there are more, later ones are left out, so the oldest stays right
MOST = 50_000


class Waiting:
    """Queue -> ids of tasks in the order they were sent -> when their event came, in seconds since 1970."""

    def __init__(self, most: int = MOST) -> None:
        self._queues: dict[str, dict[str, float]] = {}
        self._number = 0
        self._most = most
        #: queues that were found empty, and when; taken in by the thread that counts
        self._empty: dict[str, float] = {}

    def add(self, queue: str, task_id: str, seen: float) -> None:
        """A message was sent."""
        if self._number < self._most:
            tasks = self._queues.setdefault(queue, {})
            self._number += task_id not in tasks
            tasks.setdefault(task_id, seen)

    def remove(self, queue: str | None, task_id: str) -> None:
        """A message waits no more."""
        if queue is None or (tasks := self._queues.get(queue)) is None:
            return
        if tasks.pop(task_id, None) is not None:
            self._number -= 1
            if not tasks:
                del self._queues[queue]

    def empty(self, queue: str, before: float) -> None:
        """The broker says that nothing waits: what was sent before is gone, purged or taken unheard. Any thread."""
        self._empty[queue] = before

    def tidy(self) -> None:
        """Forgets what is gone; by the thread that adds and removes."""
        while self._empty:
            queue, before = self._empty.popitem()
            for task_id, seen in list(self._queues.get(queue, {}).items()):
                if seen >= before:
                    break
                self.remove(queue, task_id)

    def sent(self, queue: str, task_id: str) -> float | None:
        """When a message was sent; None when that is not known."""
        return self._queues.get(queue, {}).get(task_id)

    def oldest(self, queue: str) -> float | None:
        """When the oldest message of a queue was sent; None when none is known."""
        return next(iter(self._queues.get(queue, {}).copy().values()), None)
