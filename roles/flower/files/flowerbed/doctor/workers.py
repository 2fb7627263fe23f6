"""The checks broker and workers: does Flower hear of anybody's work?"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any

from flowerbed.doctor.examination import Examination
from flowerbed.doctor.inside import Inside
from flowerbed.doctor.masking import without_password
from flowerbed.doctor.report import Finding, some_of

#: seconds that a worker's first heartbeat may take (workers send one every 2 s)
_HEARTBEAT_GRACE = 6.0
_BROKER_URL = re.compile(r"\b(?:amqps?|rediss?|redis\+socket|sentinel|sqs|kafka|memory)://[^\s<>\"']*")
_START_WORKERS = (
    "Start a worker there, or compare broker_url of the workers with Flower's: they must be the same, database too."
)


class Workers(Examination):
    """The broker and the workers on it, from outside and from inside."""

    def check_broker(self) -> Finding:
        """Is the broker reached: by us with the credentials when we are inside, else by Flower?"""
        return self._broker_inside(self.inside) if self.inside else self._broker_outside()

    def _broker_inside(self, inside: Inside) -> Finding:
        broker = inside.broker()
        if broker.name == "none":
            return Finding(
                "broker", "skip", "no broker URL is in the credentials (the Celery application brings its own)"
            )
        if broker.problem:
            return self._fail("broker", broker.problem, broker.hint)
        return Finding("broker", "ok", f"{broker.name} answers and accepts the credentials")

    def _broker_outside(self) -> Finding:
        """Flower's own view: a worker that is alive, or queue lengths, which it reads from the broker at once."""
        if skip := self._cannot_enter("broker"):
            return skip
        if any(worker.get("status") for worker in self._workers()):
            return Finding("broker", "ok", f"{self._broker_name()}: events of workers arrive")
        answer = self.door.get("/api/queues/length")
        if answer.status >= 500:
            return self._fail(
                "broker",
                f"Flower cannot read its broker {self._broker_name()}",
                "It is down, unreachable or refuses the credentials; on the host this tells which: "
                "/opt/flower/main/current/bin/python -m flowerbed doctor --settings /etc/flower/main/flowerbed.json",
            )
        queues = (answer.json() or {}).get("active_queues") if answer.status == 200 else None
        if queues:
            waiting = sum(int(queue.get("messages") or 0) for queue in queues)
            return Finding(
                "broker", "ok", f"{self._broker_name()} answers; {waiting} tasks wait in {len(queues)} queues"
            )
        return Finding("broker", "skip", f"{self._broker_name()} cannot be judged from outside")

    def _broker_name(self) -> str:
        found = _BROKER_URL.search(self.door.get("/broker").text)
        return without_password(found[0]) if found else "the broker"

    def _workers(self) -> list[dict[str, Any]]:
        """Workers as Flower knows them from events, with its count of each kind of event."""
        data = self.door.get("/workers?json=1").json()
        rows = data.get("data") if isinstance(data, dict) else None
        return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []

    def check_workers(self) -> Finding:
        """Is a worker seen by its events?  If not, why not?"""
        if skip := self._cannot_enter("workers"):
            return self._workers_by_ping() or skip
        # after a start of Flower the first heartbeat takes up to two seconds
        rows = self._until(lambda rows: any(row.get("status") for row in rows), 0.0)
        if not any(row.get("status") for row in rows):
            if broken := self._broken_broker():
                return self._fail("workers", f"no worker is seen: {broken}", "Repair the broker first.")
            answering = self._inspected()
            rows = self._until(lambda rows: any(row.get("status") for row in rows), _HEARTBEAT_GRACE)
            # Flower gathers the answers in the background, so the first look may come a little early
            answering = answering or self._inspected()
            if not any(row.get("status") for row in rows):
                return self._no_workers(rows, answering)
        return self._judge_events([row for row in rows if row.get("status")], rows)

    def _until(self, good: Callable[[list[dict[str, Any]]], bool], seconds: float) -> list[dict[str, Any]]:
        deadline = time.monotonic() + seconds
        while True:
            rows = self._workers()
            if good(rows) or time.monotonic() >= deadline:
                return rows
            time.sleep(0.3)

    def _workers_by_ping(self) -> Finding | None:
        """Behind somebody else's sign-in the broker itself can still be asked, from inside."""
        if not self.inside or not (found := self.inside.census().workers):
            return None
        return Finding("workers", "ok", f"{some_of(found)} on the broker (Flower's own list needs a login)")

    def _inspected(self) -> list[str]:
        """Workers that answer Flower's inspection right now; costs Flower's inspect_timeout."""
        answer = self.door.get("/api/workers?refresh=1", timeout=max(self.door.timeout, 20.0))
        found = answer.json()
        if answer.status != 200 or not isinstance(found, dict):
            return []
        try:
            now = parsedate_to_datetime(answer.headers.get("Date", "")).timestamp()
        except (TypeError, ValueError):
            now = time.time()
        # Flower keeps the answers of workers that are long gone
        return [
            name
            for name, info in found.items()
            if isinstance(info, dict) and now - float(info.get("timestamp", 0)) < 20
        ]

    def _broken_broker(self) -> str:
        """What is wrong with the broker, as far as it can be seen from here."""
        if self.inside:
            return self.inside.broker().problem
        if self.door.get("/api/queues/length").status >= 500:
            return f"Flower cannot read its broker {self._broker_name()}"
        return ""

    def _no_workers(self, rows: list[dict[str, Any]], answering: list[str]) -> Finding:
        offline = [str(row.get("hostname")) for row in rows]
        if answering:
            return self._fail(
                "workers",
                f"events are disabled: {some_of(answering)} answer Flower but send it no events",
                "Start the workers with -E and without --without-heartbeat.",
            )
        gone = f" (offline: {some_of(offline)})" if offline else ""
        if self.inside:
            broker, census = self.inside.broker(), self.inside.census()
            if census.workers:
                unit = self.inside.unit or "Flower"
                return self._fail(
                    "workers",
                    f"{some_of(census.workers)} answer on {broker.name}, but Flower does not hear them",
                    f"Flower lost its broker or was started with another: systemctl restart {unit}",
                )
            if census.elsewhere:
                return self._fail(
                    "workers",
                    f"workers are on another broker: {census.elsewhere}",
                    "Give workers and flower_broker_url the same broker and database.",
                )
            return self._fail("workers", f"no worker answers on {broker.name}{gone}", _START_WORKERS)
        name, queues = self._broker_name(), self.door.get("/api/queues/length")
        waiting = [f"{q.get('messages')} in {q.get('name')}" for q in (queues.json() or {}).get("active_queues") or []
                   if q.get("messages")] if queues.status == 200 else []  # fmt: skip
        seen = f"; tasks wait there: {some_of(waiting)}" if waiting else ""
        return self._fail(
            "workers", f"no worker answers on the broker that Flower watches, {name}{gone}{seen}", _START_WORKERS
        )

    def _judge_events(self, alive: list[dict[str, Any]], rows: list[dict[str, Any]]) -> Finding:
        """Workers are alive; do their tasks reach Flower too?  Heartbeats count tasks even when task events are off."""
        silent = {str(row["hostname"]): _processed(row) for row in alive if _processed(row) and not _task_events(row)}
        if silent:
            rows = self._until(lambda now: bool(_proof(silent, now)) or any(map(_task_events, now)), _HEARTBEAT_GRACE)
            alive = [row for row in rows if row.get("status")] or alive
            deaf = _proof(silent, rows)
            if not deaf and self.inside and not self.inside.events_option():
                deaf = sorted(silent)
            if deaf:
                return self._fail(
                    "workers",
                    f"events are disabled: {some_of(deaf)} work on tasks and Flower hears of none",
                    "Start the workers with -E (worker_send_task_events), or set enable_events to True for Flower.",
                )
        offline = [str(row.get("hostname")) for row in rows if not row.get("status")]
        text = f"{len(alive)} online: {some_of(str(row.get('hostname')) for row in alive)}"
        if offline:
            text += f"; {len(offline)} offline: {some_of(offline)}"
        if silent and not any(_task_events(row) for row in alive):
            text += "; no task event yet"
        return Finding("workers", "ok", text)


def _processed(row: dict[str, Any]) -> int:
    return int(row.get("processed") or 0)


def _task_events(row: dict[str, Any]) -> int:
    """Task events that Flower counted for a worker (`task-sent` is the producer's, not the worker's)."""
    return sum(int(value) for key, value in row.items() if key.startswith("task-") and isinstance(value, int))


def _proof(silent: dict[str, int], rows: list[dict[str, Any]]) -> list[str]:
    """Workers that finished more tasks under our eyes while Flower still heard of none."""
    return sorted(
        str(row["hostname"])
        for row in rows
        if row.get("hostname") in silent and _processed(row) > silent[str(row["hostname"])] and not _task_events(row)
    )
