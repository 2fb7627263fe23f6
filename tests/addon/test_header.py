"""Signing in by the headers of a proxy, over a real unix socket."""

from __future__ import annotations

import json
import re
import secrets
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import flower as flower_package
import pytest
from addon_support import BROWSER, Flower, Redis, Response, free_port, wait_for
from passlib.hash import sha512_crypt
from tornado.httputil import HTTPHeaders

from flowerbed.headers import header_person
from flowerbed.install import check
from flowerbed.settings import Credentials, Header, Settings, SettingsError, User

ACCESS: list[dict[str, Any]] = [
    {"role": "operator", "users": ["ada", "Jürgen"]},
    {"role": "operator", "groups": ["ops", "Ops Team"]},
    {"role": "viewer", "groups": ["staff"]},
    {"role": "viewer", "domains": ["acme.test"]},
]
CHANGE = "/api/task/revoke/no-such-task"


class Site:
    """A Flower behind a proxy that is this test."""

    def __init__(self, start: Callable[..., Flower], redis: Redis) -> None:
        self.password = secrets.token_urlsafe(12)
        users = [{"name": "robot", "hash": sha512_crypt.using(rounds=5000).hash(self.password), "role": "viewer"}]
        credentials = {"cookie_secret": secrets.token_hex(32), "users": users, "celery": {"broker_url": redis.url}}
        self.flower = start({"auth": "header", "access": ACCESS, "url_prefix": "/f"}, credentials, unix_socket=True)

    def role(self, lines: list[tuple[bytes, bytes]]) -> str | None:
        """What somebody with these headers, bytes as they come over the wire, may do."""
        if self.raw("GET", "/f/api/workers", lines).startswith("HTTP/1.1 401"):
            return None
        token = secrets.token_hex(8)
        more = [(b"X-Xsrftoken", token.encode()), (b"Cookie", f"_xsrf={token}".encode())]
        answer = self.raw("POST", "/f" + CHANGE, [*lines, *more])
        status = answer.split()[1]
        assert status in ("200", "403"), answer
        return "operator" if status == "200" else "viewer"

    def raw(self, method: str, path: str, lines: list[tuple[bytes, bytes]]) -> str:
        """An answer to a request whose headers no library has tidied up."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(20)
            connection.connect(str(self.flower.unix_socket))
            head = [(b"Host", b"flower.test"), (b"Connection", b"close"), (b"Content-Length", b"0"), *lines]
            text = b"".join(name + b": " + value + b"\r\n" for name, value in head)
            connection.sendall(f"{method} {path} HTTP/1.1\r\n".encode() + text + b"\r\n")
            received = b""
            while more := connection.recv(65536):
                received += more
            return received.decode("utf-8", "replace")

    def audit(self, event: str) -> dict[str, Any]:
        """The newest line of audit, which is written after the answer."""

        def newest() -> dict[str, Any] | None:
            lines = [json.loads(line) for line in re.findall(r"audit (\{.*\})", self.flower.log)]
            return lines[-1] if lines and lines[-1]["event"] == event else None

        line: dict[str, Any] = wait_for(newest, event, 5)
        return line


@pytest.fixture(scope="module")
def site(flower_process: Callable[..., Flower], redis_server: Redis) -> Site:
    return Site(flower_process, redis_server)


def user(name: bytes | str, groups: bytes | str = b"", email: bytes | str = b"") -> list[tuple[bytes, bytes]]:
    values = ((b"Remote-User", name), (b"Remote-Groups", groups), (b"Remote-Email", email))
    return [(key, value.encode() if isinstance(value, str) else value) for key, value in values if value]


@pytest.mark.parametrize(
    ("lines", "role"),
    [
        (user("ada"), "operator"),
        (user("ADA "), "operator"),
        (user("grace", "staff"), "viewer"),
        (user("grace", "other, staff ,ops"), "operator"),
        (user("grace", "Ops Team"), "operator"),
        # groups are compared exactly, and a part of a name is none
        (user("grace", "Staff,opsx,Ops"), None),
        (user("grace", ",,"), None),
        (user("grace", "", "grace@ACME.test"), "viewer"),
        (user("grace", "", "grace@other.test"), None),
        (user("eve"), None),
        ([], None),
        # a name says nothing of an address
        (user("grace@acme.test"), None),
        # names beyond ASCII, in UTF-8 and as old proxies send them
        (user("Jürgen"), "operator"),
        (user("jürgen".encode("latin-1")), "operator"),
    ],
)
def test_roles(site: Site, lines: list[tuple[bytes, bytes]], role: str | None) -> None:
    assert site.role(lines) == role


@pytest.mark.parametrize(
    "lines",
    [
        # one of the two is somebody else's, wherever it stands
        [*user("ada"), *user("eve")],
        [*user("eve"), *user("ada")],
        [*user("ada"), *user("ada")],
        [*user("eve", "ops"), (b"Remote-Groups", b"other")],
        [*user("eve", "other"), (b"remote-groups", b"ops")],
        [*user("eve", "", "x@evil.test"), (b"REMOTE-EMAIL", b"x@acme.test")],
        # more than one address in one line, or half of one
        user("eve", "", "eve@evil.test,x@acme.test"),
        user("eve", "", "eve@evil.test, x@acme.test"),
        user("eve", "", "eve@evil.test <x@acme.test"),
        user("eve", "", "a@b@acme.test"),
        user("eve", "", "@acme.test"),
        user("eve", "", "eve@acme.test "[:-1] + "\u00a0"),
        # nobody, with everything else
        user("", "ops", "x@acme.test"),
        [(b"Remote-User", b"   "), *user("", "ops")],
        [(b"Remote-User", "\u00a0".encode()), *user("", "ops")],
        # names that a reader of the audit would not see, or that never end
        user("ada\u202e", "ops"),
        user("x" * 257, "ops"),
        # underscores are other headers
        [(b"Remote_User", b"ada"), (b"REMOTE_GROUPS", b"ops")],
        [(b"Remote-User-Name", b"ada"), (b"X-Remote-User", b"ada")],
        [(b"X-Forwarded-User", b"ada"), (b"X-Forwarded-Groups", b"ops")],
    ],
)
def test_headers_that_are_not_believed(site: Site, lines: list[tuple[bytes, bytes]]) -> None:
    assert site.role(lines) is None


def test_many_groups(site: Site) -> None:
    assert site.role(user("grace", ",".join(f"group{number}" for number in range(3000)) + ",staff")) == "viewer"


def test_a_page_of_ones_own(site: Site) -> None:
    answer = site.flower.request("GET", "/tasks", {**BROWSER, "Remote-User": "ada"})
    assert answer.status == 200 and answer.cookie("user") is None


def post(site: Site, headers: dict[str, str], token: str = "", name: str = "ada") -> Response:
    sent = {"Remote-User": name, **headers, **({"X-Xsrftoken": token} if token else {})}
    return site.flower.request("POST", CHANGE, sent, cookies={"_xsrf": token} if token else None)


def test_other_sites_cannot_use_the_proxys_session(site: Site) -> None:
    token = secrets.token_hex(8)
    assert post(site, {"Sec-Fetch-Site": "same-origin"}, token).status == 200
    assert post(site, {"Sec-Fetch-Site": "cross-site"}, token).status == 403
    assert post(site, {"Sec-Fetch-Site": "same-site"}, token).status == 403
    assert post(site, {"Origin": "https://evil.test"}, token).status == 403
    if flower_package.VERSION >= (2, 2):
        assert post(site, {"Sec-Fetch-Site": "same-origin"}).status == 403
        # a header that the proxy may add is no way round it
        assert post(site, {"Authorization": "Bearer x", "Sec-Fetch-Site": "cross-site"}).status == 403


def test_audit(site: Site) -> None:
    assert post(site, {"X-Real-IP": "203.0.113.7"}, "abcd").status == 200
    line = site.audit("change")
    assert (line["user"], line["role"], line["via"], line["address"]) == ("ada", "operator", "header", "203.0.113.7")
    site.flower.request("POST", CHANGE, {"Remote-User": "grace", "Remote-Groups": "staff"})
    line = site.audit("refused")
    assert (line["user"], line["role"], line["via"]) == ("grace", "viewer", "header")


def test_who_may_not_is_told_so_and_goes_in_no_circle(site: Site) -> None:
    headers = {**BROWSER, "Remote-User": "eve", "X-Real-IP": "203.0.113.8"}
    answer = site.flower.request("GET", "/tasks", headers)
    assert (answer.status, answer.headers["Location"]) == (302, "/f/login?next=%2Ff%2Ftasks")
    answer = site.flower.request("GET", "/login?next=%2Ff%2Ftasks", headers)
    assert (answer.status, answer.text) == (403, "eve may not use this Flower. Ask its operator for access.\n")
    line = site.audit("sign-in refused")
    assert (line["user"], line["via"], line["address"]) == ("eve", "header", "203.0.113.8")
    for lines in ({}, {"Remote-User": "x" * 300}):
        answer = site.flower.request("GET", "/login", {**BROWSER, **lines})
        assert (answer.status, "gave no name" in answer.text) == (401, True)
    # who may is sent on
    answer = site.flower.request("GET", "/login?next=%2Ff%2Ftasks", {**BROWSER, "Remote-User": "ada"})
    assert (answer.status, answer.headers["Location"]) == (302, "/f/tasks")


def test_there_is_nothing_to_sign_out_from(site: Site) -> None:
    answer = site.flower.request("GET", "/logout", {**BROWSER, "Remote-User": "ada"})
    assert answer.status == 200
    assert answer.text == "The proxy before this Flower signs people in and out: sign out there.\n"


def test_scripts_use_accounts_with_a_password(site: Site) -> None:
    basic = ("robot", site.password)
    assert site.flower.request("GET", "/api/workers", basic=basic).status == 200
    assert site.flower.request("POST", CHANGE, basic=basic).status == 403
    # headers beside a password give nothing more, and none in its stead
    assert site.flower.request("POST", CHANGE, {"Remote-User": "ada"}, basic=basic).status == 403
    wrong = ("robot", "wrong")
    assert site.flower.request("GET", "/api/workers", {"Remote-User": "ada"}, basic=wrong).status == 401


def test_no_session_is_left_of_another_way_in(site: Site) -> None:
    for value in ("ada", "u::ada", "s::eyJ9"):
        assert site.flower.request("GET", "/api/workers", cookies={"user": value}).status == 401


def test_without_a_socket_it_does_not_start(flower_process: Callable[..., Flower], redis_server: Redis) -> None:
    credentials = {"cookie_secret": secrets.token_hex(32), "celery": {"broker_url": redis_server.url}}
    flower = flower_process({"auth": "header", "access": ACCESS}, credentials, wait=False)
    assert flower.process.wait(timeout=20) == 78
    assert 'unix_socket: auth "header" believes headers on a unix socket only, and there is none.' in flower.log


def test_a_rule_is_needed(tmp_path: Path) -> None:
    settings = Settings(auth="header", unix_socket=str(tmp_path / "s"), port=free_port())
    with pytest.raises(SettingsError, match="it must say who may come in"):
        check(settings, Credentials(users=(User("a", sha512_crypt.using(rounds=5000).hash("x")),)))


def request(family: int, *lines: tuple[str, str]) -> Any:
    headers = HTTPHeaders()
    for name, value in lines:
        headers.add(name, value)
    context = SimpleNamespace(address_family=family)
    return SimpleNamespace(headers=headers, connection=SimpleNamespace(context=context))


def settings_with(**names: str) -> Settings:
    return Settings(auth="header", access=ACCESS, header=Header(**names))


def test_headers_over_tcp_are_never_believed() -> None:
    line = ("Remote-User", "ada")
    assert header_person(request(socket.AF_UNIX, line), settings_with()) == "ada"
    for family in (socket.AF_INET, socket.AF_INET6):
        assert header_person(request(family, line), settings_with()) is None


def test_names_and_separators_of_other_proxies() -> None:
    lines = (("X-Auth-Request-User", "eve"), ("X-Auth-Request-Groups", "a|ops, b|c"))
    names = {"user": "X-Auth-Request-User", "groups": "X-Auth-Request-Groups"}
    assert header_person(request(socket.AF_UNIX, *lines), settings_with(**names, separator="|")) is None
    lines = (lines[0], ("X-Auth-Request-Groups", "a|ops|b,c"))
    person = header_person(request(socket.AF_UNIX, *lines), settings_with(**names, separator="|"))
    assert person is not None and (person.role, person.via) == ("operator", "header")
    assert header_person(request(socket.AF_UNIX, *lines), settings_with(**names)) is None
    # no separator: the header is one group
    alone = (lines[0], ("X-Auth-Request-Groups", "ops"))
    assert header_person(request(socket.AF_UNIX, *alone), settings_with(**names, separator="")) is not None
    # no header of that kind
    without = settings_with(**names | {"groups": "", "email": ""})
    assert header_person(request(socket.AF_UNIX, *alone), without) is None
    # an address that is the name: both headers are the same one
    same = settings_with(user="Cf-Access-User", email="Cf-Access-User")
    person = header_person(request(socket.AF_UNIX, ("Cf-Access-User", "ada@acme.test")), same)
    assert person is not None and person.role == "viewer"
