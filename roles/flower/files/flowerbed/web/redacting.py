"""Masks what tasks carry before any of Flower's own code keeps it or shows it.

Four places let data in: events, the state file of an earlier run, the answers of workers, and the result backend.  Each
is a method of Flower's that is replaced here.  What lies behind them (pages, API, search, the state file that is
written) then holds nothing to be masked.  The fifth is the log.
"""

# ruff: noqa: PLC0415  # late imports: Flower and Celery act when imported, and not every command needs them
from __future__ import annotations

import inspect
import logging
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from flowerbed.redact import MASK, SECRET_NAMES, TASK_FIELDS, Redactor
from flowerbed.settings import Redact, SettingsError

#: what a worker tells of its tasks; the rest is what it tells of itself
REQUESTS = ("active", "reserved", "scheduled")
#: what holds names of tasks and queues only, which the pages need as they are
NAMES_ONLY = ("registered", "active_queues")


def redact_flower(redact: Redact) -> None:
    """Puts the masking into Flower; raises SettingsError when Flower is not as expected, or the settings are wrong."""
    tasks, workers = Redactor(redact), Redactor(redact, SECRET_NAMES)
    try:
        _hook(tasks, workers)
    except (AttributeError, ImportError) as error:
        raise SettingsError(f"What this Flower's tasks show cannot be masked by the add-on: {error}.") from None
    _mask_log(tasks, workers)


def _hook(tasks: Redactor, workers: Redactor) -> None:
    from flower.api.tasks import BaseTaskHandler
    from flower.events import Events, EventsState
    from flower.inspector import Inspector

    flowers_event = _method(EventsState, "event", "event")
    flowers_init = _method(Events, "__init__", "capp", "io_loop")
    flowers_update = _method(Inspector, "_on_update", "workername", "method", "response")
    flowers_result = _method(BaseTaskHandler, "update_response_result", "response", "result")
    _method(Events, "on_event", "event")

    def event(state: Any, event: dict[str, Any]) -> None:
        flowers_event(state, tasks.event(event))

    def init(events: Any, *args: Any, **kwargs: Any) -> None:
        flowers_init(events, *args, **kwargs)
        mask_state(events.state, tasks)

    def on_update(inspector: Any, workername: str, method: str, response: Any) -> None:
        flowers_update(inspector, workername, method, mask_answer(method, response, tasks, workers))

    def update_response_result(handler: Any, response: dict[str, Any], result: Any) -> None:
        flowers_result(handler, response, result)
        for field in ("result", "traceback"):
            if field in response:
                response[field] = tasks.field(None, field, response[field])

    EventsState.event = event
    Events.__init__ = init
    Inspector._on_update = on_update
    BaseTaskHandler.update_response_result = update_response_result


def _method(kind: type, name: str, *parameters: str) -> Callable[..., Any]:
    """A method of Flower's; AttributeError when it is missing or takes something else than it did."""
    method: Callable[..., Any] = getattr(kind, name)
    if name not in vars(kind) or tuple(inspect.signature(method).parameters)[1 : 1 + len(parameters)] != parameters:
        raise AttributeError(f"{kind.__name__}.{name} does not take {', '.join(parameters)}")
    return method


def mask_state(state: Any, redactor: Redactor) -> None:
    """Masks tasks that were read from an older state file, in memory and in the index of the search."""
    for _, task in list(state.tasks.items()):
        before = {field: getattr(task, field, None) for field in TASK_FIELDS}
        after = {field: redactor.field(task.name, field, value) for field, value in before.items()}
        if after != before:
            for field, value in after.items():
                setattr(task, field, value)
            state.search_engine.upsert(task)


def mask_answer(method: str, answer: Any, tasks: Redactor, workers: Redactor) -> Any:
    """A worker's answer to an inspection, masked; as a whole when something goes wrong."""
    try:
        if method in REQUESTS:
            return [tasks.request(request) for request in answer] if isinstance(answer, list) else tasks.value(answer)
        if method == "stats" and isinstance(answer, Mapping):
            # the keys of `total` are names of tasks, such as accounts.reset_password
            total = {"total": answer["total"]} if "total" in answer else {}
            return {**workers.value({key: item for key, item in answer.items() if key != "total"}), **total}
        return answer if method in NAMES_ONLY else workers.value(answer)
    except Exception as error:  # noqa: BLE001 - what cannot be looked at is not shown
        logging.getLogger(__name__).warning("A worker's %s cannot be shown: %s", method, type(error).__name__)
        return {} if isinstance(answer, Mapping) else []


def _mask_log(tasks: Redactor, workers: Redactor) -> None:
    """Masks the log of Flower and its libraries; our own lines hold no secrets, and tell addresses as they are."""
    factory = logging.getLogRecordFactory()

    def masked(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = factory(*args, **kwargs)
        if record.name.partition(".")[0] != "flowerbed":
            mask_record(record, tasks, workers)
        return record

    logging.setLogRecordFactory(masked)


def mask_record(record: logging.LogRecord, tasks: Redactor, workers: Redactor) -> None:
    """Masks the message and the traceback of one line of the log."""
    try:
        if record.name == "flower.api.tasks" and isinstance(record.args, tuple) and len(record.args) == 3:
            # "Invoking a task '%s' with '%s' and '%s'"
            name, positional, keywords = record.args
            task = name if isinstance(name, str) else None
            record.args = (name, tasks.field(task, "args", positional), tasks.field(task, "kwargs", keywords))
        record.msg, record.args = workers.text(record.getMessage()), ()
        if record.exc_info:
            # formatters take this instead of making it anew
            record.exc_text = workers.text("".join(traceback.format_exception(*record.exc_info)).rstrip("\n"))
    except Exception:  # noqa: BLE001 - what cannot be looked at is not shown
        record.msg, record.args, record.exc_info, record.exc_text = MASK, (), None, None
