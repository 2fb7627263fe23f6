"""The host is rebooted."""

from __future__ import annotations

import subprocess

from tests.hosts import wait_for
from tests.observed.observed import Observed, known


def test_a_reboot_keeps_all(observed: Observed) -> None:
    observed.wait_ready()
    rows, counted = observed.rows(), known(observed.counted())
    assert len(rows) > 500
    subprocess.run(["docker", "restart", "--time", "60", observed.name], check=True, capture_output=True)
    wait_for(
        "the host to be up", lambda: observed.host.run("systemctl", "is-system-running", "--wait", check=False), 90
    )
    # its address may be another one now
    observed.host.__dict__.pop("address", None)
    observed.wait_ready(120)
    assert known(observed.counted()) == counted
    after = observed.rows()
    assert {uuid: row for uuid, row in after.items() if uuid in rows} == rows
    # and it goes on from there
    place = observed.mark()
    observed.drive("send", "5", "default")
    observed.wait_done(place)
    wait_for("the counts to go on", lambda: sum((known(observed.counted()) - counted).values()) >= 20, 30)
