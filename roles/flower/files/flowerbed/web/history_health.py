"""Whether the collector works, by its own word, so that the pages can say that their tasks are not the newest."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from tornado.httpclient import HTTPClientError
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from flowerbed.addresses import place, reachable
from flowerbed.settings import Collector

#: how long an answer is good, and how long it is waited for, in seconds
FRESH_SECONDS, SECONDS = 5.0, 2.0
#: bytes of an answer
MAX_ANSWER = 65536


class CollectorHealth:
    """The collector's /health; for one event loop."""

    def __init__(self, collector: Collector) -> None:
        self.where = place(reachable(collector.address), collector.port)
        self._client: Any = None
        self._looked = float("-inf")
        self._problem: str | None = None
        self._looking: asyncio.Task[None] | None = None

    async def problem(self) -> str | None:
        """What keeps tasks from being remembered now, one sentence; None when all is well.

        An old answer is given while a new one is fetched; only the very first is waited for.
        """
        if time.monotonic() - self._looked > FRESH_SECONDS and self._looking is None:
            self._looking = asyncio.create_task(self._look())
        if self._looked == float("-inf") and self._looking is not None:
            await asyncio.shield(self._looking)
        return self._problem

    async def _look(self) -> None:
        try:
            self._problem = await self._asked()
        finally:
            self._looked, self._looking = time.monotonic(), None

    async def _asked(self) -> str | None:
        if self._client is None:
            defaults = {"connect_timeout": SECONDS, "request_timeout": SECONDS, "follow_redirects": False}
            self._client = SimpleAsyncHTTPClient(force_instance=True, max_body_size=MAX_ANSWER, defaults=defaults)
        try:
            answer = await self._client.fetch(f"http://{self.where}/health", raise_error=False)
            told = json.loads(answer.body) if answer.code in (200, 503) else None
        except (HTTPClientError, OSError, ValueError, RecursionError):
            told = None
        if not isinstance(told, dict) or "history" not in told:
            return f"The collector does not answer at {self.where}."
        return problem_of(told)


def problem_of(told: dict[str, Any]) -> str | None:
    """The same of an answer of the collector's."""
    history = str(told["history"])
    if history == "off":
        return "The collector keeps no history."
    if history == "opening":
        return "The collector has not opened the history yet."
    if history != "ok":
        return f"The collector has paused the history. {history}"
    if told.get("status") != "ok":
        if told.get("counting") not in ("ok", None):
            return "The collector is stuck."
        return f"The collector does not hear the broker: {str(told.get('reader')).rstrip('.')}."
    return None
