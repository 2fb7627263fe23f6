"""What the history knows of the last tasks: with it a collector that was restarted goes on where the last one ended."""

from __future__ import annotations

from sqlalchemy import select

from flowerbed.collector.tasks import LONGEST, Record
from flowerbed.history.schema import COLUMNS, tasks
from flowerbed.history.store import Store

#: the most tasks that are looked at: of those that came last, and of those that run
MOST_RECENT, MOST_RUNNING = 20_000, 10_000
#: what is read: not the texts, which could be large, and which a row keeps when a later one has none
NAMES = [name for name in COLUMNS if name not in LONGEST]


def recent(store: Store) -> list[Record]:
    """The tasks that came last and those that run, whenever they came, the oldest first, without their texts.

    Both are read from an index, so it takes a moment only, however large the history is.  Raises HistoryError.
    """
    columns = [tasks.c[name] for name in NAMES]
    last = select(*columns).order_by(tasks.c.seen.desc()).limit(MOST_RECENT)
    running = select(*columns).where(tasks.c.state == "STARTED", tasks.c.lost.is_(False)).limit(MOST_RUNNING)
    found = {}
    with store.transaction() as connection:
        for row in (*connection.execute(running), *connection.execute(last)):
            record = Record(**dict(zip(NAMES, row, strict=True)))
            record.lost = bool(record.lost)
            found[record.id] = record
    return sorted(found.values(), key=lambda record: record.seen)
