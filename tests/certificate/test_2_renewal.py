"""Debian's timer renews it, nginx serves it, and nobody who is connected notices."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.certificate.conftest import FILES, Site
from tests.hosts import wait_for
from tests.plays import run_play

RENEWAL = "/etc/letsencrypt/renewal/flower-main.conf"


@pytest.fixture
def due(host: Site) -> Iterator[None]:
    """certbot finds that the certificate runs out soon: pebble's are for 90 days."""
    host.run("sed", "-i", "-E", r"s/^# renew_before_expiry = .*/renew_before_expiry = 100 days/", RENEWAL)
    assert "\nrenew_before_expiry = 100 days" in "\n" + host.run("cat", RENEWAL)
    yield
    host.run("sed", "-i", "-E", r"s/^renew_before_expiry = .*/# renew_before_expiry = 30 days/", RENEWAL)


@contextmanager
def half_a_request(host: Site) -> Iterator[socket.socket]:
    """A connection on which a request has begun to be sent, and is being worked on."""
    head = (
        f"POST /login HTTP/1.1\r\nHost: {host.server_name}\r\nContent-Length: 20\r\nConnection: close\r\n\r\nusername=a"
    )
    with (
        socket.create_connection((host.address, 443), timeout=30) as plain,
        host.tls().wrap_socket(plain, server_hostname=host.server_name) as secured,
    ):
        secured.sendall(head.encode())
        yield secured


@pytest.mark.usefixtures("due")
def test_renewed_by_the_unit_of_the_timer(host: Site, letsencrypt: dict[str, Any]) -> None:
    before = host.served().serial_number
    with half_a_request(host) as begun:
        host.run("systemctl", "start", "certbot.service")
        # nginx -s reload ends before new workers answer.
        wait_for("the new certificate", lambda: host.served().serial_number != before, seconds=20, every=0.2)
        begun.sendall(b"&password=")
        assert begun.recv(100).startswith(b"HTTP/1.1 403"), "Flower answers what was begun before"
    assert host.get("/login").status == 200
    said = host.run("journalctl", "-t", "flower-certificate", "-o", "cat", "--no-pager")
    assert "serves the new certificate" in said
    with host.serves_the_same():
        assert run_play("site.yml", letsencrypt).well().changed_tasks == []


@pytest.mark.usefixtures("due")
def test_nginx_that_would_not_start_again_goes_on_with_the_old_one(host: Site, letsencrypt: dict[str, Any]) -> None:
    """A mistake in any other site of the host: the new certificate waits, and the journal says why."""
    mistake = "/etc/nginx/conf.d/mistake.conf"
    host.run("install", "-m", "0644", "/dev/stdin", mistake, stdin="no_such_directive on;\n")
    old = host.run("cat", f"{FILES}/private_key.pem")
    try:
        with host.serves_the_same():
            host.run("systemctl", "start", "certbot.service", check=False)
            said = host.run("journalctl", "-t", "flower-certificate", "-p", "err", "-o", "cat", "--no-pager")
            assert "no_such_directive" in said
            assert host.run("cat", f"{FILES}/private_key.pem") == old
    finally:
        host.run("rm", mistake)
    before = host.served().serial_number
    run_play("site.yml", letsencrypt).well()
    wait_for("the new certificate", lambda: host.served().serial_number != before, seconds=20, every=0.2)
