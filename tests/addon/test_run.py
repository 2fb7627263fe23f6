"""A Flower's life: how it starts under systemd, what it shows of itself, how it ends."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from addon_support import BROWSER, INSTALL, Flower, Redis, wait_for
from celery import Celery
from passlib.hash import pbkdf2_sha256

HASH = pbkdf2_sha256.using(rounds=1000)


class Systemd:
    """Listens as systemd does on $NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.setblocking(False)
        self.messages: list[str] = []

    def heard(self, word: str) -> int:
        """How often a line was heard so far."""
        while True:
            try:
                self.messages += self.socket.recv(4096).decode().splitlines()
            except BlockingIOError:
                return sum(line == word for line in self.messages)


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    listener = Systemd(str(tmp_path / "notify"))
    yield listener
    listener.socket.close()


def secrets_of(redis: Redis) -> dict[str, str]:
    return {"cookie": secrets.token_hex(32), "alice": secrets.token_urlsafe(16), "redis": redis.password}


def send_task_event(redis: Redis, uuid: str) -> None:
    app = Celery(broker=redis.url, set_as_current=False)
    with app.connection() as connection, app.events.Dispatcher(connection, hostname="w1@test") as dispatcher:
        dispatcher.send("task-received", uuid=uuid, name="tests.kept", args="()", kwargs="{}")


def test_a_life(flower_process: Callable[..., Flower], redis_server: Redis, systemd: Systemd) -> None:
    secret = secrets_of(redis_server)
    stored = HASH.hash(secret["alice"])
    credentials = {
        "cookie_secret": secret["cookie"],
        "users": [{"name": "alice", "hash": stored}],
        "celery": {"broker_url": redis_server.url},
    }
    # 3 s: a sign of life every 1.5 s
    environment = {"NOTIFY_SOCKET": systemd.socket.getsockname(), "WATCHDOG_USEC": "3000000"}
    settings = {"url_prefix": "flo", "secure_cookies": True}
    config = "persistent = True\ndb = 'state'\nlogging = 'debug'\nmax_tasks = 500\n"
    flower = flower_process(settings, credentials, config=config, environment=environment, unix_socket=True)
    wait_for(lambda: systemd.heard("READY=1"), "READY=1")
    assert any(line.startswith("EXTEND_TIMEOUT_USEC=") for line in systemd.messages)
    wait_for(lambda: systemd.heard("WATCHDOG=1") >= 2, "two signs of life")

    # under a prefix, with Secure cookies
    answer = flower.request("GET", "/tasks", BROWSER)
    assert (answer.status, answer.headers["Location"]) == (302, "/flo/login?next=%2Fflo%2Ftasks")
    answer = flower.sign_in("alice", secret["alice"], next_page="/flo/tasks")
    assert (answer.status, answer.headers["Location"]) == (303, "/flo/tasks")
    line = answer.cookie("user") or ""
    assert "Secure" in line and "HttpOnly" in line and "Path=/flo;" in line
    assert "Secure" in (flower.request("GET", "/login", BROWSER).cookie("_xsrf") or "")
    cookies = {"user": answer.cookie_value("user")}
    assert flower.request("GET", "/tasks", BROWSER, cookies=cookies).status == 200
    assert "Path=/flo" in (flower.request("GET", "/logout", BROWSER, cookies=cookies).cookie("user") or "")
    assert flower.sign_in("alice", "wrong").status == 401

    # an event, to be found again after a restart
    def has_task() -> bool:
        send_task_event(redis_server, "kept-1")
        return "kept-1" in flower.request("GET", "/api/tasks", cookies=cookies).text

    wait_for(has_task, "the task")

    # nothing secret where others can look; debug logging shows Flower's own settings, so it is not part of that
    process = Path("/proc") / str(flower.process.pid)
    shown = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
    for value in (*secret.values(), stored):
        assert value.encode() not in shown
    for value in (secret["alice"], secret["redis"], stored):
        assert value not in flower.log

    # SIGTERM: says so, saves, ends well
    assert flower.stop() == 0
    assert systemd.heard("STOPPING=1") == 1
    # another password: the session is over; the history is not
    other = secrets.token_urlsafe(16)
    credentials["users"] = [{"name": "alice", "hash": HASH.hash(other)}]
    (flower.directory / "flower.json").write_text(json.dumps(credentials))
    config_file = flower.directory / "flowerconfig.py"
    config_file.write_text(config.replace("debug", "info") + INSTALL)
    (flower.directory / "log").write_text("")
    flower.start()
    assert flower.request("GET", "/api/tasks", cookies=cookies).status == 401
    answer = flower.request("GET", "/api/tasks", basic=("alice", other))
    assert "kept-1" in answer.text
    for value in (*secret.values(), other, stored):
        assert value not in flower.log


def test_an_abstract_socket_and_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    from flowerbed.notify import notify, watchdog_seconds

    systemd = Systemd(f"@flowerbed-{secrets.token_hex(8)}")
    monkeypatch.setenv("NOTIFY_SOCKET", "@" + systemd.socket.getsockname().decode().lstrip("\0"))
    assert notify("READY=1", "STATUS=well")
    assert systemd.heard("READY=1") == systemd.heard("STATUS=well") == 1
    systemd.socket.close()
    assert not notify("READY=1")
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    assert watchdog_seconds() == 30
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert watchdog_seconds() is None
    monkeypatch.delenv("NOTIFY_SOCKET")
    assert not notify("READY=1")


def test_a_laptop(flower_process: Callable[..., Flower], redis_server: Redis) -> None:
    environment = {
        "CELERY_BROKER_URL": redis_server.url,
        "FLOWER_BASIC_AUTH": "alice:a:b,bob:c",
        "FLOWER_INSPECT_TIMEOUT": "",
    }
    flower = flower_process(environment=environment)
    for basic in (("alice", "a:b"), ("bob", "c")):
        assert flower.request("GET", "/api/workers", basic=basic).status == 200
    assert flower.request("GET", "/api/workers", basic=("alice", "a")).status == 401
    assert flower.sign_in("bob", "c").status == 303
    assert redis_server.password not in flower.log


def test_a_users_own_app_and_no_login(
    flower_process: Callable[..., Flower], redis_server: Redis, tmp_path: Path
) -> None:
    (tmp_path / "my_project.py").write_text(
        "from celery import Celery\n"
        "app = Celery('mine', broker='redis://:wrong@127.0.0.1:1/0')\n"
        "app.conf.task_default_queue = 'my-own-queue'\n"
        "@app.task(name='my.task')\ndef task(): pass\n"
    )
    credentials = {"celery": {"broker_url": [redis_server.url, redis_server.url]}}
    settings = {"app": "my_project:app", "app_dir": str(tmp_path), "auth": "none"}
    flower = flower_process(settings, credentials)
    assert flower.request("GET", "/", BROWSER).status == 200
    wait_for(lambda: "my-own-queue" in flower.request("GET", "/broker", BROWSER).text, "the queue of the app")
    assert "my.task" in flower.log
    assert flower.request("GET", "/login").status == 404


MISTAKES = [
    ({}, {"cookie_secret": "x"}, "", "There are no users"),
    ({}, {"users": [{"name": "alice", "hash": "plain"}]}, "", "of no kind that can be read"),
    ({"auth": "flower"}, {}, "", "it would be open"),
    ({"auth": "none"}, {}, "basic_auth = ['a:b']\n", 'needs auth "flower"'),
    ({"auth": "none", "url_prefix": "a"}, {}, "url_prefix = 'b'\n", "sets url_prefix otherwise"),
    ({"auth": "none"}, {"options": {"broker_apy": "x"}}, "", "did you mean broker_api?"),
    ({"auth": "none", "flowerconfig": "/nowhere.py"}, {}, "", "cannot be read"),
    ({"prot": 1}, {}, "", "did you mean port?"),
]


@pytest.mark.parametrize(("settings", "credentials", "config", "sentence"), MISTAKES)
def test_mistakes_are_one_sentence_and_78(
    flower_process: Callable[..., Flower],
    settings: dict[str, object],
    credentials: dict[str, object],
    config: str,
    sentence: str,
) -> None:
    flower = flower_process(settings, credentials, config=config, wait=False)
    assert flower.process.wait(timeout=20) == 78
    said = flower.log.splitlines()
    assert len(said) == 1 and said[0].startswith("flowerbed: ") and sentence in said[0], flower.log


def test_undoing_auth_after_install_does_not_open_flower(flower_process: Callable[..., Flower]) -> None:
    credentials = {"users": [{"name": "alice", "hash": HASH.hash("word")}]}
    flower = flower_process({}, credentials, config=INSTALL + "auth = ''\ndef _install(x): pass\n", wait=False)
    # the file's last lines install again, so undo that one too
    config = flower.directory / "flowerconfig.py"
    flower.process.kill()
    flower.process.wait()
    config.write_text(INSTALL + "auth = ''\n")
    flower.start(wait=False)
    assert flower.process.wait(timeout=20) == 78
    assert "auth was changed" in flower.log


def test_a_stopped_event_loop_gives_no_sign_of_life(
    flower_process: Callable[..., Flower], redis_server: Redis, systemd: Systemd
) -> None:
    environment = {"NOTIFY_SOCKET": systemd.socket.getsockname(), "WATCHDOG_USEC": "400000"}
    environment["CELERY_BROKER_URL"] = redis_server.url
    flower = flower_process(environment=environment)
    wait_for(lambda: systemd.heard("WATCHDOG=1"), "a sign of life")
    os.kill(flower.process.pid, signal.SIGSTOP)
    time.sleep(0.3)
    before = systemd.heard("WATCHDOG=1")
    time.sleep(1)
    assert systemd.heard("WATCHDOG=1") == before
    os.kill(flower.process.pid, signal.SIGCONT)
    wait_for(lambda: systemd.heard("WATCHDOG=1") > before, "life again")
