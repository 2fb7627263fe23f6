"""Who gets in, seen from outside."""

from __future__ import annotations

import subprocess

import pytest

from tests.hosts import USER_NAME, Host, basic


def test_stranger_is_sent_to_the_login(host: Host) -> None:
    answer = host.get("/")
    assert answer.status in (302, 401)
    if answer.status == 302:
        assert "/login" in answer.headers["Location"]


@pytest.mark.parametrize("path", ["/api/workers", "/api/tasks", "/api/task/types", "/workers?json=1"])
def test_stranger_gets_nothing_from_the_api(host: Host, path: str) -> None:
    answer = host.get(path)
    assert answer.status in (302, 401)
    assert "celery-a@" not in answer.text
    assert "workload." not in answer.text


def test_basic_opens_the_api(host: Host, secrets: dict[str, str]) -> None:
    assert host.get("/api/workers", basic(USER_NAME, secrets["user_password"])).status == 200


def test_wrong_password_is_refused_and_logged(host: Host, secrets: dict[str, str]) -> None:
    wrong = secrets["user_password"][:-1]
    assert host.get("/api/workers", basic("mallory", wrong)).status == 401
    journal = host.run("journalctl", "-u", "flower@main", "--no-pager", "-o", "cat")
    line = next((line for line in journal.splitlines() if "mallory" in line), "")
    assert line, "a failed sign-in must be logged with the user's name"
    gateway = host.shell("ip -4 route show default | cut -d' ' -f3").strip()
    assert gateway in line, f"and with the address it came from: {line}"
    assert wrong not in journal


def test_curl_with_basic(host: Host, secrets: dict[str, str]) -> None:
    """The way people write it in scripts; the password goes in by standard input, not by argv."""
    password = secrets["user_password"].replace("\\", "\\\\").replace('"', '\\"')
    done = subprocess.run(
        ["curl", "--silent", "--show-error", "--config", "-", "--insecure",
         "--resolve", f"{host.server_name}:443:{host.address}", f"https://{host.server_name}/api/workers"],
        input=f'user = "{USER_NAME}:{password}"\n', capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "celery-a@" in done.stdout


def test_login_page_sets_no_session_for_a_stranger(host: Host) -> None:
    answer = host.get("/login")
    assert answer.status == 200
    cookies = answer.headers.get_all("Set-Cookie") or []
    assert not [cookie for cookie in cookies if cookie.startswith("user=")]
    assert all("secure" in cookie.lower() for cookie in cookies)
