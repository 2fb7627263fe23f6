"""Caps the wait of Flower's event thread between attempts to reach the broker.

Flower 2.1 and 2.2 wait 2, 4, 8, 16 … seconds without an end: after an outage of an hour they stay deaf for another.
"""

# ruff: noqa: PLC0415  # late imports: Flower and Celery act when imported, and not every command needs them
from __future__ import annotations

import inspect
import logging
import time
from typing import Any

#: what the code of Events.run must hold for ours to be the same, but for the cap
EXPECTED = (
    "try_interval *= 2",
    "self.capp.connection()",
    'handlers={"*": self.on_event}',
    "recv.capture(limit=None, timeout=None, wakeup=True)",
    "interrupt_main()",
    "time.sleep(try_interval)",
)

logger = logging.getLogger("flower.events")


def cap_reconnect(max_seconds: float) -> bool:
    """Puts the cap into Flower; False, with a warning, when its code is not the one that is known."""
    try:
        from flower.events import Events

        source = inspect.getsource(Events.run)
    except (ImportError, AttributeError, OSError, TypeError):
        source = ""
    if not all(line in source for line in EXPECTED):
        logger.warning("The wait for the broker is not capped: flowerbed does not know this Flower's Events.run.")
        return False

    def run(events: Any) -> None:
        capture_for_ever(events, max_seconds)

    Events.run = run
    return True


def capture_for_ever(events: Any, max_seconds: float) -> None:
    """Flower's Events.run with a cap."""
    from celery.events import EventReceiver

    wait: float = 1
    while True:
        try:
            wait = min(wait * 2, max_seconds)
            with events.capp.connection() as connection:
                receiver = EventReceiver(connection, handlers={"*": events.on_event}, app=events.capp)
                wait = 1
                logger.debug("Capturing events...")
                receiver.capture(limit=None, timeout=None, wakeup=True)
        except (KeyboardInterrupt, SystemExit):
            import _thread

            _thread.interrupt_main()
        except Exception as error:
            logger.error("Failed to capture events: '%s', trying again in %s seconds.", error, wait)
            logger.debug("%s", error, exc_info=True)
            time.sleep(wait)
