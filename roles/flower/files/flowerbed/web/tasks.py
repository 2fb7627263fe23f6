"""Flower's pages of tasks, answered from the history: handlers in front of Flower's own, for the same routes.

Each is a subclass of the handler that it stands in for.  Where the history cannot answer, that one does, from Flower's
memory, and the page says why.  Flower's templates stay as they are: what is ours is put into their HTML.
"""

from __future__ import annotations

import datetime
import logging
import re
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import flower.views.tasks
from tornado.template import Loader
from tornado.web import HTTPError, authenticated, url

from flowerbed.history.problems import HistoryError
from flowerbed.history.query import Page, Query, Task
from flowerbed.history.search import Search, SearchError, parse
from flowerbed.redact import Redactor
from flowerbed.settings import Settings
from flowerbed.web import tasks_api, tree
from flowerbed.web.history import History
from flowerbed.web.history_handler import MOST_TASKS, SHARED, FromHistory, Shared
from flowerbed.web.history_health import CollectorHealth
from flowerbed.web.history_tasks import celery_task, masked, timestamp_of

#: Flower's columns -> what the history sorts by
SORTS = {
    "name": "name",
    "uuid": "id",
    "state": "state",
    "received": "received",
    "started": "started",
    "runtime": "runtime_seconds",
    "worker": "worker",
    "retries": "retries",
}
#: Flower's other columns, which it sorts in its memory
UNSORTED = ("args", "kwargs", "result", "exchange", "routing_key", "revoked", "exception", "expires", "eta")
#: rows of one page, as in the menu of Flower's table
MOST_ROWS = 100
#: what is not answered by the history, told to people
FALLBACK = "These are the tasks that Flower itself has in memory."

#: Flower's templates of whole pages that these handlers show; parts of pages are templates too
WHOLE_PAGES = ("tasks.html", "task.html", "404.html", "error.html")
#: places in Flower's pages: before all they show, before the table, and behind all they show; 2.0 has no <main>
_TOP = re.compile(r"<main\b[^>]*>|<div id=\"alert-container\"></div>\s*<input[^>]*>\s*</div>")
_TABLE = re.compile(r"(?=<table id=\"tasks-table\")")
_BOTTOM = re.compile(r"(?=</main>|<script src=\"[^\"]*bootstrap)")
_SYNTAX_LINK = re.compile(r"<a href=\"https://flower\.readthedocs\.io/[^\"]*tasks_filter\.html\"[^>]*>")
_COLUMN = re.compile(rf"(<th data-column=\"(?:{'|'.join(UNSORTED)})\")")

logger = logging.getLogger(__name__)
_templates = Loader(str(Path(__file__).with_name("templates")))


def put_in_front(place: str, settings: Settings, handlers: list[Any], application: dict[str, Any]) -> None:
    """Puts our handlers before Flower's; `place` is the URL of the history.

    AttributeError and ImportError, also when this module is imported, mean that this Flower is not as expected.
    """
    application[SHARED] = Shared(History(place), CollectorHealth(settings.collector), Redactor(settings.redact))
    # without names, which would take over Flower's links
    handlers[0:0] = [
        url(r"/task/(.+)", TaskView),
        url(r"/tasks", TasksView),
        url(r"/tasks/datatable", TasksDataTable),
        url(r"/api/tasks", tasks_api.ListTasks),
        url(r"/api/task/types", tasks_api.ListTaskTypes),
        url(r"/api/task/info/(.*)", tasks_api.TaskInfo),
    ]


class HistoryPage(FromHistory):
    """A page of Flower's with notices, and what else is put into it."""

    def initialize(self) -> None:
        """Called by Tornado for each request."""
        #: sentences to show above all
        self.notices: list[str] = []
        #: HTML behind all that Flower shows
        self.below = b""

    def unavailable(self, error: HistoryError) -> None:
        """Says why Flower's own tasks are shown."""
        self.notices.append(f"{error} {FALLBACK}")

    async def tell_if_stale(self, newest: float | None) -> bool:
        """Says so when what is shown may not be the newest; `newest` is when the history last had a new task."""
        problem = await self.shared.health.problem()
        if problem is None:
            return False
        if newest is not None:
            zone = self.application.capp.timezone
            moment = datetime.datetime.fromtimestamp(newest, zone).strftime("%Y-%m-%d %H:%M:%S %Z")
            problem += f" The newest task in the history is of {moment}."
        self.notices.append(problem)
        return True

    def render_string(self, template_name: str, **kwargs: Any) -> bytes:
        """Flower's page with what is ours."""
        page = super().render_string(template_name, **kwargs)
        if template_name not in WHOLE_PAGES:
            return page
        html = page.decode()
        if template_name == "tasks.html":
            html = _SYNTAX_LINK.sub('<a href="#search-help">', html)
            # the table's script then offers no sorting by these
            html = _COLUMN.sub(r'\1 data-orderable="false"', html)
            html = _put(html, _TABLE, _templates.load("search_help.html").generate())
        if self.below:
            html = _put(html, _BOTTOM, self.below)
        if self.notices:
            html = _put(html, _TOP, _templates.load("history_notices.html").generate(notices=self.notices))
        return html.encode()


def _put(html: str, place: re.Pattern[str], piece: bytes) -> str:
    """The page with a piece in its place; as it was when this Flower has no such place."""
    found = place.search(html)
    if found is None:
        logger.warning("This Flower's page has no place for what belongs there: %s", place.pattern)
        return html
    return html[: found.end()] + piece.decode() + html[found.end() :]


class TasksView(HistoryPage, flower.views.tasks.TasksView):  # type: ignore[misc]
    """The page with the table of tasks, which asks for its rows itself."""

    @authenticated
    async def get(self) -> None:
        """The page, and whether its rows will come from the history."""
        try:
            await self.tell_if_stale(await self.look_up(Query.latest))
        except HistoryError as error:
            self.unavailable(error)
        super().get()


@dataclass(frozen=True)
class TableQuery:
    """What the table's script asks for."""

    draw: int
    start: int
    length: int
    text: str
    column: str
    descending: bool


class TasksDataTable(FromHistory, flower.views.tasks.TasksDataTable):  # type: ignore[misc]
    """The rows of the table, as the script of DataTables asks for them."""

    viewer_methods = ("GET", "POST")
    #: shown above the table, where Flower shows what is wrong with a search
    note = ""

    @authenticated
    async def get(self) -> None:
        """A page of rows; 400 for arguments that no page of Flower's sends."""
        await self.answer()

    @authenticated
    async def post(self) -> None:
        """The same: a query may be too long for a URL."""
        await self.answer()

    async def answer(self) -> None:
        """Answers both."""
        asked = self.table_query()
        try:
            search = parse(asked.text, time.time())
            page = await self.ask(lambda query: self.page(query, search, asked))
        except SearchError as error:
            total = self.shared.total
            nothing = {"draw": asked.draw, "data": [], "recordsTotal": total, "recordsFiltered": 0}
            self.write({**nothing, "searchError": str(error)})
        except HistoryError as error:
            self.note = f"{error} {FALLBACK}"
            super().get()
        else:
            self.shared.total = page.total
            self.note = self.said_of(page, asked)
            rows = [self.row(task) for task in page.tasks]
            totals = {"recordsTotal": page.total, "recordsFiltered": page.matching}
            self.write({"draw": asked.draw, "data": rows, **totals})

    def write(self, chunk: Any) -> None:
        """Adds what is to be said above the table, also to Flower's own rows."""
        if self.note and isinstance(chunk, dict) and "data" in chunk:
            chunk = {"searchError": self.note, **chunk}
        super().write(chunk)

    def table_query(self) -> TableQuery:
        """The arguments; 400 for those that are missing or impossible."""
        number = self.given_number("order[0][column]")
        column = self.given(f"columns[{number}][data]")
        if column not in SORTS and column not in UNSORTED:
            raise HTTPError(400, "order[0][column] must be the number of a column.")
        return TableQuery(
            draw=self.given_number("draw"),
            start=min(max(self.given_number("start"), 0), MOST_TASKS),
            length=min(max(self.given_number("length"), 0), MOST_ROWS),
            text=self.given("search[value]"),
            column=column,
            descending=self.given("order[0][dir]") == "desc",
        )

    def page(self, query: Query, search: Search, asked: TableQuery) -> Page:
        """The tasks that are asked for; in a thread of the history's."""
        sort = SORTS.get(asked.column)
        order = {"sort": sort, "descending": asked.descending} if sort else {}
        page = query.page(search, offset=asked.start, limit=asked.length, **order)  # type: ignore[arg-type]
        return replace(page, tasks=self.masked(page.tasks))

    def said_of(self, page: Page, asked: TableQuery) -> str:
        """What must be known of a page of rows to understand it; mostly nothing."""
        if page.searched_back_to is not None:
            zone = self.application.capp.timezone
            moment = datetime.datetime.fromtimestamp(page.searched_back_to, zone).strftime("%Y-%m-%d %H:%M %Z")
            return f"To answer in time, only tasks since {moment} were looked at: narrow the search to see older ones."
        if asked.column in UNSORTED:
            return f"The history is not sorted by {asked.column}: these are sorted by the time they were received."
        return ""

    def row(self, task: Task) -> dict[str, Any]:
        """A row as Flower has it, seen by its hook `format_task`."""
        shown = self.format_task((task.id, celery_task(task)))[1]
        fields: dict[str, Any] = shown.as_dict()
        fields["worker"] = getattr(fields.get("worker"), "hostname", fields.get("worker"))
        if task.lost and fields.get("state") == task.state:
            fields["state"] = f"{task.state} (lost)"
        return fields


class TaskView(HistoryPage, flower.views.tasks.TaskView):  # type: ignore[misc]
    """The page of one task, with the tree it is part of."""

    @authenticated
    async def get(self, task_id: str) -> None:
        """The page; Flower's own for a task that the history does not have, or not yet."""
        memory = self.application.events.state
        remembered = memory.tasks.get(task_id)
        try:
            task, relatives, newest = await self.look_up(
                lambda query: (query.task(task_id), query.tree(task_id), query.latest())
            )
        except HistoryError as error:
            self.unavailable(error)
            super().get(task_id)
            return
        is_stale = await self.tell_if_stale(newest)
        if facts := [] if task is None else facts_of(task):
            self.below = _templates.load("task_more.html").generate(facts=facts)
        if len(relatives.tasks) > 1:
            self.below += tree.page(relatives, task_id, self.reverse_url, self.application.capp.timezone)
        is_older = task is not None and remembered is not None and timestamp_of(task) < (remembered.timestamp or 0)
        if task is None or (is_stale and is_older):
            super().get(task_id)
            return
        task = masked(task, self.shared.redactor)
        if task.lost:
            self.notices.append(
                "This task is lost: it was started, and its worker was not heard of again before it had ended."
            )
        self.render(
            "task.html",
            task=self.format_task(self.with_relatives(task, relatives.tasks, memory.workers)),
            # Flower 2.0 knows no such option
            read_only=getattr(self.application.options, "read_only", False),
        )

    def with_relatives(self, task: Task, relatives: list[Task], workers: Any) -> Any:
        """Celery's Task with its parent, root and children."""
        known = {other.id: celery_task(other) for other in relatives}
        return celery_task(
            task,
            children=[known[other.id] for other in relatives if other.parent_id == task.id],
            parent=known.get(task.parent_id or ""),
            root=known.get(task.root_id or ""),
            # its least recently used entry stays what it was
            workers=getattr(workers, "data", workers),
        )


def facts_of(task: Task) -> list[tuple[str, str]]:
    """What the history knows of a task beside what Flower shows, with names for it."""
    waited = None if task.wait_seconds is None else tree.lasting(task.wait_seconds)
    facts = {"Queue": task.queue, "Waited": waited, "Group": task.group_id, "Tags": task.tags}
    return [(name, value) for name, value in facts.items() if value]
