"""What these tests look at again and again."""

from __future__ import annotations

import re
from typing import Any

from tests.hosts import USER_NAME, Host, basic, scenario_secrets, wait_for

# What the workload and Flower write by themselves.
WORKLOAD = ("/var/lib/redis", "/var/lib/workload", "/opt/workload", "/var/lib/flower", "/var/lib/systemd")

OLD = {"flower_version": "2.1.0"}
NEW = {"flower_version": "2.2.0"}


def release(host: Host, instance: str = "main") -> str:
    """The release to which an instance points."""
    return host.run("readlink", f"/opt/flower/{instance}/current").strip().rpartition("/")[2]


def main_pid(host: Host, instance: str = "main") -> int:
    """Main process of an instance; 0 when it does not run."""
    return int(host.show("MainPID", unit=f"flower@{instance}.service")["MainPID"])


def collector_pid(host: Host, instance: str = "main") -> int:
    """Main process of an instance's collector; 0 when it does not run."""
    return int(host.show("MainPID", unit=f"flower-collector@{instance}.service")["MainPID"])


def collector_health(host: Host, port: int = 8000) -> dict[str, Any]:
    """What a collector says of itself."""
    script = """
import json, sys, urllib.error, urllib.request
try:
    print(urllib.request.urlopen(f"http://127.0.0.1:{json.load(sys.stdin)}/health", timeout=10).read().decode())
except urllib.error.HTTPError as error:
    print(error.read().decode())
"""
    told: dict[str, Any] = host.python(script, port)
    return told


def running_release(host: Host, instance: str = "main") -> str:
    """The release whose files the process has loaded, whatever the link says."""
    maps = host.run("cat", f"/proc/{main_pid(host, instance)}/maps")
    found = set(re.findall(r"/opt/flower/releases/([^/]+)/", maps))
    assert len(found) == 1, f"files of {found or 'no release'} are loaded"
    return str(found.pop())


def sees_workers(host: Host) -> bool:
    """Whether the API answers the scenario's user, and knows the workload's workers."""
    answer = host.get("/api/workers?refresh=1", basic(USER_NAME, scenario_secrets()["user_password"]))
    return answer.status == 200 and "celery-a@" in answer.text and "celery-b@" in answer.text


def assert_serves(host: Host) -> None:
    """`main` runs and answers through its front door."""
    wait_for("the front door shows the workers", lambda: sees_workers(host), seconds=60)
    assert host.show("ActiveState")["ActiveState"] == "active"
    assert running_release(host) == release(host)
    assert (health := collector_health(host))["status"] == "ok", health
    maps = host.run("cat", f"/proc/{collector_pid(host)}/maps")
    assert f"/opt/flower/releases/{release(host)}/" in maps
