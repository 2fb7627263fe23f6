"""The doctor before real Flowers, workers and a real Redis, in health and in each of the usual diseases."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from addon_support import OUTSIDE_DOCTOR, Flower, Redis, free_port, wait_for
from passlib.hash import bcrypt

from flowerbed import doctor
from flowerbed.doctor import inside as doctor_inside
from flowerbed.doctor import workers as doctor_workers
from flowerbed.doctor.report import CHECKS, COLLECTOR_CHECKS

#: milliseconds that Flower waits for the answers of workers
QUICK = "inspect_timeout = 300.0\n"
APP = """
import os
from celery import Celery
app = Celery("demo", broker=os.environ["BROKER"])
@app.task(name="demo.add")
def add(a, b):
    return a + b
"""


@dataclass
class Report:
    exit: int
    text: str

    @property
    def checks(self) -> dict[str, dict[str, str]]:
        return {check["name"]: check for check in json.loads(self.text)["checks"]}

    def status(self) -> dict[str, str]:
        return {name: check["status"] for name, check in self.checks.items()}

    def said(self, name: str) -> str:
        return self.checks[name]["message"] + " | " + self.checks[name]["hint"]


def outside(url: str, *arguments: str) -> Report:
    """The doctor as a program of its own, the URL by standard input, as test-flower.sh does it."""
    done = subprocess.run(
        [*OUTSIDE_DOCTOR, "-", "--json", *arguments], input=url, capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    return Report(done.returncode, done.stdout)


@pytest.fixture
def examine(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Report]:
    """The doctor in this process, with less patience for a heartbeat that will not come."""
    monkeypatch.setattr(doctor_workers, "_HEARTBEAT_GRACE", 0.5)
    monkeypatch.setattr(doctor_inside, "_BROKER_SECONDS", 1.0)

    def run(*arguments: str) -> Report:
        capsys.readouterr()
        code = doctor.main([*arguments, "--json"])
        return Report(code, capsys.readouterr().out)

    return run


class Worker:
    """A real Celery worker, and a producer for it."""

    def __init__(self, directory: Path, broker: str, name: str, *arguments: str) -> None:
        (directory / "demo.py").write_text(APP)
        self.directory, self.log = directory, directory / f"{name}.log"
        self.environment = {"PATH": os.environ["PATH"], "BROKER": broker, "PYTHONDONTWRITEBYTECODE": "1"}
        command = [
            sys.executable,
            "-m",
            "celery",
            "-A",
            "demo",
            "worker",
            "--pool=solo",
            "-c1",
            f"--hostname={name}@here",
        ]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "-l", "info", *arguments], cwd=directory, env=self.environment, stdout=log, stderr=log
            )
        wait_for(lambda: " ready." in self.log.read_text(), f"worker {name}", 30)

    def do(self, number: int) -> None:
        from celery import Celery

        app = Celery("producer", broker=self.environment["BROKER"], set_as_current=False)
        before = self.done()
        for _ in range(number):
            app.send_task("demo.add", (1, 2), ignore_result=True)
        wait_for(lambda: self.done() >= before + number, "tasks")

    def done(self) -> int:
        return self.log.read_text().count(" succeeded in ")

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Worker]]:
    started: list[Worker] = []

    def start(broker: str, name: str, *arguments: str) -> Worker:
        started.append(Worker(tmp_path_factory.mktemp("worker"), broker, name, *arguments))
        return started[-1]

    yield start
    for item in started:
        item.stop()


def database(redis: Redis, number: int) -> str:
    return redis.url.removesuffix("/0") + f"/{number}"


def credentials(broker: str | list[str], **users: str) -> dict[str, Any]:
    hashed = [{"name": name, "hash": bcrypt.using(rounds=4).hash(password)} for name, password in users.items()]
    return {"cookie_secret": secrets.token_hex(32), "users": hashed, "celery": {"broker_url": broker}}


def private(flower: Flower) -> str:
    """The path of its settings, after the credentials got the mode that the role gives them."""
    (flower.directory / "flower.json").chmod(0o600)
    return str(flower.directory / "flowerbed.json")


def rewritten(flower: Flower, path: Path, **changes: Any) -> str:
    """Settings that differ from those of the running Flower."""
    path.write_text(json.dumps(json.loads((flower.directory / "flowerbed.json").read_text()) | changes))
    return str(path)


@dataclass
class Site:
    flower: Flower
    worker: Worker
    password: str
    secrets: tuple[str, ...]

    def url(self, user: str = "alice", password: str | None = None) -> str:
        return f"http://{user}:{password or self.password}@127.0.0.1:{self.flower.port}"


@pytest.fixture(scope="module")
def site(flower_process: Callable[..., Flower], worker: Callable[..., Worker], redis_server: Redis) -> Site:
    """All is well here."""
    password = secrets.token_urlsafe(16)
    kept = credentials(redis_server.url, alice=password, guest="guest")
    flower = flower_process({"secure_cookies": False, "login_attempts": 3}, kept, wait=False)
    started = worker(redis_server.url, "w1", "-E")
    wait_for(flower.answers, "Flower")
    wait_for(lambda: "w1@here" in flower.request("GET", "/api/workers?status=1", basic=("alice", password)).text, "w1")
    started.do(2)
    return Site(flower, started, password, (password, redis_server.password, kept["cookie_secret"]))


def test_all_is_well_from_outside(site: Site) -> None:
    report = outside(site.url())
    assert (report.exit, set(report.status().values())) == (0, {"ok"}), report.text
    assert list(report.checks) == [name for name in CHECKS if name not in COLLECTOR_CHECKS]
    assert json.loads(report.text)["passed"] is True
    assert "w1@here" in report.said("workers")
    assert "demo.add SUCCESS" in report.said("tasks")
    assert not [secret for secret in site.secrets if secret in report.text]


def test_all_is_well_for_the_eye(site: Site) -> None:
    done = subprocess.run([*OUTSIDE_DOCTOR, site.url()], capture_output=True, text=True, timeout=60)
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines[1:-1]] == [
        ["ok", name] for name in CHECKS if name not in COLLECTOR_CHECKS
    ]
    assert (done.returncode, lines[-1]) == (0, "All is well.")
    assert "\x1b" not in done.stdout and site.password not in done.stdout


@pytest.mark.parametrize("more", [(), ("--socket",), ("--socket", "--wait", "5", "--only", "ui,auth")])
def test_all_is_well_from_inside(site: Site, examine: Callable[..., Report], more: tuple[str, ...]) -> None:
    report = examine("--settings", private(site.flower), *more)
    assert (report.exit, set(report.status().values())) == (0, {"ok"}), report.text
    assert not [secret for secret in site.secrets if secret in report.text]
    if "--only" in more:
        assert list(report.checks) == ["ui", "auth"]
    else:
        assert "accepts the credentials" in report.said("broker")
        assert "a forged session is refused" in report.said("auth")


def test_a_wrong_password_is_one_failed_attempt(site: Site) -> None:
    wrong = secrets.token_urlsafe(12)
    report = outside(site.url(password=wrong), "--wait", "5")
    assert report.exit == 3
    assert "refuses the user 'alice'" in report.said("auth")
    assert report.status() | {"workers": "skip", "tasks": "skip"} == report.status()
    assert wrong not in report.text
    # asking again and again would lock alice out
    assert site.flower.log.count("Sign-in failed for user 'alice'") <= 2


def test_no_password_where_one_is_needed(site: Site) -> None:
    report = outside(f"http://127.0.0.1:{site.flower.port}")
    assert report.exit == 3
    assert "the URL holds none" in report.said("auth")


def test_a_default_password(site: Site) -> None:
    report = outside(site.url("guest", "guest"))
    assert report.exit == 3
    assert "default user and password" in report.said("security")
    assert report.status()["auth"] == "ok"


def test_plain_http_under_a_public_name(site: Site, examine: Callable[..., Report], tmp_path: Path) -> None:
    connect = f"127.0.0.1:{site.flower.port}"
    path = rewritten(site.flower, tmp_path / "f.json", url="http://flower.example.org/", connect=connect)
    report = examine("--settings", path)
    assert report.exit == 3
    assert "plain HTTP" in report.said("security")
    assert "X-Frame-Options" in report.said("security")
    assert [name for name, status in report.status().items() if status != "ok"] == ["security"]


def test_credentials_that_others_can_read(site: Site, examine: Callable[..., Report]) -> None:
    path = private(site.flower)
    (site.flower.directory / "flower.json").chmod(0o644)
    report = examine("--settings", path, "--only", "security")
    (site.flower.directory / "flower.json").chmod(0o600)
    assert report.exit == 3
    assert "flower.json can be read by others" in report.said("security")


def test_another_cookie_secret_than_flower_runs_with(
    site: Site, examine: Callable[..., Report], tmp_path: Path
) -> None:
    kept = json.loads((site.flower.directory / "flower.json").read_text())
    (tmp_path / "c.json").write_text(json.dumps(kept | {"cookie_secret": secrets.token_hex(32)}))
    path = rewritten(site.flower, tmp_path / "f.json", credentials=str(tmp_path / "c.json"))
    report = examine("--settings", path)
    assert report.exit == 3
    assert "restart" in report.said("auth")


def test_workers_on_another_broker(
    site: Site, flower_process: Callable[..., Flower], redis_server: Redis, examine: Callable[..., Report]
) -> None:
    """Flower watches database 5, the worker sits in 0; the health gate passes, since page and login are well."""
    kept = credentials(database(redis_server, 5), alice=site.password)
    flower = flower_process({"secure_cookies": False}, kept, config=QUICK, unix_socket=True, wait=False)
    flower.directory.chmod(0o750)
    gate = examine("--settings", private(flower), "--socket", "--wait", "20", "--only", "ui,auth")
    assert (gate.exit, set(gate.status().values())) == (0, {"ok"}), gate.text
    report = examine("--settings", private(flower), "--socket")
    assert report.exit == 2
    assert "another broker: w1@here on database 0" in report.said("workers")
    assert [name for name, status in report.status().items() if status != "ok"] == ["workers"]
    assert redis_server.password not in report.text


def test_workers_that_flower_does_not_hear(
    *,
    site: Site,
    flower_process: Callable[..., Flower],
    redis_server: Redis,
    examine: Callable[..., Report],
    tmp_path: Path,
) -> None:
    """Flower was started with one broker, the credentials now name another, where the workers are."""
    kept = credentials(database(redis_server, 6), alice=site.password)
    flower = flower_process({"secure_cookies": False}, kept, config=QUICK)
    from_outside = examine(site.url().replace(str(site.flower.port), str(flower.port)))
    assert from_outside.exit == 2
    assert "no worker answers on the broker that Flower watches, redis://" in from_outside.said("workers")
    assert "broker_url of the workers" in from_outside.said("workers")
    (tmp_path / "c.json").write_text(json.dumps(kept | {"celery": {"broker_url": redis_server.url}}))
    path = rewritten(flower, tmp_path / "f.json", credentials=str(tmp_path / "c.json"))
    report = examine("--settings", path, "--only", "workers,broker")
    assert report.exit == 2
    assert "Flower does not hear them" in report.said("workers")


def test_events_disabled(
    *,
    site: Site,
    flower_process: Callable[..., Flower],
    worker: Callable[..., Worker],
    redis_server: Redis,
    examine: Callable[..., Report],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broker = database(redis_server, 7)
    kept = credentials(broker, alice=site.password)
    flower = flower_process({"secure_cookies": False}, kept, config="enable_events = False\n" + QUICK)
    url = site.url().replace(str(site.flower.port), str(flower.port))
    mute = worker(broker, "mute", "--without-heartbeat", "--without-gossip", "--without-mingle")
    report = examine(url, "--only", "workers")
    assert report.exit == 2
    assert "events are disabled: mute@here answer Flower but send it no events" in report.said("workers")
    mute.stop()

    quiet = worker(broker, "quiet")
    quiet.do(2)
    seen = lambda: '"processed": 2' in flower.request("GET", "/workers?json=1", basic=("alice", site.password)).text  # noqa: E731
    wait_for(seen, "a heartbeat")
    # they may have been done before Flower listened: from outside that is no proof
    assert examine(url, "--only", "workers").exit == 0
    inside = examine("--settings", private(flower), "--only", "workers")
    assert inside.exit == 2
    assert "events are disabled: quiet@here work on tasks" in inside.said("workers")
    # tasks that are done while we look are a proof, with the second heartbeat
    monkeypatch.setattr(doctor_workers, "_HEARTBEAT_GRACE", 8.0)
    stop = threading.Event()

    def busy() -> None:
        while not stop.is_set():
            quiet.do(1)
            time.sleep(0.2)

    producer = threading.Thread(target=busy)
    producer.start()
    try:
        report = examine(url, "--only", "workers")
    finally:
        stop.set()
        producer.join()
    assert report.exit == 2
    assert "events are disabled: quiet@here work on tasks" in report.said("workers")


def test_a_broker_that_refuses_the_password(
    site: Site, flower_process: Callable[..., Flower], redis_server: Redis, examine: Callable[..., Report]
) -> None:
    wrong = secrets.token_urlsafe(16)
    broker = f"redis://:{wrong}@127.0.0.1:{redis_server.port}/0"
    flower = flower_process({"secure_cookies": False}, credentials(broker, alice=site.password))
    inside = examine("--settings", private(flower))
    assert inside.exit == 2
    assert "refuses the user or password" in inside.said("broker")
    assert "refuses the user or password" in inside.said("workers")
    report = examine(site.url().replace(str(site.flower.port), str(flower.port)))
    assert report.exit == 2
    assert "Flower cannot read its broker" in report.said("broker")
    assert report.status() | {"ui": "ok", "auth": "ok", "tasks": "ok"} == report.status()
    assert not [secret for secret in (wrong, *site.secrets) if secret in inside.text + report.text]


@pytest.mark.parametrize(
    ("broker", "said"),
    [
        ("redis://127.0.0.1:{free}/0", "port {free} refuses the connection"),
        ("amqp://flower:{secret}@127.0.0.1:{free}//", "port {free} refuses the connection"),
        ("redis://:{secret}@broker.invalid/0", "name broker.invalid cannot be resolved"),
        ("rediss://:{secret}@127.0.0.1:{redis}/0", "not answer as a broker of that kind"),
        ("redis://:{good}@127.0.0.1:{redis}/999", "has no such database"),
        ("amqp://flower:{secret}@127.0.0.1:{redis}//", "not answer as a broker of that kind"),
    ],
)
def test_broker_failures_are_told_apart(
    *, site: Site, redis_server: Redis, examine: Callable[..., Report], tmp_path: Path, broker: str, said: str
) -> None:
    values = {
        "free": free_port(),
        "redis": redis_server.port,
        "secret": secrets.token_hex(12),
        "good": redis_server.password,
    }
    (tmp_path / "c.json").write_text(json.dumps(credentials(broker.format(**values), alice=site.password)))
    report = examine(
        "--settings",
        rewritten(site.flower, tmp_path / "f.json", credentials=str(tmp_path / "c.json")),
        "--only",
        "broker",
    )
    assert report.exit == 2
    assert said.format(**values) in report.said("broker")
    assert values["secret"] not in report.text and values["good"] not in report.text


def test_one_broker_of_a_list_is_enough(
    site: Site, redis_server: Redis, examine: Callable[..., Report], tmp_path: Path
) -> None:
    brokers = [f"redis://:x@127.0.0.1:{free_port()}/0", redis_server.url]
    (tmp_path / "c.json").write_text(json.dumps(credentials(brokers, alice=site.password)))
    path = rewritten(site.flower, tmp_path / "f.json", credentials=str(tmp_path / "c.json"))
    assert examine("--settings", path, "--only", "broker").exit == 0


def test_an_open_flower_and_its_open_api(flower_process: Callable[..., Flower], redis_server: Redis) -> None:
    environment = {"CELERY_BROKER_URL": database(redis_server, 8), "FLOWER_UNAUTHENTICATED_API": "true"}
    flower = flower_process(environment=environment)
    report = outside(flower.url, "--only", "ui,auth,tasks,security")
    assert report.exit == 3
    assert "Flower is open" in report.said("auth")
    assert "the API is open without a login" in report.said("security")
    assert report.status()["tasks"] == "ok"


def test_a_port_that_somebody_else_has(site: Site, examine: Callable[..., Report], tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(tmp_path), str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as other:
        try:
            path = rewritten(site.flower, tmp_path / "f.json", port=port)
            gate = examine("--settings", path, "--socket", "--wait", "1", "--only", "ui")
            report = examine("--settings", path)
            from_outside = outside(f"http://alice:{site.password}@127.0.0.1:{port}")
        finally:
            other.kill()
    assert (gate.exit, gate.status()) == (1, {"ui": "fail"})
    for seen in (report, from_outside):
        assert seen.exit == 1
        assert "it is not Flower" in seen.said("ui")
        assert f"(pid {other.pid})" in seen.said("ui")
        assert seen.status()["auth"] == "skip"
    # the broker is seen from the host all the same
    assert report.status()["broker"] == "ok"


def test_nothing_there(site: Site, examine: Callable[..., Report], tmp_path: Path) -> None:
    port = free_port()
    report = outside(f"http://alice:{site.password}@127.0.0.1:{port}/flower")
    assert report.exit == 1
    assert "nothing listens" in report.said("ui")
    assert set(report.status().values()) == {"fail", "skip"}
    started = time.monotonic()
    path = rewritten(site.flower, tmp_path / "f.json", unix_socket=str(tmp_path / "none.sock"))
    gate = examine("--settings", path, "--socket", "--wait", "1", "--only", "ui,auth")
    assert gate.exit == 1
    assert "does not exist" in gate.said("ui")
    assert 1 <= time.monotonic() - started < 5


def test_a_broker_that_goes_down_and_comes_back(
    site: Site, flower_process: Callable[..., Flower], examine: Callable[..., Report]
) -> None:
    own = Redis()
    flower = flower_process({"secure_cookies": False}, credentials(own.url, alice=site.password))
    url = site.url().replace(str(site.flower.port), str(flower.port))
    try:
        own.kill()
        report = examine(url, "--only", "broker,workers")
        assert report.exit == 2
        assert "cannot read its broker" in report.said("broker")
        own.start()
        assert examine(url, "--only", "broker").exit == 0
    finally:
        with contextlib.suppress(OSError):
            own.kill()
