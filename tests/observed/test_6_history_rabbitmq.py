"""PostgreSQL is stopped and started again."""

from __future__ import annotations

import time

from tests.hosts import wait_for
from tests.observed.observed import Observed, assert_right


def test_the_database_is_stopped_and_started(observed: Observed) -> None:
    """Counting goes on, rows wait in memory, and are all there afterwards."""
    observed.wait_ready()
    before, place = observed.counted(), observed.mark()
    since = time.time()
    with observed.load():
        observed.host.run("systemctl", "stop", "postgresql")
        observed.wait_number(0, "flowerbed_history_up")
        counted = observed.number("celery_tasks_total")
        wait_for("counting to go on", lambda: observed.number("celery_tasks_total") > counted + 50, 30)
        assert observed.number("flowerbed_history_backlog") > 0
        status, _ = observed.get("/health")
        assert status == 200, "events are read and counted"
        assert observed.health()["history"] != "ok"
        observed.host.run("systemctl", "start", "postgresql")
        observed.wait_number(1, "flowerbed_history_up", seconds=60)
    assert_right(observed, before, observed.wait_done(place))
    observed.wait_number(0, "flowerbed_history_backlog")
    assert observed.number("flowerbed_history_dropped_total") == 0
    assert "written again" in observed.journal(since)
