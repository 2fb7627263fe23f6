"""What all handlers share that answer from the history."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import tornado.web
from tornado.web import HTTPError

from flowerbed.history.problems import HistoryError
from flowerbed.history.query import Query, Task
from flowerbed.history.search import SearchError
from flowerbed.redact import Redactor
from flowerbed.web.history import History
from flowerbed.web.history_health import CollectorHealth
from flowerbed.web.history_tasks import masked

#: where the application keeps what its handlers share
SHARED = "flowerbed_history"
#: no history has so many tasks, and every database takes the number
MOST_TASKS = 10**12

_Answer = TypeVar("_Answer")


@dataclass
class Shared:
    """What the handlers of one Flower share."""

    history: History
    health: CollectorHealth
    redactor: Redactor
    #: how many tasks the history had when it was last asked
    total: int = 0


class FromHistory(tornado.web.RequestHandler):
    """What handlers of the history share; to be put before a class of Flower's."""

    application: Any
    #: for guard.py: what a viewer may ask
    viewer_methods: tuple[str, ...] = ("GET",)

    @property
    def shared(self) -> Shared:
        """The one of this Flower."""
        value: Shared = self.application.settings[SHARED]
        return value

    async def ask(self, question: Callable[[Query], _Answer]) -> _Answer:
        """The history's answer; raises HistoryError or SearchError."""
        return await self.shared.history.ask(str(self.current_user), question)

    async def look_up(self, question: Callable[[Query], _Answer]) -> _Answer:
        """The answer to a question that is no search; raises HistoryError only."""
        try:
            return await self.ask(question)
        except SearchError as error:
            raise HistoryError("other", str(error)) from None

    def given(self, name: str, default: str = "") -> str:
        """An argument as it came; Flower's own get_argument() escapes for HTML."""
        return tornado.web.RequestHandler.get_argument(self, name, default)

    def given_number(self, name: str, default: str = "") -> int:
        """An argument that is a whole number; 400 when it is none."""
        try:
            return int(self.given(name, default))
        except ValueError:
            raise HTTPError(400, f"{name} must be a whole number.") from None

    def masked(self, tasks: Iterable[Task]) -> list[Task]:
        """Tasks as they may be shown."""
        return [masked(task, self.shared.redactor) for task in tasks]
