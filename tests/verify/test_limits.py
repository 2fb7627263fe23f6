"""Limits, read from the kernel and tried out, not read back from systemd."""

from __future__ import annotations

import json
import time

import pytest

from tests.hosts import UNIT, Host, wait_for

MEBIBYTE = 1 << 20

READ = """
import json, os, sys
pid = json.load(sys.stdin)
names = {"memory": ("memory.limit_in_bytes", "memory.max"), "pids": ("pids.max", "pids.max"),
         "cpu": ("cpu.cfs_quota_us cpu.cfs_period_us", "cpu.max")}
found = {}
for line in open(f"/proc/{pid}/cgroup"):
    number, controllers, path = line.rstrip("\\n").split(":", 2)
    for controller, (old, new) in names.items():
        if controller in controllers.split(","):
            folder = f"/sys/fs/cgroup/{controllers}{path}"
            folder = folder if os.path.isdir(folder) else f"/sys/fs/cgroup/{controller}{path}"
            found[controller] = [open(f"{folder}/{name}").read().strip() for name in old.split()]
        elif number == "0" and os.path.exists(f"/sys/fs/cgroup{path}/{new}"):
            found[controller] = open(f"/sys/fs/cgroup{path}/{new}").read().split()
print(json.dumps(found))
"""

HOG = """
import json, mmap, os, sys
pid, size = json.load(sys.stdin)
for line in open(f"/proc/{pid}/cgroup"):
    number, controllers, path = line.rstrip("\\n").split(":", 2)
    names = ["", "unified"] if number == "0" else [controllers.removeprefix("name="), controllers.split(",")[0]]
    for name in names:
        procs = os.path.join("/sys/fs/cgroup", name, path.lstrip("/"), "cgroup.procs")
        if os.path.exists(procs):
            open(procs, "w").write(str(os.getpid()))
            break
print("in", flush=True)
# Asked for in one call: MemoryHigh= would slow down a hog that grows step by step for minutes.
mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x8000)  # MAP_POPULATE
print("survived", flush=True)
"""


def limits(host: Host) -> dict[str, list[str]]:
    """What the kernel holds the unit's cgroup to, on cgroup v1 or v2."""
    found: dict[str, list[str]] = host.python(READ, host.main_pid())
    return found


def test_memory(host: Host) -> None:
    assert limits(host)["memory"] == [str(512 * MEBIBYTE)]


def test_tasks(host: Host) -> None:
    assert limits(host)["pids"] == ["128"]


def test_cpu(host: Host) -> None:
    quota, period = limits(host)["cpu"]
    assert int(quota) == int(period), "100 % of one processor"


def test_open_files(host: Host) -> None:
    soft = host.shell(f"grep '^Max open files' /proc/{host.main_pid()}/limits").split()[3:5]
    assert soft == ["4096", "4096"]


@pytest.mark.parametrize("victim", ["hog", "flower"])
def test_memory_hog_is_killed_and_flower_is_back(host: Host, victim: str) -> None:
    """The kernel ends a hog in the unit; and where it picks Flower itself, systemd starts it again."""
    before = host.main_pid()
    if victim == "flower":
        host.shell(f"echo 1000 > /proc/{before}/oom_score_adj")
    printed = host.run("python3", "-c", HOG, stdin=json.dumps([before, 600 * MEBIBYTE]), check=False)
    assert printed.startswith("in"), "the hog could not join the unit's cgroup"
    if victim == "hog":
        assert "survived" not in printed
    else:
        wait_for("another main process", lambda: host.main_pid() not in (0, before), seconds=60)
    wait_for("the unit is active", lambda: host.show("ActiveState")["ActiveState"] == "active", seconds=90)
    wait_for("the front door answers", lambda: host.get("/healthcheck").status == 200, seconds=60)
    time.sleep(1)
    assert host.show("ActiveState")["ActiveState"] == "active", UNIT
