"""Guessing passwords is slow, seen from outside, and is written down."""

from __future__ import annotations

import json
import secrets as random
import subprocess

from tests.hosts import USER_NAME, Host, basic, scenario_secrets


def test_a_wrong_password_is_throttled_and_logged(host: Host) -> None:
    """Five wrong ones are allowed (flower_login_attempts), and not even the right one after them."""
    stranger, wrong = f"mallory-{random.token_hex(3)}", random.token_urlsafe(12)
    answers = [host.get("/api/workers", basic(stranger, wrong)) for _ in range(6)]
    assert [answer.status for answer in answers] == [401] * 5 + [429]
    assert int(answers[-1].headers["Retry-After"]) > 0
    journal = host.run("journalctl", "-u", "flower@main", "--no-pager", "-o", "json")
    lines = [str(json.loads(line)["MESSAGE"]) for line in journal.splitlines()]
    failed = [line for line in lines if stranger in line]
    assert len(failed) >= 5
    gateway = host.shell("ip -4 route show default | cut -d' ' -f3").strip()
    assert all(gateway in line for line in failed), failed
    assert "locked" in failed[-1]
    assert wrong not in journal


def test_another_user_of_the_same_address_is_let_in(host: Host) -> None:
    assert host.get("/api/workers", basic(USER_NAME, scenario_secrets()["user_password"])).status == 200


def post_login(host: Host) -> tuple[int, str]:
    """What the form answers when it is sent without its token: status and page."""
    done = subprocess.run(
        ["curl", "--silent", "--show-error", "--insecure", "--resolve", f"{host.server_name}:443:{host.address}",
         "--data", "username=eve&password=guess", "--write-out", "\n%{http_code}", f"https://{host.server_name}/login"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    page, _, status = done.stdout.rpartition("\n")
    return int(status), page


def test_nginx_limits_the_login(host: Host) -> None:
    """flower_login_rate 10r/m with a burst of 5: of a dozen at once only six reach Flower."""
    answers = [post_login(host) for _ in range(12)]
    limited = [page for status, page in answers if status == 429]
    assert [status for status, _ in answers[:6]] == [403] * 6, "the first ones reach Flower, which misses the token"
    assert len(limited) >= 5
    assert all("<center>nginx</center>" in page for page in limited), "nginx itself answers, not Flower"
    assert host.get("/login").status == 200, "looking at the page is not limited"
