"""Tasks of the history as Celery's own State has them, so that Flower's templates, JSON and `format_task` fit.

What the history does not keep is as in a task that Celery knows nothing of: exchange and routing_key are None, the
clock is 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from celery.events.state import Task as CeleryTask
from celery.events.state import Worker

from flowerbed.history.query import Task
from flowerbed.redact import TASK_FIELDS, Redactor

#: state -> the time that is Flower's `timestamp` of it
_TIMES = {
    "PENDING": "sent",
    "RECEIVED": "received",
    "STARTED": "started",
    "RETRY": "retried",
    "SUCCESS": "succeeded",
    "FAILURE": "failed",
    "REVOKED": "revoked",
    "REJECTED": "rejected",
}
#: Celery's names that are ours too
_SAME = (
    *("name", "state", "received", "sent", "started", "rejected", "succeeded", "failed", "retried", "revoked"),
    *("args", "kwargs", "eta", "expires", "retries", "result", "exception", "traceback", "root_id", "parent_id"),
)


def masked(task: Task, redactor: Redactor) -> Task:
    """The task with its texts masked by the rules of today; those of the day it was written are in it already."""
    texts = {field: getattr(task, field) for field in TASK_FIELDS}
    changed = {field: redactor.field(task.name, field, text) for field, text in texts.items() if text is not None}
    changed = {field: text for field, text in changed.items() if text != texts[field]}
    return msgspec.structs.replace(task, **changed) if changed else task


def timestamp_of(task: Task) -> float:
    """When the event came that says the state, by the sender's clock."""
    moment: float | None = getattr(task, _TIMES.get(task.state, "updated"))
    return task.updated if moment is None else moment


def celery_task(
    task: Task,
    *,
    children: Iterable[Any] = (),
    parent: Any = None,
    root: Any = None,
    workers: Mapping[str, Any] | None = None,
) -> Any:
    """Celery's Task; `children`, `parent` and `root` are such tasks, `workers` those that are known by their name."""
    made = CeleryTask(task.id, **{name: getattr(task, name) for name in _SAME})
    # one that was only sent has no worker, and Flower has none of it then
    worker = None if task.worker is None else (workers or {}).get(task.worker) or Worker(task.worker)
    made.__dict__.update(
        worker=worker,
        client=task.producer,
        runtime=task.runtime_seconds,
        timestamp=timestamp_of(task),
        # Celery has sets of weak references and looks into the memory; both would be empty
        children=list(children),
        parent=parent,
        root=root,
    )
    return made


def as_dict(task: Task, children: Sequence[str] = ()) -> dict[str, Any]:
    """The fields of a task in the JSON of Flower's API, with the worker's name; `lost` only where it is."""
    fields: dict[str, Any] = celery_task(task).as_dict()
    fields.update(worker=task.worker, children=list(children))
    if task.lost:
        fields["lost"] = True
    return fields
