"""The audit log: who changed what, from where, and who was refused; one line of JSON each, in the journal.

`journalctl -u flower@main -o cat -g '^audit '` lists them.  No arguments of tasks and no passwords: only the parameters
that say what a change does.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Any
from urllib.parse import unquote

#: parameters of Flower's control API that say what a change does (flower/api/control.py); others may hold secrets
PARAMETERS = ("n", "min", "max", "queue", "workername", "ratelimit", "soft", "hard", "terminate", "signal")
#: the most that is told of a value, in characters
LONGEST = 200

logger = logging.getLogger("flowerbed.audit")


def start() -> None:
    """Lets the audit log speak whatever Flower's own level of logging is."""
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        # <5> is NOTICE to the journal (sd-daemon(3)), which takes it off
        handler.setFormatter(logging.Formatter("<5>audit %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False


def write(event: str, **what: Any) -> None:
    """One line; JSON escapes line breaks, so that no value can write lines of its own."""
    told = {
        key: value[:LONGEST] if isinstance(value, str) else value for key, value in what.items() if value is not None
    }
    logger.info("%s", json.dumps({"event": event, **told}))


def change(handler: Any, user: str | None, role: str | None, address: str, via: str | None = None) -> None:
    """A request that would change something, after it was answered."""
    target = handler.path_args[-1] if handler.path_args else None
    prefix = (handler.application.options.url_prefix or "").strip("/")
    action = unquote(handler.request.path).removeprefix(f"/{prefix}").removesuffix(target or "").strip("/")
    parameters = {name: handler.get_argument(name, None) for name in PARAMETERS}
    write(
        "change" if handler.get_status() < 400 else "refused" if handler.get_status() in (401, 403) else "failed",
        user=user,
        role=role,
        address=address,
        via=via,
        action=action,
        target=target,
        parameters={name: value for name, value in parameters.items() if value is not None} or None,
        status=handler.get_status(),
    )
