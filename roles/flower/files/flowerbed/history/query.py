"""Reads the history: pages of tasks, one task, trees of tasks.  Never creates, upgrades or writes a database.

Every question has its time: what is not answered by then ends in a HistoryError or SearchError of one sentence, or in a
Page that says how far back it has looked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flowerbed.history.conditions import Conditions
from flowerbed.history.paging import Pages
from flowerbed.history.problems import HistoryError
from flowerbed.history.reading import Reading, Session
from flowerbed.history.rows import MOST_VALUES, Page, Task, Tree, tasks, values
from flowerbed.history.search import Search, SearchError, check
from flowerbed.history.words import file_of

__all__ = ["SORTS", "HistoryError", "Page", "Query", "Search", "SearchError", "Task", "Tree"]

#: columns that a page can be sorted by
SORTS = (
    "name",
    "state",
    "queue",
    "worker",
    "id",
    "received",
    "started",
    "finished",
    "runtime_seconds",
    "retries",
    "seen",
)
#: what a page, and anything else, may take, in seconds
PAGE_SECONDS, OTHER_SECONDS = 1.5, 2.0
#: the most tasks of a page, and of a tree, and what is as far as any other number
MOST_TASKS, MOST_OF_A_TREE, DEEPEST = 10_000, 500, 10**12


class Query:
    """The history at a URL, for reading; may be used by several threads.  Errors: HistoryError and SearchError."""

    def __init__(self, url: str) -> None:
        """Connects when it is first asked; raises SettingsError for a URL that can never work."""
        self._reading = Reading(url)
        self._words = file_of(url)

    def page(
        self, search: Search, *, sort: str = "received", descending: bool = True, offset: int = 0, limit: int = 25
    ) -> Page:
        """The tasks that match, sorted by a column of SORTS; without a value first when ascending, else last."""
        if sort not in SORTS:
            raise SearchError(f"Tasks cannot be sorted by {sort[:40]}.")
        for value in (search.name, search.state, search.worker, search.queue):
            check(value or "")
        with self._reading.session(PAGE_SECONDS) as session:
            return Pages(session, self._words, search, sort, descending).page(
                max(offset, 0), min(max(limit, 0), MOST_TASKS)
            )

    def task(self, uuid: str) -> Task | None:
        """One task; None when it is not known."""
        with self._reading.session(OTHER_SECONDS) as session:
            return next(iter(tasks(session, "id = :id", {"id": uuid})), None) if _is_text(uuid) else None

    def latest(self) -> float | None:
        """When the collector last saw a new task (seconds since 1970); None when there are none."""
        with self._reading.session(OTHER_SECONDS) as session:
            found: float | None = session.fetch("SELECT max(seen) FROM tasks")[0][0]
            return found

    def children(self, ids: Sequence[str]) -> dict[str, list[str]]:
        """The ids of the children of tasks, 500 at the most of all together; only of tasks that have some."""
        asked = Conditions(self._reading.is_sqlite)
        parents = tuple(dict.fromkeys(uuid for uuid in ids if _is_text(uuid)))[:MOST_TASKS]
        found: dict[str, list[str]] = {}
        if parents:
            where = f"{asked.one_of('parent_id', parents)} ORDER BY parent_id LIMIT {MOST_OF_A_TREE}"
            with self._reading.session(OTHER_SECONDS) as session:
                for parent, uuid in session.fetch(f"SELECT parent_id, id FROM tasks WHERE {where}", asked.parameters):  # noqa: S608 - values are bound
                    found.setdefault(parent, []).append(uuid)
        return found

    def types(self) -> list[str]:
        """The names of the tasks that are there, sorted; of very many the first 2,000."""
        with self._reading.session(OTHER_SECONDS) as session:
            return values(session, "name")[:MOST_VALUES]

    def workers(self) -> list[str]:
        """The workers of the tasks that are there, likewise."""
        with self._reading.session(OTHER_SECONDS) as session:
            return values(session, "worker")[:MOST_VALUES]

    def tree(self, uuid: str) -> Tree:
        """The task with all of its root; of more than 500 those nearest to the task.

        Relatives are those of the same root; of the same group, as are the parts of a chord; and children.
        """
        with self._reading.session(OTHER_SECONDS) as session:
            return _tree(session, uuid)

    def close(self) -> None:
        """Closes the connections; never raises."""
        self._reading.close()


def _is_text(value: str) -> bool:
    try:
        check(value)
    except SearchError:
        return False
    return True


def _tree(session: Session, uuid: str) -> Tree:
    found = tasks(session, "id = :id", {"id": uuid}) if _is_text(uuid) else []
    root = (found[0].root_id if found else None) or uuid
    near = {task.id: task for task in found}
    most = MOST_OF_A_TREE + 1

    def add(where: str, parameters: dict[str, Any]) -> None:
        if len(near) < most and (found or _is_text(uuid)):
            # the sum keeps the index of `seen` from being taken for the order, which would be gone through as a whole
            limited = f"{where} ORDER BY seen + 0 LIMIT {most}"
            near.update((task.id, task) for task in tasks(session, limited, parameters) if len(near) < most)

    add("id = :root", {"root": root})
    # the nearest first
    for task in found:
        add("id = :parent", {"parent": task.parent_id})
    add("parent_id = :id", {"id": uuid})
    for task in found:
        add("group_id = :group", {"group": task.group_id})
    add("root_id = :root AND root_id <> id", {"root": root})
    chosen = sorted(list(near.values())[:MOST_OF_A_TREE], key=lambda task: (task.received or task.seen, task.id))
    return Tree(root, chosen, len(near) > MOST_OF_A_TREE)
