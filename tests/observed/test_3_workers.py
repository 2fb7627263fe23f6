"""Workers that are killed say nothing any more."""

from __future__ import annotations

import time

from tests.hosts import wait_for
from tests.observed.observed import Observed

#: of Celery's workers
HEARTBEAT_SECONDS = 2


def test_a_killed_worker_is_offline_within_three_heartbeats(observed: Observed) -> None:
    worker = observed.worker("b")
    place = observed.mark()
    (task,) = observed.drive("sleep", "600", "slow")
    wait_for("it to begin", lambda: observed.work(place).of("started"))
    observed.wait_number(1, "celery_tasks_running", task="observed.sleep")
    losses, lost = observed.number("celery_worker_losses_total"), observed.number("celery_tasks_total", state="lost")
    observed.host.run("systemctl", "kill", "--signal=KILL", "--kill-whom=all", "observed-b")
    killed = time.monotonic()
    wait_for(
        "the worker to be offline",
        lambda: observed.number("celery_worker_online", worker=worker) == 0,
        HEARTBEAT_SECONDS * 3 + 3,
        every=0.2,
    )
    # a second for the look at the workers, and one for this one
    assert time.monotonic() - killed < HEARTBEAT_SECONDS * 3 + 2
    observed.wait_number(losses + 1, "celery_worker_losses_total")
    assert observed.number("celery_workers_lost") == 1
    # flower_history_lost_after later its task is lost
    observed.wait_number(lost + 1, "celery_tasks_total", state="lost")
    observed.wait_number(0, "celery_tasks_running")
    row = wait_for("the row to say so", lambda: (found := observed.rows()[task]) and found["lost"] and found)
    assert (row["state"], row["worker"]) == ("STARTED", worker)
    assert observed.number("celery_worker_online", worker=observed.worker("a")) == 1

    observed.host.run("systemctl", "start", "observed-b")
    observed.wait_number(1, "celery_worker_online", worker=worker, seconds=60)
    assert observed.number("celery_workers_lost") == 0
