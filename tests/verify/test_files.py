"""Modes and owners of all that the role puts on the host."""

from __future__ import annotations

import pytest

from tests.hosts import Host

WANTED = [
    # path, mode, owner, group
    ("/etc/flower", "755", "root", "root"),
    ("/etc/flower/main/flowerconfig.py", "644", "root", "root"),
    ("/etc/flower/main/flowerbed.json", "644", "root", "root"),
    ("/etc/flower/main/credentials", "700", "root", "root"),
    ("/etc/flower/main/credentials/flower.json", "600", "root", "root"),
    ("/etc/flower/main/flowerbed-collector.json", "644", "root", "root"),
    ("/etc/flower/main/credentials/collector.json", "600", "root", "root"),
    ("/var/lib/flower/main/history.sqlite", "600", "flower-main", "flower-main"),
    ("/etc/flower/main/tls", "700", "root", "root"),
    ("/etc/flower/main/tls/private_key.pem", "600", "root", "root"),
    ("/etc/systemd/system/flower@main.service", "644", "root", "root"),
    ("/etc/systemd/system/flower-collector@main.service", "644", "root", "root"),
    ("/etc/nginx/sites-available/flower-main.conf", "644", "root", "root"),
    ("/run/flower/main", "750", "flower-main", "flower-main"),
]


@pytest.mark.parametrize(("path", "mode", "owner", "group"), WANTED, ids=[row[0] for row in WANTED])
def test_mode_and_owner(host: Host, path: str, mode: str, owner: str, group: str) -> None:
    assert host.run("stat", "-c", "%a %U %G", path).split() == [mode, owner, group]


def test_state_is_for_flower_only(host: Host) -> None:
    mode, owner = host.run("stat", "-L", "-c", "%a %U", "/var/lib/flower/main").split()
    assert (mode[-1], owner) == ("0", "flower-main")
    assert host.shell("find -L /var/lib/flower/main -type f -perm /077").split() == []


def test_flower_cannot_change_its_own_code_or_settings(host: Host) -> None:
    for folder in ("/opt/flower", "/etc/flower"):
        assert host.run("find", folder, "(", "-user", "flower-main", "-o", "-group", "flower-main", ")") == ""
        assert host.run("find", folder, "!", "-type", "l", "-perm", "/022") == ""


def test_the_release_is_behind_a_link(host: Host) -> None:
    target = host.run("readlink", "-f", "/opt/flower/main/current").strip()
    assert target.startswith("/opt/flower/releases/")
    assert host.run("test", "-e", f"{target}/.complete") == ""


def test_the_user_is_a_system_user_without_a_shell(host: Host) -> None:
    _, _, uid, _, _, _, shell = host.run("getent", "passwd", "flower-main").strip().split(":")
    assert int(uid) < 1000
    assert shell.endswith(("nologin", "false"))


def test_nginx_may_open_the_socket_and_nobody_else_may(host: Host) -> None:
    assert "flower-main" in host.run("id", "-nG", "www-data").split()
    script = "import socket; socket.socket(socket.AF_UNIX).connect('/run/flower/main/flower.sock'); print(1)"
    assert host.python(script, user="www-data") == 1
    assert host.run("python3", "-c", script, user="nobody", check=False) == ""
