"""Settings of the right type that can never work all the same: one sentence each, before anything is started.

The role refuses them before it writes them; these are for a file that was written by hand.
"""

# ruff: noqa: PLC0415  # a late import: Celery acts when imported
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flowerbed.broker import as_list
from flowerbed.metrics.registry import bounds_of
from flowerbed.settings import Credentials, Settings, SettingsError

COMPAT = ("", "celery-exporter")
TEXTS = ("args", "kwargs", "result", "exception", "traceback")
#: fewer series would not hold one task in all its states
FEWEST_SERIES = 20


def check(settings: Settings, credentials: Credentials) -> None:
    """Raises SettingsError for the first thing that is wrong."""
    for problem in _problems(settings, credentials):
        raise SettingsError(problem)


def _problems(settings: Settings, credentials: Credentials) -> Iterator[str]:
    chosen, history = settings.collector, settings.history
    if not 0 < chosen.port < 65536:
        yield "flower_metrics_port must be from 1 to 65535."
    if chosen.compat not in COMPAT:
        yield f"flower_metrics_compat must be empty or celery-exporter, not {chosen.compat!r}."
    if chosen.series_limit < FEWEST_SERIES:
        yield f"flower_metrics_series_limit must be {FEWEST_SERIES} or more."
    for name in ("queues", "tasks_allow", "tasks_deny"):
        if not all(isinstance(one, str) and one for one in getattr(chosen, name)):
            yield f"flower_metrics_{name} must be a list of texts."
    if not _are_bounds(chosen.buckets):
        yield "flower_metrics_buckets must be a list of numbers of seconds above 0."
    for task, bounds in chosen.task_buckets.items():
        if not _are_bounds(bounds):
            yield f"flower_metrics_task_buckets: {task!r} must have a list of numbers of seconds above 0."
    for name in ("days", "rows", "size", "lost_after"):
        if getattr(history, name) < 0:
            yield f"flower_history_{name} must be 0 or more."
    for name, length in history.text_lengths.items():
        if name not in TEXTS:
            yield f"flower_history_text_lengths: {name!r} is not one of {', '.join(TEXTS)}."
        elif type(length) is not int or length < 0:
            yield f"flower_history_text_lengths: {name} must be a number of characters, 0 or more."
    if credentials.history_url is not None and not isinstance(credentials.history_url, str):
        yield "The credentials' history_url must be a text."
    yield from _brokers(credentials.celery.get("broker_url"))


def _are_bounds(bounds: Any) -> bool:
    if not isinstance(bounds, list) or not all(type(one) in (int, float) for one in bounds):
        return False
    try:
        bounds_of(bounds)
    except ValueError:
        return False
    return True


def _brokers(urls: Any) -> Iterator[str]:
    """URLs that kombu cannot read, or has no transport for, or whose library is missing; nothing is connected to."""
    import kombu

    # its types are half there
    library: Any = kombu
    for url in as_list(urls):
        scheme, colon, _ = str(url).partition("://")
        # never more than the scheme: the rest may be a password
        begins = f"flower_broker_url begins with {scheme[:30]}://, which"
        try:
            library.Connection(str(url)).get_transport_cls()
        except KeyError:
            yield f"{begins} is not known to Celery." if colon else "flower_broker_url is not the URL of a broker."
        except ImportError:
            yield f"{begins} needs a library that is not installed: see flower_extra_packages."
        except ValueError:
            yield "flower_broker_url is not the URL of a broker."
