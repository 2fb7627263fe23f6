"""The unit as systemd sees it: sandbox, notify, watchdog."""

from __future__ import annotations

import subprocess

import pytest

from tests.hosts import COLLECTOR, UNIT, Host, wait_for


@pytest.mark.parametrize("unit", [UNIT, COLLECTOR])
def test_exposure_is_at_most_1_2(host: Host, unit: str) -> None:
    done = subprocess.run(
        ["docker", "exec", host.name, "systemd-analyze", "security", "--no-pager", "--threshold=12", unit],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    summary = next((line for line in done.stdout.splitlines() if "Overall exposure" in line), done.stderr)
    assert done.returncode == 0, summary


@pytest.mark.parametrize("unit", [UNIT, COLLECTOR])
def test_it_notifies_and_is_watched(host: Host, unit: str) -> None:
    names = ("Type", "WatchdogUSec", "ActiveState", "SubState", "User", "NRestarts", "UnitFileState")
    shown = host.show(*names, unit=unit)
    assert (shown["Type"], shown["ActiveState"], shown["SubState"]) == ("notify", "active", "running")
    assert shown["User"] == "flower-main"
    assert shown["UnitFileState"] == "enabled"
    assert shown["WatchdogUSec"] not in ("0", "infinity")


def test_no_unit_of_the_host_failed(host: Host) -> None:
    assert host.run("systemctl", "list-units", "--failed", "--plain", "--no-legend") == ""


def test_a_stopped_event_loop_is_restarted(host: Host) -> None:
    """SIGSTOP is the hardest way for an event loop not to turn."""
    before = host.main_pid()
    seconds = int(host.show("WatchdogUSec")["WatchdogUSec"].removesuffix("s").replace("1min", "60"))
    restarts = int(host.show("NRestarts")["NRestarts"])
    host.run("kill", "-STOP", str(before))
    wait_for("another main process", lambda: host.main_pid() not in (0, before), seconds=seconds + 60)
    wait_for("the front door answers", lambda: host.get("/healthcheck").status == 200, seconds=90)
    assert int(host.show("NRestarts")["NRestarts"]) > restarts
    journal = host.run("journalctl", "-u", UNIT, "--no-pager", "-o", "cat", "--since", "-5min")
    assert "Watchdog timeout" in journal
