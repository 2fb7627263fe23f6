"""Guessing passwords is slow, seen from outside, and is written down."""

from __future__ import annotations

import json
import re
import secrets as random
import subprocess
from urllib.parse import urlencode

from tests.hosts import USER_NAME, Host, basic, scenario_secrets, wait_for
from tests.lifecycle.looks import collector_pid
from tests.plays import run_play


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


def session(host: Host, name: str, password: str) -> dict[str, str]:
    """Sign in with the form; the cookie as a browser sends it back, empty when nginx wants us to wait."""
    page = host.get("/login")
    token = re.search(r'name="_xsrf" value="([^"]+)"', page.text)
    assert token
    form = urlencode({"username": name, "password": password, "_xsrf": token[1]})
    cookies = [line.split(";")[0] for line in page.headers.get_all("Set-Cookie") or []]
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Cookie": "; ".join(cookies)}
    answer = host.post("/login", headers, form)
    if answer.status == 429:
        return {}
    assert answer.status == 303, answer.text
    (cookie,) = [line.split(";")[0] for line in answer.headers.get_all("Set-Cookie") or [] if line.startswith("user=")]
    return {"Cookie": cookie}


def test_a_changed_password_ends_that_users_sessions_and_no_others(host: Host) -> None:
    known = scenario_secrets()
    passwords = {USER_NAME: known["user_password"], "vera": known["viewer_password"]}
    # nginx's count of sign-ins is full from the test before, and has room again each six seconds
    sessions = {
        name: wait_for(f"a place for {name} in nginx's count", lambda name=name: session(host, name, passwords[name]))
        for name in passwords
    }
    assert [host.get("/api/workers", cookie).status for cookie in sessions.values()] == [200, 200]
    users = [
        {"name": USER_NAME, "password": random.token_urlsafe(18)},
        {"name": "vera", "password": known["viewer_password"], "role": "viewer"},
    ]
    pid = collector_pid(host)
    run_play("site.yml", {"flower_users": users}).well()
    assert collector_pid(host) == pid, "no event is lost for a password"
    assert host.get("/api/workers", sessions[USER_NAME]).status == 401
    assert host.get("/api/workers", sessions["vera"]).status == 200
    run_play("site.yml").well()
    assert host.get("/api/workers", basic(USER_NAME, known["user_password"])).status == 200
