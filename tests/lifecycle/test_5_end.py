"""What `absent` takes away, and what it leaves."""

from __future__ import annotations

import os
from pathlib import Path

from tests.fingerprint import Fingerprint, below, fingerprint, read
from tests.hosts import Host
from tests.lifecycle.looks import WORKLOAD, assert_serves, main_pid
from tests.plays import run_play

SHOP = {"flower_instance": "shop"}
# Debian's packages stay, as the documentation says: what apt and their installation scripts write besides their files.
APT = ("/var/lib/apt", "/var/lib/dpkg", "/usr", "/etc/nginx", "/etc/rc0.d", "/etc/rc1.d", "/etc/rc2.d", "/etc/rc3.d",
       "/etc/rc4.d", "/etc/rc5.d", "/etc/rc6.d", "/etc/alternatives", "/etc/systemd/system/multi-user.target.wants",
       "/etc/ld.so.cache", "/var/lib/nginx", "/etc/ssl/certs", "/var/www")  # fmt: skip
# Rewritten whenever a user comes or goes; what they say is compared as users and groups.
DATABASES = ("passwd", "shadow", "group", "gshadow", "subuid", "subgid")
ACCOUNTS = tuple(f"/etc/{name}{end}" for name in DATABASES for end in ("", "-"))


def traces(look: Fingerprint, instance: str) -> list[str]:
    """Everything on the host that bears the name of an instance."""
    names = (f"flower-{instance}", f"flower@{instance}", f"flower-collector@{instance}", f"flower/{instance}")
    found = [*look.files, *look.units, *look.running, *look.users, *look.groups]
    return [entry for entry in found if any(name in entry for name in names)]


def access_logs(host: Host, instance: str) -> list[str]:
    """What nginx wrote down about an instance; logs are in no fingerprint."""
    return host.shell(f"ls /var/log/nginx/flower-{instance}.access.log*", check=False).split()


def test_check_mode_of_an_uninstall_changes_nothing(host: Host) -> None:
    before, pid = fingerprint(host), main_pid(host)
    run_play("uninstall.yml", None, "--check").well()
    assert before.changes(fingerprint(host), ignore=WORKLOAD) == []
    assert main_pid(host) == pid


def test_uninstalling_one_leaves_the_other(host: Host) -> None:
    assert traces(fingerprint(host), "shop"), "there is something to take away"
    assert access_logs(host, "shop")
    pid = main_pid(host)
    run_play("uninstall.yml", SHOP).well()
    assert traces(fingerprint(host), "shop") == []
    assert access_logs(host, "shop") == []
    assert access_logs(host, "main")
    assert main_pid(host) == pid
    assert host.run("systemctl", "is-active", "nginx.service").strip() == "active"
    assert_serves(host)


def test_uninstalling_it_again_changes_nothing(host: Host) -> None:
    assert run_play("uninstall.yml", SHOP).well().changed_tasks == []


def test_uninstalling_the_last_leaves_debians_packages_only(host: Host) -> None:
    first = read(Path(os.environ["FLOWERBED_FIRST_FINGERPRINT"]))
    run_play("uninstall.yml").well()
    now = fingerprint(host)
    assert traces(now, "main") == []
    assert access_logs(host, "main") == []
    assert [path for path in now.files if below(path, ["/opt/flower", "/etc/flower", "/var/lib/flower"])] == []
    new = set(now.packages) - set(first.packages)
    assert "nginx" in new
    assert not [package for package in new if not package.startswith(("nginx", "libnginx", "python3", "iproute2"))]
    of_packages = set(host.shell(f"dpkg -L {' '.join(sorted(new))}").splitlines())
    changes = [
        change
        for change in first.changes(now, ignore=[*APT, *ACCOUNTS, *WORKLOAD])
        if change.partition(": ")[0] not in of_packages and not change.startswith("packages: ")
    ]
    assert [change for change in changes if "nginx" not in change] == []
    assert not [path for path in set(now.files) - set(first.files) if "flower" in path]
    assert host.run("systemctl", "is-active", "nginx.service").strip() == "active"
    assert host.run("nginx", "-t", check=False) == ""


def test_check_mode_of_an_uninstall_on_a_host_without_flower(host: Host) -> None:
    assert run_play("uninstall.yml", None, "--check").well().changed_tasks == []
