"""The collector is killed, again and again, while there is work: nothing counts twice, and what is missing is known."""

from __future__ import annotations

import time

from tests.hosts import wait_for
from tests.observed.observed import COLLECTOR, Observed, assert_right

KILLS = 20
#: what may be read and not written yet, in seconds; Redis has forgotten it
UNWRITTEN = 2.0


def test_killed_twenty_times(observed: Observed) -> None:
    """RabbitMQ keeps what is not acknowledged, so all of it is there; Redis keeps nothing."""
    observed.wait_ready()
    before, place = observed.counted(), observed.mark()
    windows: list[tuple[float, float]] = []
    numbers = observed.counted()
    with observed.load(40):
        for _ in range(KILLS):
            begin = time.time() - UNWRITTEN
            observed.host.run("systemctl", "kill", "--signal=KILL", COLLECTOR)
            # systemd waits longer and longer for what fails again and again
            observed.host.run("systemctl", "reset-failed", COLLECTOR)
            observed.host.run("systemctl", "start", COLLECTOR)
            wait_for("it to be back", lambda: observed.get("/health")[0] == 200, 30, every=0.1)
            windows.append((begin, observed.wait_connected()))
            now = observed.counted()
            # what is not told yet is no step back
            back = {key: (number, now[key]) for key, number in numbers.items() if key in now and now[key] < number}
            assert not back, f"counters went backwards: {back}"
            numbers |= now
    assert "before this start" in observed.journal(begin), "it says since when it was not there"
    work = observed.wait_done(place)
    assert len(work.ids) > KILLS * 2, "there was hardly any load"
    assert_right(observed, before, work, [] if observed.on_rabbitmq else windows)


def test_a_restart_loses_and_doubles_nothing(observed: Observed) -> None:
    """What was read is written at the end, and what RabbitMQ still has comes afterwards."""
    observed.wait_ready()
    before, place = observed.counted(), observed.mark()
    windows = []
    with observed.load(40):
        for _ in range(3):
            begin = time.time()
            observed.host.run("systemctl", "restart", COLLECTOR)
            windows.append((begin, observed.wait_connected()))
    work = observed.wait_done(place)
    assert_right(observed, before, work, [] if observed.on_rabbitmq else windows)
    assert observed.number("flowerbed_events_invalid_total") == 0
