"""A second Flower on the host shares the release with the first, and nothing else."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.authority import Authority
from tests.fingerprint import fingerprint
from tests.hosts import Host
from tests.lifecycle.looks import NEW, WORKLOAD, assert_serves, main_pid, release, running_release
from tests.plays import run_play

SHOP = {
    **NEW,
    "flower_instance": "shop",
    "flower_server_name": "shop.test",
    "flower_url_prefix": "flower",
    "flower_broker_url": "{{ scenario_broker | combine({'db': 1}) | flowerbed.celery.broker_url }}",
    "flower_metrics_port": 8001,
    "flower_users": [],
}


@dataclass(frozen=True)
class Shop(Host):
    """The same host under the second instance's name, with a certificate of the test's CA."""

    authority: str = ""

    def tls(self) -> ssl.SSLContext:
        """Trusts the CA and nothing else."""
        return ssl.create_default_context(cadata=self.authority)


@pytest.fixture(scope="module")
def shop(host: Host, authority: Authority) -> Shop:
    """The second front door."""
    return Shop(host.name, "shop.test", authority.pem)


@pytest.fixture(scope="module")
def trusted(host: Host, authority: Authority) -> Iterator[None]:
    """The host trusts the CA, as hosts of a company trust theirs."""
    path = "/usr/local/share/ca-certificates/flowerbed-test.crt"
    host.run("install", "-m", "0644", "/dev/stdin", path, stdin=authority.pem)
    host.run("update-ca-certificates")
    yield
    host.run("rm", path)
    host.run("update-ca-certificates", "--fresh")


@pytest.fixture(scope="module")
def variables(authority: Authority) -> dict[str, Any]:
    """What the second instance is given."""
    certificate, key = authority.issue("shop.test")
    provided = {"flower_tls": "provided", "flower_tls_certificate": certificate, "flower_tls_private_key": key}
    return {**SHOP, **provided, "flower_auth": "none"}


def test_without_users_it_must_be_said_aloud(host: Host) -> None:
    before = fingerprint(host)
    play = run_play("site.yml", SHOP)
    assert play.code != 0
    assert "flower_users" in play.message
    assert before.changes(fingerprint(host), ignore=WORKLOAD) == []


def test_each_needs_a_port_of_its_own_for_metrics(host: Host, variables: dict[str, Any], trusted: None) -> None:
    before = fingerprint(host)
    play = run_play("site.yml", {**variables, "flower_metrics_port": 8000})
    assert play.code != 0
    assert "flower_metrics_port: port 8000 is in use by flower-collector@main.service" in play.message
    assert before.changes(fingerprint(host), ignore=WORKLOAD) == []


def test_a_second_instance_beside_the_first(host: Host, shop: Shop, variables: dict[str, Any], trusted: None) -> None:
    pid = main_pid(host)
    run_play("site.yml", variables).well()
    assert main_pid(host) == pid, "the first one was left alone"
    assert_serves(host)
    page = shop.get("/flower/")
    assert page.status == 200, "everybody is let in, as was said"
    assert "celery-a@" not in page.text, "its broker is another one, with no worker"
    assert shop.get("/flower").status == 301
    assert shop.get("/").status == 404
    assert host.get("/api/workers").status == 401, "the first one still wants a login"
    assert run_play("site.yml", variables).well().changed_tasks == []


def served_certificate(shop: Shop) -> bytes:
    """What the front door shows, in DER."""
    with (
        socket.create_connection((shop.address, 443), timeout=30) as plain,
        shop.tls().wrap_socket(plain, server_hostname=shop.server_name) as link,
    ):
        return link.getpeercert(binary_form=True) or b""


def test_a_new_certificate_is_served_by_the_same_play(
    shop: Shop, authority: Authority, variables: dict[str, Any], trusted: None
) -> None:
    certificate, key = authority.issue(shop.server_name)
    assert served_certificate(shop) != ssl.PEM_cert_to_DER_cert(certificate)
    variables.update(flower_tls_certificate=certificate, flower_tls_private_key=key)
    run_play("site.yml", variables).well()
    assert served_certificate(shop) == ssl.PEM_cert_to_DER_cert(certificate)


def test_they_share_one_release(host: Host) -> None:
    assert release(host) == release(host, "shop") == running_release(host, "shop")


def user_of(host: Host, instance: str) -> str:
    """Who an instance's process runs as."""
    return host.run("ps", "-o", "user:32=", "-p", str(main_pid(host, instance))).strip()


def test_they_share_nothing_else(host: Host) -> None:
    assert user_of(host, "main") == "flower-main"
    assert user_of(host, "shop") == "flower-shop"
    owners = host.run("stat", "-c", "%U %a %n", "/run/flower/main", "/run/flower/shop", "/var/lib/flower/main",
                      "/var/lib/flower/shop")  # fmt: skip
    assert owners.splitlines() == [
        "flower-main 750 /run/flower/main", "flower-shop 750 /run/flower/shop",
        "flower-main 750 /var/lib/flower/main", "flower-shop 750 /var/lib/flower/shop",
    ]  # fmt: skip
    cookies = {
        host.python(f"import json; print(json.dumps(json.load(open('/etc/flower/{name}/credentials/flower.json'))"
                    "['cookie_secret']))")
        for name in ("main", "shop")
    }  # fmt: skip
    assert len(cookies) == 2


READ = "test -r {} && echo readable || echo refused"


@pytest.mark.parametrize(("user", "other"), [("flower-main", "shop"), ("flower-shop", "main")])
def test_neither_reads_what_is_the_others(host: Host, user: str, other: str) -> None:
    for path in (
        f"/etc/flower/{other}/credentials/flower.json",
        f"/etc/flower/{other}/tls/private_key.pem",
        f"/etc/flower/{other}/credentials/collector.json",
        f"/run/credentials/flower@{other}.service/flower.json",
        f"/run/credentials/flower-collector@{other}.service/flower.json",
        f"/run/flower/{other}/flower.sock",
        f"/var/lib/flower/{other}/.",
    ):
        assert host.run("sh", "-c", READ.format(path), user=user).strip() == "refused", path
    assert connects(host, user, other) == "PermissionError"


CONNECT = """
import json, socket, sys
try:
    socket.socket(socket.AF_UNIX).connect(json.load(sys.stdin))
    print('"connected"')
except OSError as error:
    print(json.dumps(type(error).__name__))
"""


def connects(host: Host, user: str, instance: str) -> str:
    """What comes of a user's attempt to open an instance's socket."""
    return str(host.python(CONNECT, f"/run/flower/{instance}/flower.sock", user=user))


def test_a_proxy_of_ones_own_reaches_the_socket_and_nobody_else(
    host: Host, shop: Shop, variables: dict[str, Any]
) -> None:
    """flower_proxy: none takes the site away and leaves the socket to the group."""
    host.run("gpasswd", "--delete", "www-data", "flower-shop")
    bare = {**variables, "flower_proxy": "none", "flower_tls": "none", "flower_tls_certificate": "",
            "flower_tls_private_key": "", "flower_proxy_user": "www-data"}  # fmt: skip
    run_play("site.yml", bare).well()
    assert connects(host, "www-data", "shop") == "connected"
    assert connects(host, "flower-shop", "shop") == "connected"
    assert connects(host, "nobody", "shop") == "PermissionError"
    assert connects(host, "flower-main", "shop") == "PermissionError"
    links = host.run("ls", "/etc/nginx/sites-enabled").split()
    assert "flower-shop.conf" not in links, "the old front door is closed"
    assert_serves(host)
