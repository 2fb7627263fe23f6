"""What the role ``flower`` asks of its collector's variables: sentences, one a problem, and none holds a secret."""

from __future__ import annotations

import ipaddress
import itertools
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from .preflight import is_true, size_bytes

Variables = Mapping[str, Any]

_DATABASES = ("postgresql", "postgresql+psycopg", "postgres")
_WRITE_URL = "write postgresql://user:password@host/database, or leave it empty for SQLite"
_TEXTS = ("args", "kwargs", "result", "exception", "traceback")
# Less would leave no room for one batch of what is written.
_SMALLEST_HISTORY = 16 << 20


def history_bytes(size: object) -> int:
    """Return the bytes that ``20G``, ``512M`` or ``1000000`` says, or -1 for what is no size (K is 1024)."""
    found = size_bytes(str(size).strip())
    return -1 if found is None else int(found)


def history_url_problems(url: str, instance: str) -> list[str]:
    """Return what is wrong with the URL of a history, which holds a password that is never shown."""
    if not url:
        return []
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return [f"flower_history_url: it is not the URL of a database: {_WRITE_URL}."]
    home = f"/var/lib/flower/{instance}/"
    if parts.scheme == "sqlite":
        path = parts.path[1:]
        if parts.netloc or not path.startswith(home) or "/../" in path:
            wanted = f"write sqlite:///{home}history.sqlite, or leave it empty for that"
            return [f"flower_history_url: the service may write SQLite's file below {home} only: {wanted}."]
        return []
    if parts.scheme not in _DATABASES:
        return [f"flower_history_url: it names no database that is known: {_WRITE_URL}."]
    if not parts.path.strip("/") or "/" in parts.path[1:]:
        return [f"flower_history_url: it names no database after the host: {_WRITE_URL}."]
    if port == 0:
        return [f"flower_history_url: 0 is no port: {_WRITE_URL}."]
    return []


def _rising(bounds: object) -> bool:
    if not isinstance(bounds, (list, tuple)) or not bounds:
        return False
    try:
        numbers = [float(bound) for bound in bounds if not isinstance(bound, bool)]
    except (TypeError, ValueError):
        return False
    finite = all(0 < number < float("inf") for number in numbers)
    return finite and len(numbers) == len(bounds) and all(low < high for low, high in itertools.pairwise(numbers))


def _bucket_problems(var: Variables) -> list[str]:
    hint = "give numbers of seconds above 0, each larger than the one before, such as [0.1, 1, 10]"
    problems = []
    if not _rising(var["flower_metrics_buckets"]):
        problems.append(f"flower_metrics_buckets: these are no bounds of a histogram: {hint}.")
    problems += [
        f"flower_metrics_task_buckets: {task!s:.60} has no bounds of a histogram: {hint}."
        for task, bounds in var["flower_metrics_task_buckets"].items()
        if not _rising(bounds)
    ]
    return problems


def _text_problems(lengths: Mapping[str, object]) -> list[str]:
    problems = []
    for text, length in lengths.items():
        if text not in _TEXTS:
            problems.append(f"flower_history_text_lengths: {text!s:.40} is no text of a task: use {', '.join(_TEXTS)}.")
        elif isinstance(length, bool) or not re.fullmatch(r"[0-9]{1,7}", str(length)) or int(str(length)) > 1_000_000:
            problems.append(
                f"flower_history_text_lengths: {text}: {length!s:.40} is no number of characters: give 0 to 1000000."
            )
    return problems


def _is_number(value: object, port: object) -> bool:
    return str(value) == str(port)


def collector_problems(variables: Variables) -> list[str]:
    """Return what is wrong with the collector's variables, as sentences.

    :param variables: every variable that begins with ``flower_``, the role's defaults included.
    """
    var = dict(variables)
    if not is_true(var["flower_collector"]):
        if var["flower_history_url"]:
            return ["flower_history_url: without a collector nothing writes there: set flower_collector: true."]
        return []
    if var["flower_history_url"] and not is_true(var["flower_history"]):
        return ["flower_history_url: it is not used with flower_history: false: leave one of them out."]
    problems = history_url_problems(str(var["flower_history_url"]), str(var["flower_instance"]))
    try:
        ipaddress.ip_address(str(var["flower_metrics_address"]))
    except ValueError:
        problems.append(
            f"flower_metrics_address: {var['flower_metrics_address']!s:.60} is no IP address: write 127.0.0.1, or an "
            "address of this host's that only Prometheus reaches."
        )
    for name in ("flower_http_port", "flower_https_port") if var["flower_proxy"] == "nginx" else ():
        if _is_number(var["flower_metrics_port"], var[name]):
            problems.append(f"flower_metrics_port: it is the same as {name}: give each a port of its own.")
    size = history_bytes(var["flower_history_size"])
    if size != 0 and size < _SMALLEST_HISTORY:
        problems.append(
            f"flower_history_size: {var['flower_history_size']!s:.40} is no size from 16M on: write a number with M, G "
            "or T, or 0 for any size."
        )
    return problems + _bucket_problems(var) + _text_problems(var["flower_history_text_lengths"])


class FilterModule:
    """Ansible's entry to the filters."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by their names."""
        return {"history_bytes": history_bytes}
