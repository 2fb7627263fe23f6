"""Tells systemd how Flower is: READY when it serves, WATCHDOG while its event loop turns, STOPPING when it ends.

The protocol is that of sd_notify(3): datagrams to the unix socket in $NOTIFY_SOCKET.  Without it nothing happens.
"""

# ruff: noqa: PLC0415  # late imports: Flower and Celery act when imported, and not every command needs them
from __future__ import annotations

import logging
import os
import socket
import threading
from typing import Any

#: how long systemd is asked to wait on, and how often, while a large state file is loaded
EXTEND_SECONDS, EXTEND_EVERY_SECONDS, EXTEND_AT_MOST_SECONDS = 60, 15, 600

logger = logging.getLogger(__name__)


def notify(*lines: str) -> bool:
    """Sends lines such as `READY=1`; True when they were sent, False without a socket or when it refuses."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return False
    if address.startswith("@"):
        # an abstract socket
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            # never wait for the service manager in the event loop
            channel.settimeout(1)
            channel.sendto("\n".join(lines).encode(), address)
    except OSError as error:
        logger.warning("systemd could not be told %s: %s", lines[0], error.strerror or error)
        return False
    return True


def watchdog_seconds() -> float | None:
    """Seconds within which systemd wants a sign of life from this process; None when it wants none."""
    pid, interval = os.environ.get("WATCHDOG_PID"), os.environ.get("WATCHDOG_USEC", "")
    if (pid and pid != str(os.getpid())) or not interval.isdecimal() or int(interval) == 0:
        return None
    return int(interval) / 1_000_000


def notify_systemd() -> None:
    """Hooks into Flower's start and stop."""
    if not os.environ.get("NOTIFY_SOCKET"):
        return
    from flower.app import Flower
    from tornado.ioloop import PeriodicCallback

    ready = threading.Event()
    flowers_start, flowers_stop = Flower.start, Flower.stop

    def start(app: Any) -> None:
        def on_first_turn() -> None:
            ready.set()
            notify("READY=1", "STATUS=Serving " + where(app.options))

        # runs when the loop turns, and by then the socket has long been listening
        app.io_loop.add_callback(on_first_turn)
        if (seconds := watchdog_seconds()) is not None:
            PeriodicCallback(keep_alive, seconds * 1000 / 2).start()
        flowers_start(app)

    def stop(app: Any) -> None:
        if app.started:
            notify("STOPPING=1", "STATUS=Saving the state")
        flowers_stop(app)

    Flower.start, Flower.stop = start, stop
    notify("STATUS=Loading the state")
    threading.Thread(target=_extend_start, args=(ready,), daemon=True, name="flowerbed-start").start()


def keep_alive() -> None:
    """Called by the event loop: it turns."""
    notify("WATCHDOG=1")


def where(options: Any) -> str:
    """Where Flower listens, for the status line."""
    return f"on {options.unix_socket}" if options.unix_socket else f"on {options.address or '*'} port {options.port}"


def _extend_start(ready: threading.Event) -> None:
    """Asks for more time until Flower serves; loading 100,000 tasks takes 8 s, and that in the main thread."""
    for _ in range(EXTEND_AT_MOST_SECONDS // EXTEND_EVERY_SECONDS):
        notify(f"EXTEND_TIMEOUT_USEC={EXTEND_SECONDS * 1_000_000}")
        if ready.wait(EXTEND_EVERY_SECONDS):
            return
