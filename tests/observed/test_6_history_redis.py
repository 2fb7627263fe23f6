"""SQLite's disk is full, and then it is not."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.hosts import wait_for
from tests.observed.observed import COLLECTOR, Observed, assert_right

STATE = "/var/lib/flower/main"


STOP, START = f"systemctl stop {COLLECTOR} flower@main", f"systemctl start flower@main {COLLECTOR}"
#: both ways the folder keeps its owner and mode
TO_SMALL = f"""
set -e
{STOP}
cp -a {STATE} /root/kept
mount -t tmpfs -o size=48m small {STATE}
cp -a /root/kept/. {STATE}
rm -r /root/kept
{START}
"""
BACK = f"""
set -e
{STOP}
rm -f {STATE}/filler
cp -a {STATE} /root/kept
umount {STATE}
cp -a /root/kept/. {STATE}
rm -r /root/kept
{START}
"""


@pytest.fixture
def small_disk(observed: Observed) -> Iterator[str]:
    """Puts the folder of the history on a small file system of its own; gives the name of a file that can fill it."""
    observed.wait_ready()
    observed.host.shell(TO_SMALL)
    yield f"{STATE}/filler"
    observed.host.shell(BACK)
    observed.wait_ready()


def test_the_disk_is_full_and_free_again(observed: Observed, small_disk: str) -> None:
    """Counting goes on, rows wait in memory, and are all there afterwards."""
    observed.wait_ready()
    before, place = observed.counted(), observed.mark()
    since = time.time()
    with observed.load():
        observed.host.shell(f"dd if=/dev/zero of={small_disk} bs=64k 2>/dev/null || true")
        observed.wait_number(0, "flowerbed_history_up", seconds=40)
        counted = observed.number("celery_tasks_total")
        wait_for("counting to go on", lambda: observed.number("celery_tasks_total") > counted + 50, 30)
        status, _ = observed.get("/health")
        assert status == 200, "events are read and counted"
        wait_for("/health to say so", lambda: "no room left" in observed.health()["history"], 30, every=0.2)
        observed.host.run("rm", small_disk)
        observed.wait_number(1, "flowerbed_history_up", seconds=60)
    assert_right(observed, before, observed.wait_done(place))
    assert observed.number("flowerbed_history_dropped_total") == 0
    assert "written again" in observed.journal(since)
