"""The tree of a task on its page: who sent whom, with states, and times on one line.

Celery's events tell of a task its parent, that is the task that sent it, and its root; no event tells of groups, chains
and chords.  So these are shown as they come out of that: what one task sent stands side by side, one step in; a task
that is the only one its parent sent follows it, as in a chain; and one that was sent when all beside its parent had
ended stands behind them, as the body of a chord does.  Rows are text with bars beside it, without a script.
"""

from __future__ import annotations

import datetime
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tornado.template import Loader

from flowerbed.history.query import Task, Tree

#: levels that are shown one step in each; what is deeper stays there
DEEPEST = 8
#: clocks of hosts differ, and a task sends others a moment before its own end is told, in seconds
TOLERANCE = 0.5
#: Flower's badges of states, and bars in the same colours
BADGES = {
    "SUCCESS": ("text-bg-success", "bg-success"),
    "FAILURE": ("text-bg-danger", "bg-danger"),
    "RETRY": ("text-bg-warning", "bg-warning"),
    "STARTED": ("task-state-started bg-primary", "task-state-started bg-primary"),
}
_OTHER_BADGE = ("text-bg-secondary", "bg-secondary")

_templates = Loader(str(Path(__file__).with_name("templates")))


@dataclass(frozen=True)
class Bar:
    """A part of the time line, in percent of it."""

    left: float
    width: float


@dataclass(frozen=True)
class Row:
    """A task in the tree."""

    task: Task
    #: steps in
    level: int
    #: who sent it
    relation: str
    #: "waited 1.20 s, ran 10.00 ms, on celery@host"
    times: str
    waiting: Bar | None
    running: Bar | None

    @property
    def badge(self) -> str:
        """Classes of the state's badge."""
        return BADGES.get(self.task.state, _OTHER_BADGE)[0]

    @property
    def colour(self) -> str:
        """Classes of the bar."""
        return BADGES.get(self.task.state, _OTHER_BADGE)[1]


def page(tree: Tree, this: str, link: Callable[[str, str], str], zone: datetime.tzinfo) -> bytes:
    """The tree as HTML, with the task `this` marked in it; `link` is Tornado's reverse_url."""
    began, ended, rows = lines(tree.tasks, time.time())
    html: bytes = _templates.load("tree.html").generate(
        rows=rows,
        this=this,
        link=link,
        cut=tree.cut,
        began=datetime.datetime.fromtimestamp(began, zone).strftime("%Y-%m-%d %H:%M:%S %Z"),
        duration=lasting(ended - began),
    )
    return html


def lines(tasks: Sequence[Task], now: float) -> tuple[float, float, list[Row]]:
    """Begin and end of the time line, in seconds since 1970, and a row for each task."""
    began = min(_began(task) for task in tasks)
    ended = max(began, *(_ended(task, now) for task in tasks))

    def bar(start: float, end: float) -> Bar:
        scale = 100 / (ended - began) if ended > began else 0.0
        left, right = ((min(max(moment, began), ended) - began) * scale for moment in (start, end))
        return Bar(left, max(right - left, 0.0))

    rows = []
    for task, level, relation in ordered(tasks):
        start, end = _began(task), _ended(task, now)
        waiting = bar(start, end if task.started is None else task.started)
        running = None if task.started is None else bar(task.started, end)
        rows.append(Row(task, level, relation, _times(task, now), waiting, running))
    return began, ended, rows


def ordered(tasks: Iterable[Task]) -> Iterator[tuple[Task, int, str]]:
    """Every task once, in the order of its row, with its level and who sent it; parents may be unknown or a circle."""
    known = {task.id: task for task in tasks}
    by_time = sorted(known.values(), key=lambda task: (_began(task), task.id))
    sent_by: defaultdict[str, list[Task]] = defaultdict(list)
    for task in by_time:
        sent_by[task.parent_id or ""].append(task)
    first = [task for task in by_time if task.parent_id not in known or task.parent_id == task.id]
    # what was not reached at the end is a circle of parents, which has no first
    stack = [(task, 0, "") for task in reversed(by_time)] + [
        (task, 0, _unknown_sender(task)) for task in reversed(first)
    ]
    shown: set[str] = set()
    later: set[str] = set()
    while stack:
        task, level, relation = stack.pop()
        if task.id in shown:
            continue
        shown.add(task.id)
        yield task, min(level, DEEPEST), relation
        children = [child for child in sent_by[task.id] if child.id not in later]
        sender = f"sent by {task.id[:8]}"
        if len(children) == 1:
            stack.append((children[0], level, sender))
            continue
        if body := _body(children, sent_by):
            later.add(body.id)
            last = (body.parent_id or "")[:8]
            stack.append((body, level, f"sent by {last} when all beside it had ended, as the body of a chord is"))
        stack += [(child, level + 1, sender) for child in reversed(children)]


def _body(header: Sequence[Task], sent_by: defaultdict[str, list[Task]]) -> Task | None:
    """The task that was sent by one of these when the others had ended; None when there is none, or several."""
    sent = [child for task in header for child in sent_by[task.id]]
    if len(header) < 2 or len(sent) != 1:
        return None
    others = [task for task in header if task.id != sent[0].parent_id]
    ends = [task.succeeded for task in others if task.succeeded is not None]
    has_waited = len(ends) == len(others) and max(ends) <= _began(sent[0]) + TOLERANCE
    return sent[0] if has_waited else None


def _unknown_sender(task: Task) -> str:
    if not task.parent_id or task.parent_id == task.id:
        return ""
    return f"sent by {task.parent_id[:8]}, which is not in the history"


def _began(task: Task) -> float:
    """The first that is known of a task."""
    times = (task.sent, task.received, task.started, task.finished)
    return min((moment for moment in times if moment is not None), default=task.seen)


def _ended(task: Task, now: float) -> float:
    """The end of a task, or how far it has come."""
    if task.finished is not None:
        return task.finished
    return max(task.updated if task.lost else now, _began(task))


def _times(task: Task, now: float) -> str:
    said = []
    if task.wait_seconds is not None:
        said.append(f"waited {lasting(task.wait_seconds)}")
    if task.runtime_seconds is not None:
        said.append(f"ran {lasting(task.runtime_seconds)}")
    elif task.lost:
        said.append("its worker is gone")
    elif task.finished is None and task.state in ("PENDING", "RECEIVED"):
        said.append(f"waits since {lasting(now - _began(task))}")
    elif task.state == "STARTED" and task.started is not None:
        said.append(f"runs since {lasting(now - task.started)}")
    if task.retries:
        said.append("1 retry" if task.retries == 1 else f"{task.retries} retries")
    if task.worker:
        said.append(f"on {task.worker}")
    return ", ".join(said)


def lasting(seconds: float) -> str:
    """A duration for people, as Flower 2.2 writes it."""
    seconds = max(seconds, 0.0)
    if seconds < 1:
        return f"{seconds * 1000:.2f} ms"
    if seconds < 60:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02d}m {rest:02d}s" if hours else f"{minutes}m {rest:02d}s"
