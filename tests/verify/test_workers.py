"""Flower shows the real workers and tasks of the workload."""

from __future__ import annotations

import pytest

from tests.hosts import Host, wait_for


@pytest.fixture(autouse=True, scope="module")
def a_bunch_of_tasks(host: Host) -> None:
    """The feeder sends a bunch when it starts; waiting for its trickle to hold all states would take a minute."""
    host.run("systemctl", "restart", "celery-feeder")


def test_both_workers_are_online(host: Host) -> None:
    def online() -> bool:
        status = host.api("/api/workers?status=1")
        return sorted(name.split("@")[0] for name, up in status.items() if up) == ["celery-a", "celery-b"]

    wait_for("both workers online", online, seconds=60)


def named_tasks(host: Host, state: str) -> list[dict[str, str]]:
    """Tasks of the workload. One that was sent before Flower came has no name: only its first event carries it."""
    tasks: dict[str, dict[str, str]] = host.api(f"/api/tasks?state={state}&limit=100")
    assert all(task["state"] == state for task in tasks.values())
    return [task for task in tasks.values() if (task["name"] or "").startswith("workload.")]


@pytest.mark.parametrize("state", ["SUCCESS", "FAILURE", "RETRY"])
def test_tasks_with_names_in_each_state(host: Host, state: str) -> None:
    wait_for(f"a task in state {state}", lambda: named_tasks(host, state), seconds=120)


def test_failures_tell_why(host: Host) -> None:
    failed = wait_for("a failed task", lambda: named_tasks(host, "FAILURE"), seconds=120)
    assert all("Error" in task["exception"] for task in failed)
