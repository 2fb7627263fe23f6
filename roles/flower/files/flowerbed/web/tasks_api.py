"""Flower's API of tasks, answered from the history: handlers in front of Flower's own, for the same routes.

An answer that is not what it would be with a history that works and is up to date says so in the header HEADER.
"""

from __future__ import annotations

import datetime
import time
from dataclasses import replace
from typing import Any

import flower.api.tasks
from tornado.escape import json_encode
from tornado.web import HTTPError, authenticated

from flowerbed.history.problems import HistoryError
from flowerbed.history.query import Page, Query
from flowerbed.history.search import Search, SearchError, parse
from flowerbed.web.history_handler import MOST_TASKS, FromHistory
from flowerbed.web.history_tasks import as_dict, masked

#: what is sorted by, as Flower's
SORTS = ("name", "state", "received", "started")
#: tasks of one answer, which Flower gives without a limit: one may be of 20 kB
MOST_ROWS = 1000
HEADER = "Flowerbed-History"


class FromHistoryApi(FromHistory):
    """What handlers of the API share."""

    async def tell_script(
        self, error: HistoryError | None = None, *, is_cut: bool = False, searched_back_to: float | None = None
    ) -> None:
        """Says in a header what is not as it should be: `unavailable (locked)`, `stale`, `cut at 1000 tasks` …"""
        said = []
        if error is not None:
            said.append(f"unavailable ({error.kind})")
        elif await self.shared.health.problem() is not None:
            said.append("stale")
        if is_cut:
            said.append(f"cut at {MOST_ROWS} tasks")
        if searched_back_to is not None:
            moment = datetime.datetime.fromtimestamp(searched_back_to, datetime.timezone.utc)
            said.append(f"searched back to {moment:%Y-%m-%dT%H:%M:%SZ}")
        if said:
            self.set_header(HEADER, ", ".join(said))


class ListTasks(FromHistoryApi, flower.api.tasks.ListTasks):  # type: ignore[misc]
    """/api/tasks."""

    @authenticated
    async def get(self) -> None:
        """Tasks by their id; 400 for wrong arguments, with {"error": ...} for a wrong search as Flower's."""
        limit = self.given_number("limit", str(MOST_ROWS))
        offset = min(max(self.given_number("offset", "0"), 0), MOST_TASKS)
        sort = self.given("sort_by")
        if sort and sort.lstrip("-") not in SORTS:
            raise HTTPError(400, f"Invalid sort_by, expected one of {', '.join(SORTS)}")
        try:
            search = self.search()
            # Flower's order without sort_by is the newest first, too
            order = {"sort": sort.lstrip("-"), "descending": sort.startswith("-")} if sort else {}
            most = min(max(limit, 0), MOST_ROWS)
            text, page = await self.ask(lambda query: self.answer(query, search, order, offset, most))
        except SearchError as error:
            self.set_status(400)
            self.write({"error": str(error)})
        except HistoryError as error:
            await self.tell_script(error)
            super().get()
        else:
            is_cut = page.matching > offset + most and (limit > most or not self.given("limit"))
            await self.tell_script(is_cut=is_cut, searched_back_to=page.searched_back_to)
            self.set_header("Content-Type", "application/json; charset=UTF-8")
            self.write(text)

    def search(self) -> Search:
        """What is asked for; raises SearchError, or HTTPError for times that are none."""
        name, state, worker = (self.given(name) for name in ("taskname", "state", "workername"))
        search = parse(self.given("search"), time.time())
        starts = [moment for moment in (search.received_from, self.given_time("received_start")) if moment is not None]
        ends = [moment for moment in (search.received_until, self.given_time("received_end")) if moment is not None]
        return replace(
            search,
            # "All" is what Flower's forms once sent
            name=name if name not in ("", "All") else None,
            state=state if state not in ("", "All") else None,
            worker=worker if worker not in ("", "All") else None,
            received_from=max(starts, default=None),
            received_until=min(ends, default=None),
        )

    def given_time(self, name: str) -> float | None:
        """A time of this host's zone, in Flower's form; 400 for any other."""
        if not (text := self.given(name)):
            return None
        try:
            return time.mktime(time.strptime(text, "%Y-%m-%d %H:%M"))
        except (ValueError, OverflowError):
            raise HTTPError(400, f"Invalid {name}, expected format 'YYYY-MM-DD HH:MM'") from None

    def answer(self, query: Query, search: Search, order: dict[str, Any], offset: int, limit: int) -> tuple[str, Page]:
        """The answer as text; in a thread of the history's, since it may be long."""
        page = query.page(search, offset=offset, limit=limit, **order)
        children = query.children([task.id for task in page.tasks])
        found = {}
        for task in self.masked(page.tasks):
            fields = found[task.id] = as_dict(task, children.get(task.id, ()))
            # as Flower does it here: at the end, and only where there is one
            if (worker := fields.pop("worker")) is not None:
                fields["worker"] = worker
        return json_encode(found), page


class ListTaskTypes(FromHistoryApi, flower.api.tasks.ListTaskTypes):  # type: ignore[misc]
    """/api/task/types."""

    @authenticated
    async def get(self) -> None:
        """The names of all tasks that are remembered, also in memory."""
        try:
            names = await self.look_up(Query.types)
        except HistoryError as error:
            await self.tell_script(error)
            super().get()
            return
        await self.tell_script()
        self.write({"task-types": sorted({*names, *self.application.events.state.task_types()})})


class TaskInfo(FromHistoryApi, flower.api.tasks.TaskInfo):  # type: ignore[misc]
    """/api/task/info/ID."""

    @authenticated
    async def get(self, taskid: str) -> None:
        """One task; Flower's own answer for one that the history does not have, or not yet."""
        try:
            task, relatives = await self.look_up(lambda query: (query.task(taskid), query.tree(taskid)))
        except HistoryError as error:
            await self.tell_script(error)
            super().get(taskid)
            return
        await self.tell_script()
        if task is None:
            super().get(taskid)
            return
        children = [other.id for other in relatives.tasks if other.parent_id == task.id]
        self.write(as_dict(masked(task, self.shared.redactor), children))
