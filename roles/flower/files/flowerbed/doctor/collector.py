"""The checks collector and history: is every event counted, and every task remembered?"""

from __future__ import annotations

import http.client
import json
import time
from typing import Any

from flowerbed.addresses import place, reachable
from flowerbed.doctor.examination import Examination
from flowerbed.doctor.report import Finding

#: what /health says before it knows, and how long that may take, in seconds (PostgreSQL is given 10 for a connection)
_NOT_YET = ("connecting", "opening")
_OPENING_SECONDS = 20.0


class Collector(Examination):
    """The collector of this instance, asked on the host at the address of its metrics."""

    _told: dict[str, Any] | None = None

    def check_collector(self) -> Finding:
        """Does it read and count?"""
        if skip := self._no_collector("collector"):
            return skip
        told = self._ask()
        if "problem" in told:
            return self._fail("collector", told["problem"], self._then())
        if told["status"] != "ok":
            return self._fail("collector", f"events are not counted: {self._why(told)}", self._then())
        dropped = f", {told['dropped']} dropped since it started" if told["dropped"] else ""
        if told["reader"] != "reading":
            return Finding("collector", "ok", f"it runs and waits for the broker: {told['reader']}{dropped}")
        return Finding("collector", "ok", f"events are read and counted{dropped}")

    def check_history(self) -> Finding:
        """Does it remember?"""
        if skip := self._no_collector("history"):
            return skip
        told = self._ask()
        if "problem" in told:
            return Finding("history", "skip", "the collector does not answer")
        if told["history"] == "off":
            return Finding("history", "ok", "none is kept, as the settings say")
        if told["history"] == "ok":
            return Finding("history", "ok", "tasks are written down")
        return self._fail("history", f"tasks are not written down: {told['history'].rstrip('.')}", self._then())

    def _no_collector(self, name: str) -> Finding | None:
        if self.inside is None:
            return Finding(name, "skip", "this is seen on the host only: doctor --settings FILE")
        if not self.inside.settings.collector.enabled:
            return Finding(name, "skip", "this instance has no collector (flower_collector)")
        return None

    def _then(self) -> str:
        instance = self.inside.settings.instance if self.inside else "main"
        return f"Then: journalctl -u flower-collector@{instance} -n 50"

    def _ask(self) -> dict[str, Any]:
        """What /health says, or `problem` in a dictionary; asked again while it does not know yet, and then kept."""
        deadline = time.monotonic() + _OPENING_SECONDS
        while self._told is None:
            told = self._health()
            undecided = told.get("reader") in _NOT_YET or told.get("history") in _NOT_YET
            if not undecided or time.monotonic() > deadline:
                self._told = told
            else:
                time.sleep(0.25)
        return self._told

    def _health(self) -> dict[str, Any]:
        assert self.inside is not None  # noqa: S101 - _no_collector has looked
        chosen = self.inside.settings.collector
        address = reachable(chosen.address)
        where = place(address, chosen.port)
        link = http.client.HTTPConnection(address, chosen.port, timeout=self.door.timeout)
        try:
            link.request("GET", "/health")
            told = json.loads(link.getresponse().read(65536))
        except (OSError, http.client.HTTPException) as error:
            said = getattr(error, "strerror", None) or type(error).__name__
            return {"problem": f"the collector does not answer at {where}: {said}"}
        except ValueError:
            told = None
        finally:
            link.close()
        if not isinstance(told, dict) or not {"status", "reader", "dropped", "history"} <= told.keys():
            return {"problem": f"what answers at {where} is no collector: give it a port of its own"}
        return told

    @staticmethod
    def _why(told: dict[str, Any]) -> str:
        if told["reader"] != "reading":
            return f"the broker is not read: {told['reader']}"
        return "the counting stands still" if told.get("counting") != "ok" else "a part of it has ended"
