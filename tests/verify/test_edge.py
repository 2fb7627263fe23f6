"""What nginx bounds, refuses and writes down, tried by going over each limit.

Every test is a client with an address of its own: limits are counted for each.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from secrets import token_hex

import pytest

from tests.hosts import USER_NAME, Host, basic, wait_for
from tests.visits import Seen, Visit, log_lines, visit


def test_nginx_has_nothing_to_complain_of(host: Host) -> None:
    said = host.shell("nginx -t 2>&1")
    assert "syntax is ok" in said
    assert [line for line in said.splitlines() if "[" in line] == []


def refused_after(answers: list[Seen], allowed: int, seconds: str) -> None:
    """The last answer is nginx's 429, and none of the first `allowed`."""
    statuses = [answer.status for answer in answers]
    assert statuses[-1] == 429, statuses
    assert len(statuses) > allowed
    assert answers[-1].headers["Retry-After"] == seconds
    assert "nosniff" in answers[-1].headers["X-Content-Type-Options"]


@pytest.mark.parametrize(
    ("source", "request_", "allowed"),
    [
        # 10 a minute, and 5 beyond.
        ("127.0.1.1", Visit("/login", method="POST", body="username=x&password=y"), 6),
        # As the API: a whole office may come back from a service at nine.
        ("127.0.1.2", Visit("/login?code=abc&state=def"), 60),
        ("127.0.1.3", Visit("/login?state=def&error=access_denied"), 60),
    ],
    ids=["password", "back from a sign-in service", "refused by a sign-in service"],
)
def test_sign_ins_are_limited(host: Host, source: str, request_: Visit, allowed: int) -> None:
    answers = visit(host, Visit(**{**vars(request_), "source": source, "most": allowed * 20, "until": 429}))
    refused_after(answers, allowed, "6")
    # Looking at the page is no sign-in, and others have a count of their own.
    assert visit(host, Visit("/login", source=source))[0].status == 200
    assert visit(host, Visit(**{**vars(request_), "source": "127.0.1.9"}))[0].status != 429


def test_calls_of_the_api_are_limited(host: Host) -> None:
    """20 a second, and 60 beyond."""
    answers = visit(host, Visit("/api/workers", source="127.0.1.4", most=2000, until=429))
    refused_after(answers, 60, "1")
    assert {answer.status for answer in answers[:60]} == {401}
    assert visit(host, Visit("/login", source="127.0.1.4"))[0].status == 200


def test_pages_are_limited(host: Host) -> None:
    """50 a second, and 200 beyond: some pages with all that they load, and never what a person does."""
    answers = visit(host, Visit("/static/favicon.ico", source="127.0.1.5", most=5000, until=429))
    refused_after(answers, 200, "1")
    assert {answer.status for answer in answers[:200]} == {200}


def test_polling_meets_no_limit(host: Host, secrets: dict[str, str]) -> None:
    """A page asks once a second; a minute of that at once."""
    headers = basic(USER_NAME, secrets["user_password"])
    answers = visit(host, Visit("/workers?json=1", source="127.0.1.6", headers=headers, most=60))
    assert {answer.status for answer in answers} == {200}


@contextmanager
def held(host: Host, number: int) -> Iterator[None]:
    """So many requests under way: nginx waits for bodies that do not come."""
    trusts = host.tls()
    with ExitStack() as stack:
        for _ in range(number):
            plain = stack.enter_context(socket.create_connection((host.address, 443), timeout=20))
            secured = stack.enter_context(trusts.wrap_socket(plain, server_hostname=host.server_name))
            secured.sendall(f"POST /x HTTP/1.1\r\nHost: {host.server_name}\r\nContent-Length: 10\r\n\r\n".encode())
        yield


def test_connections_are_limited(host: Host) -> None:
    """100 at once from one address."""
    with held(host, 100):
        assert wait_for("a refusal", lambda: host.get("/login").status == 429, seconds=10, every=0.1)
        assert visit(host, Visit("/login", source="127.0.1.7"))[0].status == 200
    assert wait_for("all is well again", lambda: host.get("/login").status == 200, seconds=10, every=0.1)


@pytest.mark.parametrize(("size", "status"), [(1 << 20, 403), ((1 << 20) + 1, 413)], ids=["1 MiB", "a byte more"])
def test_bodies_are_bounded(host: Host, size: int, status: int) -> None:
    seen = visit(host, Visit("/no-such-page", "127.0.1.8", "POST", body="x" * size))[0]
    assert seen.status == 413 if status == 413 else seen.status not in (0, 413)


@pytest.mark.parametrize(("size", "fits"), [(12000, True), (20000, False)])
def test_cookies_of_sign_in_services_fit(host: Host, size: int, fits: bool) -> None:
    seen = visit(host, Visit("/login", "127.0.1.8", headers={"Cookie": "session=" + "x" * size}))[0]
    assert (seen.status == 200) is fits
    assert fits or seen.status == 400


def test_only_what_is_no_secret_is_compressed(host: Host) -> None:
    wanted = {"Accept-Encoding": "gzip"}
    for path in ("/login", "/api/workers", "/", "/no-such-page"):
        assert host.get(path, wanted).headers["Content-Encoding"] is None
    asset = visit(host, Visit("/static/js/flower.js", headers=wanted))[0]
    assert asset.headers["Content-Encoding"] == "gzip"


@contextmanager
def stopped(host: Host) -> Iterator[None]:
    """Flower away, so that nginx has something to complain of."""
    host.run("systemctl", "stop", "flower@main")
    try:
        yield
    finally:
        host.run("systemctl", "start", "flower@main")
        wait_for("Flower is back", lambda: host.get("/healthcheck").status == 200, seconds=60)


def test_no_log_shows_what_a_sign_in_service_sends(host: Host) -> None:
    """Well received, refused by a limit, with Flower away, too big, and over plain HTTP."""
    secret = token_hex(16)
    path = f"/login?code={secret}&state={secret}"
    callback = Visit(path, source="127.0.1.10", headers={"Referer": f"https://id.example.org/?code={secret}"})
    assert visit(host, Visit(**{**vars(callback), "most": 1200, "until": 429}))[-1].status == 429
    assert visit(host, Visit(path, "127.0.1.11", "POST", body="x" * ((1 << 20) + 1)))[0].status == 413
    assert visit(host, Visit(path, "127.0.1.12", port=80, tls=False))[0].status == 301
    with stopped(host):
        assert visit(host, Visit(path, source="127.0.1.13"))[0].status == 502
    for number, status in ((10, 429), (11, 413), (12, 301), (13, 502)):
        assert any(f" {status} " in line for line in log_lines(host, f"127.0.1.{number} ")), "each is written down"
    found = host.shell(
        f"grep -rl {secret} /var/log/nginx; journalctl --no-pager -o cat | grep -c {secret}", check=False
    )
    assert found.split() == ["0"]


def test_the_access_log_says_who_did_what(host: Host) -> None:
    visit(host, Visit("/tasks?search=hidden", "127.0.1.14", headers={"User-Agent": 'a "quoted" agent'}))
    line = log_lines(host, "127.0.1.14 ")[-1]
    assert '"GET /tasks HTTP/1.1" 302 ' in line or '"GET /tasks HTTP/1.1" 401 ' in line
    assert r"a \x22quoted\x22 agent" in line
    assert line.endswith(" TLSv1.3")
    assert "hidden" not in line


def test_the_access_log_is_for_administrators_and_rotated(host: Host) -> None:
    log = "/var/log/nginx/flower-main.access.log"
    assert host.run("stat", "-c", "%a %U %G", log).split() == ["640", "www-data", "adm"]
    # The rule is nginx's own; a small host may lack logrotate itself.
    assert "/var/log/nginx/*.log {" in host.run("cat", "/etc/logrotate.d/nginx")


@pytest.mark.parametrize(
    "path", ["/login", "/workers", "/api/workers", "/no-such-page", "/metrics", "/static/js/flower.js"]
)
def test_every_answer_has_one_policy(host: Host, path: str) -> None:
    policies = host.get(path).headers.get_all("Content-Security-Policy") or []
    assert len(policies) == 1
    rules = dict(rule.strip().partition(" ")[::2] for rule in policies[0].split(";"))
    assert rules["default-src"] == "'none'"
    for directive in ("script-src", "style-src"):
        assert "unsafe" not in rules[directive]


@pytest.mark.parametrize("name", ["Remote-User", "remote-user", "Remote_User", "X-Forwarded-User"])
def test_headers_sign_nobody_in(host: Host, name: str) -> None:
    assert visit(host, Visit("/api/workers", "127.0.1.15", headers={name: USER_NAME}))[0].status == 401
