"""The front door behind other proxies: who is believed, who is let in, and whose address is written down.

Each play stands for an operator's inventory; clients and proxies are addresses of 127.0.0.0/8 on the host itself.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.hosts import USER_NAME, Host, basic, scenario_secrets
from tests.plays import run_play
from tests.visits import Seen, Visit, log_lines, visit

SIGNS_IN, PROXY, STRANGER = "127.0.0.9", "127.0.0.10", "127.0.0.11"
CLIENT, OUTSIDER = "192.0.2.7", "198.51.100.7"
BEHIND_PROXIES: dict[str, Any] = {
    "flower_auth": "header",
    "flower_access": [{"role": "operator", "users": ["grace"]}],
    "flower_header_user": "X-Signed-In",
    "flower_header_email": "X-Signed-In-Email",
    "flower_header_groups": "X-Signed-In-Groups",
    "flower_header_proxies": [f"{SIGNS_IN}/32"],
    "flower_trusted_proxies": [SIGNS_IN, PROXY],
    # 127.0.0.1 is let in in any case; naming it must not make nginx complain.
    "flower_allow": ["192.0.2.0/24", "127.0.0.1", SIGNS_IN],
    "flower_metrics_allow": [CLIENT, OUTSIDER],
}
PROXY_PROTOCOL: dict[str, Any] = {
    "flower_proxy_protocol": True,
    "flower_trusted_proxies": [PROXY],
    "flower_content_security_policy": "",
    "flower_login_rate": "1r/s",
    "flower_login_burst": 1,
    "flower_max_body": "2k",
}
GRACE = {"X-Signed-In": "grace", "X-Signed-In-Email": "grace@example.org"}


def play(host: Host, variables: dict[str, Any]) -> None:
    """Apply the variables; nginx is content."""
    run_play("site.yml", variables).well()
    assert "[" not in host.shell("nginx -t 2>&1"), "neither a warning nor an error"


def said_by_flower(host: Host, marked: str) -> str:
    """Lines of Flower's journal with this text in them."""
    lines = host.run("journalctl", "-u", "flower@main", "--no-pager", "-o", "cat").splitlines()
    return "\n".join(line for line in lines if marked in line)


@pytest.fixture(scope="class")
def behind_proxies(host: Host) -> None:
    """Header mode behind two trusted proxies, for some networks only. A second play has nothing to do."""
    play(host, BEHIND_PROXIES)
    assert run_play("site.yml", BEHIND_PROXIES).well().changed_tasks == []


@pytest.mark.usefixtures("behind_proxies")
class TestBehindProxies:
    def ask(self, host: Host, source: str, headers: dict[str, str], path: str = "/api/workers", **more: Any) -> Seen:
        return visit(host, Visit(path, source, headers=headers, **more))[0]

    @pytest.mark.parametrize(
        ("source", "headers", "status"),
        [
            (SIGNS_IN, GRACE, 200),
            (SIGNS_IN, {"x-signed-in": "grace"}, 200),
            (SIGNS_IN, {**GRACE, "X-Forwarded-For": CLIENT}, 200),
            (SIGNS_IN, {"X-Signed-In": "mallory"}, 401),
            (SIGNS_IN, {"X_Signed_In": "grace"}, 401),
            (SIGNS_IN, {}, 401),
            # A trusted proxy may say where the client is, not who: and not by pretending to be another proxy.
            (PROXY, {**GRACE, "X-Forwarded-For": CLIENT}, 401),
            (PROXY, {**GRACE, "X-Forwarded-For": SIGNS_IN}, 401),
            ("127.0.0.1", GRACE, 401),
            ("127.0.0.1", {**GRACE, "X-Forwarded-For": SIGNS_IN}, 401),
            ("127.0.0.1", {"X_Signed_In": "grace"}, 401),
        ],
    )
    def test_headers_are_believed_from_the_named_proxy_only(
        self, host: Host, source: str, headers: dict[str, str], status: int
    ) -> None:
        seen = self.ask(host, source, headers)
        # Somebody whom no rule fits is told so.
        assert seen.status == status or (status, seen.status) == (401, 403), seen

    @pytest.mark.parametrize(
        ("source", "client", "let_in"),
        [
            (PROXY, CLIENT, True),
            (PROXY, OUTSIDER, False),
            (PROXY, f"{CLIENT}, {OUTSIDER}", False),
            (PROXY, f"{OUTSIDER}, {CLIENT}", True),
            (PROXY, f"{CLIENT}, {SIGNS_IN}", True),
            (STRANGER, CLIENT, False),
            (STRANGER, None, False),
            ("127.0.0.1", None, True),
            ("127.0.0.1", OUTSIDER, True),
        ],
    )
    @pytest.mark.parametrize("path", ["/login", "/api/workers", "/static/favicon.ico", "/no-such-page"])
    def test_only_the_allowed_networks_come_in(
        self, host: Host, source: str, client: str | None, let_in: bool, path: str
    ) -> None:
        seen = self.ask(host, source, {"X-Forwarded-For": client} if client else {}, path)
        by_nginx = seen.status == 403 and "<center>nginx</center>" in seen.text
        assert by_nginx is not let_in, seen

    def test_plain_http_is_closed_to_outsiders_too(self, host: Host) -> None:
        assert self.ask(host, STRANGER, {}, port=80, tls=False).status == 403
        assert self.ask(host, PROXY, {"X-Forwarded-For": CLIENT}, port=80, tls=False).status == 301

    def test_metrics_are_for_those_who_may_come_in_and_see_them(self, host: Host) -> None:
        assert self.ask(host, PROXY, {"X-Forwarded-For": CLIENT}, "/metrics").status != 403
        assert self.ask(host, PROXY, {"X-Forwarded-For": OUTSIDER}, "/metrics").status == 403
        assert self.ask(host, PROXY, {"X-Forwarded-For": "192.0.2.8"}, "/metrics").status == 403

    def test_the_clients_address_is_written_down_and_counted(self, host: Host) -> None:
        many = {"X-Forwarded-For": f"{OUTSIDER}, 192.0.2.20"}
        answers = visit(host, Visit("/login", PROXY, "POST", headers=many, body="a=b", most=12, until=429))
        assert answers[-1].status == 429
        assert log_lines(host, "192.0.2.20 - - ")
        assert self.ask(host, PROXY, {"X-Forwarded-For": "192.0.2.21"}, "/login").status != 429
        # Whoever is no proxy of ours is who connects, whatever it says.
        self.ask(host, STRANGER, {"X-Forwarded-For": "192.0.2.22"})
        assert log_lines(host, f"{STRANGER} - - ")
        assert not log_lines(host, "192.0.2.22")

    def test_flower_writes_down_the_clients_address(self, host: Host) -> None:
        self.ask(host, SIGNS_IN, {"X-Signed-In": "trudy", "X-Forwarded-For": "192.0.2.23"}, "/login")
        assert "192.0.2.23" in said_by_flower(host, "trudy")


@pytest.fixture(scope="class")
def proxy_protocol(host: Host) -> None:
    """Before nginx is a load balancer that speaks the PROXY protocol."""
    play(host, PROXY_PROTOCOL)


@pytest.mark.usefixtures("proxy_protocol")
class TestProxyProtocol:
    """https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt, version 1."""

    def line(self, client: str) -> str:
        return f"PROXY TCP4 {client} 192.0.2.1 40000 443\r\n"

    def test_the_clients_address_is_written_down(self, host: Host) -> None:
        wrong = basic("eve", scenario_secrets()["user_password"])
        seen = visit(host, Visit("/api/workers", PROXY, headers=wrong, before=self.line("192.0.2.31")))[0]
        assert seen.status == 401
        assert log_lines(host, "192.0.2.31 - - ")
        assert "192.0.2.31" in said_by_flower(host, "eve")
        assert not log_lines(host, f"{PROXY} - - ")[-1:] or "eve" not in log_lines(host, f"{PROXY} - - ")[-1]

    def test_a_user_comes_in(self, host: Host) -> None:
        good = basic(USER_NAME, scenario_secrets()["user_password"])
        assert visit(host, Visit("/api/workers", PROXY, headers=good, before=self.line(CLIENT)))[0].status == 200

    def test_whoever_does_not_speak_it_gets_nothing(self, host: Host) -> None:
        assert visit(host, Visit("/login", PROXY))[0].status == 0
        assert visit(host, Visit("/login", PROXY, port=80, tls=False))[0].status in (0, 400)

    def test_others_are_not_believed(self, host: Host) -> None:
        assert visit(host, Visit("/login", STRANGER, before=self.line("192.0.2.32")))[0].status == 200
        assert not log_lines(host, "192.0.2.32")
        # Nor is another header of somebody who is.
        claim = {"X-Forwarded-For": "192.0.2.33", "X-Real-IP": "192.0.2.33"}
        visit(host, Visit("/login", PROXY, headers=claim, before=self.line("192.0.2.34")))
        assert not log_lines(host, "192.0.2.33")
        assert log_lines(host, "192.0.2.34 - - ")

    def test_plain_http_speaks_it_too(self, host: Host) -> None:
        plain = Visit("/tasks", PROXY, before=self.line("192.0.2.35").replace("443", "80"), port=80, tls=False)
        seen = visit(host, plain)[0]
        assert (seen.status, seen.headers["Location"]) == (301, f"https://{host.server_name}/tasks")

    def test_the_other_limits_are_those_of_the_variables(self, host: Host) -> None:
        before = self.line("192.0.2.36")
        answers = visit(host, Visit("/login", PROXY, "POST", body="a=b", before=before, most=20, until=429))
        assert 3 <= len(answers) < 20
        assert answers[-1].headers["Retry-After"] == "1"
        # What the page itself sends, which is less than the default.
        assert "default-src" not in answers[0].headers.get("Content-Security-Policy", "")
        body = Visit("/no-such-page", PROXY, "POST", body="x" * 2049, before=self.line("192.0.2.37"))
        assert visit(host, body)[0].status == 413


def test_the_host_is_an_ordinary_one_again(host: Host) -> None:
    """And its doctor goes through the front door, which without PROXY protocol it can."""
    play(host, {})
    settings = json.loads(host.run("cat", "/etc/flower/main/flowerbed.json"))
    assert settings["connect"] == "127.0.0.1:443"
    assert visit(host, Visit("/login", STRANGER))[0].status == 200
