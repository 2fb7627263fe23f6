"""One random secret in every place that Flower shows or keeps: there without the add-on, nowhere with it.

A real worker, Redis as broker and result backend, and two Flowers that hear the same: a plain one, which shows that the
secret would be found, and one with the add-on.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from addon_support import FILES, Flower, Redis, free_port, wait_for

#: the worker's application; the secret reaches it only as arguments, and by its environment for the configuration
APP = """
import json, os, pathlib, time
from celery import Celery

url, secret = os.environ["TEST_REDIS"], os.environ.get("TEST_SECRET", "")
app = Celery("planted", broker=url, backend=url)
app.conf.update(
    task_send_sent_event=True,
    worker_send_task_events=True,
    worker_prefetch_multiplier=8,
    result_extended=True,
    broker_transport_options={"sentinel_kwargs": {"password": secret}},
    custom_store="postgresql://bob:" + secret + "@db/main",
    custom_places={"mail": ["smtp://bob:" + secret + "@mail"], "upload": {"bucket_credentials": secret}},
    sentry_dsn=secret,
)

@app.task(name="planted.login")
def login(user, word, **keywords):
    return {"user": user, "deep": [json.dumps({"n": 1, "api_key": keywords["password"]})]}

@app.task(name="planted.fail")
def fail(user, word, **keywords):
    raise ValueError("no: password=" + keywords["password"])

@app.task(name="planted.wait")
def wait(user, word, path=None, **keywords):
    while not pathlib.Path(path).exists():
        time.sleep(0.05)

@app.task(name="planted.ping")
def ping(number):
    return number
"""
REDACT = {"keys": ["password", "api_key"], "patterns": ["tok_[0-9a-f]+"], "arguments": {"planted.*": [1]}}
#: Flower's own answer to scripts, with auth none
OPEN_API = {"FLOWER_UNAUTHENTICATED_API": "true"}
WORKER = "w1@planted"


def ask(port: int, path: str, body: Any = None) -> str:
    """The text that Flower answers; also that of an error."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        return f"{error.code} {error.read().decode()}"


@dataclass
class Plain:
    """Flower without the add-on."""

    directory: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=20)


@dataclass
class Site:
    """What runs, and what was sent."""

    directory: Path
    secret: str
    redis: Redis
    plain: Plain
    masked: Flower
    tasks: dict[str, str]


@contextlib.contextmanager
def process(arguments: list[str], directory: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A program of Celery's, ended at the end."""
    directory.mkdir(exist_ok=True)
    with (directory / "log").open("wb") as log:
        started = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "planted", *arguments],
            cwd=directory,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield started
    finally:
        started.terminate()
        try:
            started.wait(timeout=10)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, flower_process: Callable[..., Flower], redis_server: Redis
) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("planted")
    (directory / "planted.py").write_text(APP)
    secret = secrets.token_hex(16)
    base = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(directory),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TEST_REDIS": redis_server.url,
        **OPEN_API,
    }
    masked = flower_process(
        {"auth": "none", "app": "planted:app", "redact": REDACT},
        {"celery": {"broker_url": redis_server.url, "result_backend": redis_server.url}},
        config="persistent = True\ndb = 'state'\nlogging = 'debug'\n",
        environment={**base, "PYTHONPATH": f"{FILES}{os.pathsep}{directory}"},
        wait=False,
    )
    port = free_port()
    options = [f"--port={port}", "--address=127.0.0.1", "--persistent=True", "--db=state", "--logging=debug"]
    worker = ["worker", "-P", "threads", "-c", "1", "-n", WORKER, "-E", "--without-mingle", "--without-gossip"]
    with (
        process(["flower", *options], directory / "plain", base) as flower,
        process([*worker, "--loglevel=warning"], directory / "worker", {**base, "TEST_SECRET": secret}),
    ):
        plain = Plain(directory / "plain", port, flower)
        tasks = send(directory, redis_server, secret, [port, masked.port])
        yield Site(directory, secret, redis_server, plain, masked, tasks)


def send(directory: Path, redis: Redis, secret: str, ports: list[int]) -> dict[str, str]:
    """Sends tasks full of the secret once both Flowers listen, and waits until both know what became of them."""
    from celery import Celery

    app = Celery(broker=redis.url, backend=redis.url, set_as_current=False)
    app.conf.task_send_sent_event = True

    def heard(port: int) -> bool:
        app.send_task("planted.ping", [1])
        with contextlib.suppress(OSError):
            return "planted.ping" in ask(port, "/api/tasks")
        return False

    def tells(port: int, key: str, word: str) -> bool:
        return word in ask(port, f"/api/task/info/{tasks[key]}")

    for port in ports:
        wait_for(partial(heard, port), "the events")
    arguments = ("bob", secret)
    keywords = {
        "password": secret,
        "note": f"tok_{secret}",
        "at": f"redis://:{secret}@h",
        "path": str(directory / "go"),
    }
    names = {"login": "planted.login", "fail": "planted.fail", "active": "planted.wait", "reserved": "planted.wait"}
    tasks = {key: str(app.send_task(name, arguments, keywords).id) for key, name in names.items()}
    tasks["scheduled"] = str(app.send_task("planted.wait", arguments, keywords, countdown=3600).id)
    for port in ports:
        for key, word in (("login", "SUCCESS"), ("fail", "FAILURE"), ("active", "STARTED"), ("scheduled", "RECEIVED")):
            wait_for(partial(tells, port, key, word), key)
    return tasks


def table(search: str) -> str:
    query = {
        "draw": 1,
        "start": 0,
        "length": 100,
        "search[value]": search,
        "order[0][column]": 0,
        "order[0][dir]": "asc",
    }
    return "/tasks/datatable?" + urlencode({**query, "columns[0][data]": "name"})


#: where the secret stands, and a word that shows that the answer is the one that is meant
PLACES: dict[str, tuple[Callable[[Site], str], str]] = {
    "table": (lambda site: table(""), "planted.login"),
    "task page": (lambda site: f"/task/{site.tasks['login']}", "planted.login"),
    "page of a failed task": (lambda site: f"/task/{site.tasks['fail']}", "Traceback"),
    "list of tasks": (lambda site: "/api/tasks", "planted.login"),
    "task": (lambda site: f"/api/task/info/{site.tasks['login']}", "planted.login"),
    "failed task": (lambda site: f"/api/task/info/{site.tasks['fail']}", "ValueError"),
    "result": (lambda site: f"/api/task/result/{site.tasks['login']}", "SUCCESS"),
    "result that is waited for": (lambda site: f"/api/task/result/{site.tasks['login']}?timeout=5", "SUCCESS"),
    "result of a failed task": (lambda site: f"/api/task/result/{site.tasks['fail']}", "FAILURE"),
    "worker page": (lambda site: f"/worker/{quote(WORKER)}", "planted.wait"),
    "workers": (lambda site: "/api/workers?refresh=1", "sentinel_kwargs"),
    "one worker": (lambda site: f"/api/workers?refresh=1&workername={quote(WORKER)}", "planted.wait"),
    "remembered workers": (lambda site: f"/api/workers?workername={quote(WORKER)}", "custom_store"),
}


@pytest.mark.parametrize("place", PLACES)
def test_place_is_clean(site: Site, place: str) -> None:
    path, word = PLACES[place]

    # a worker that is busy may miss an inspection
    def complete(port: int) -> str:
        text = ask(port, path(site))
        return text if word in text else ""

    shown = wait_for(lambda: complete(site.plain.port), f"{place} of the plain Flower")
    assert site.secret in shown
    masked = wait_for(lambda: complete(site.masked.port), f"{place} of the masked Flower")
    assert site.secret not in masked
    assert "***" in masked


def test_what_is_no_secret_stays(site: Site) -> None:
    info = json.loads(ask(site.masked.port, f"/api/task/info/{site.tasks['login']}"))
    assert info["args"] == "('bob', '***')"
    keywords = "{'password': '***', 'note': '***', 'at': 'redis://:***@h', 'path': '%s'}" % (site.directory / "go")
    assert info["kwargs"] == keywords
    result = json.loads(ask(site.masked.port, f"/api/task/result/{site.tasks['login']}"))["result"]
    assert result == {"user": "bob", "deep": ['{"n": 1, "api_key": "***"}']}


def test_worker_is_shown_with_all_of_its_lists(site: Site) -> None:
    def lists() -> Any:
        answer = json.loads(ask(site.masked.port, f"/api/workers?refresh=1&workername={quote(WORKER)}"))[WORKER]
        return answer if {"active", "reserved", "scheduled", "conf", "stats"} <= answer.keys() else None

    worker = wait_for(lists, "the lists of the worker")
    assert [task["args"] for task in worker["active"]] == ["('bob', '***')"]
    assert [task["args"] for task in worker["reserved"]] == [["bob", "***"]]
    assert [task["request"]["kwargs"]["password"] for task in worker["scheduled"]] == ["***"]
    assert worker["stats"]["broker"]["transport_options"] == {"sentinel_kwargs": {"password": "***"}}
    assert worker["stats"]["total"]["planted.login"] == 1
    assert worker["conf"]["custom_store"] == "postgresql://bob:***@db/main"
    assert worker["conf"]["custom_places"] == {"mail": ["smtp://bob:***@mail"], "upload": {"bucket_credentials": "***"}}


def test_search_does_not_find_it(site: Site) -> None:
    for field in ("", "args:", "kwargs:", "kwargs:password="):
        assert json.loads(ask(site.plain.port, table(field + site.secret)))["recordsFiltered"] > 0
        assert json.loads(ask(site.masked.port, table(field + site.secret)))["recordsFiltered"] == 0
    assert json.loads(ask(site.masked.port, table("kwargs:password=***")))["recordsFiltered"] > 0


def test_answer_to_apply_and_the_log(site: Site) -> None:
    (site.directory / "go").touch()  # the worker is free again
    body = {"args": ["bob", site.secret], "kwargs": {"password": site.secret}}
    for port, is_shown in ((site.plain.port, True), (site.masked.port, False)):
        for task, state in (("planted.login", "SUCCESS"), ("planted.fail", "FAILURE")):
            answer = ask(port, f"/api/task/apply/{task}", body)
            assert state in answer
            assert (site.secret in answer) is is_shown
        log = site.plain.log if is_shown else site.masked.log
        assert "Invoking a task 'planted.login'" in log
        assert (site.secret in log) is is_shown


def state_file(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(directory.glob("state*")))


def test_state_file(site: Site, flower_process: Callable[..., Flower]) -> None:
    """The last test: it stops both Flowers, and starts one with what the plain one has saved."""
    task = site.tasks["login"]
    site.plain.stop()
    assert site.masked.stop() == 0
    assert site.secret.encode() in state_file(site.plain.directory)
    assert task.encode() in state_file(site.masked.directory)
    assert site.secret.encode() not in state_file(site.masked.directory)

    old = site.plain.directory / "state"
    flower = flower_process(
        {"auth": "none", "redact": REDACT},
        {"celery": {"broker_url": site.redis.url}},
        config=f"persistent = True\ndb = {str(old)!r}\n",
        environment=OPEN_API,
    )
    shown = ask(flower.port, "/api/tasks") + ask(flower.port, f"/task/{task}")
    assert task in shown and "ValueError" in shown
    assert site.secret not in shown
    assert json.loads(ask(flower.port, table(site.secret)))["recordsFiltered"] == 0
    assert json.loads(ask(flower.port, table("kwargs:password=***")))["recordsFiltered"] > 0
    assert flower.stop() == 0
    assert task.encode() in state_file(site.plain.directory)
    assert site.secret.encode() not in state_file(site.plain.directory)


def test_leaks_of_workers_are_closed_without_any_setting() -> None:
    from flowerbed.redact import SECRET_NAMES, Redactor
    from flowerbed.settings import Redact
    from flowerbed.web.redacting import mask_answer

    secret = secrets.token_hex(8)
    tasks, workers = Redactor(Redact()), Redactor(Redact(), SECRET_NAMES)
    stats = {
        "broker": {
            "alternates": [f"redis://:{secret}@b"],
            "transport_options": {"sentinel_kwargs": {"password": secret}, "url": f"https://{secret}@c"},
            "ssl": {"keyfile_password": secret},
            "userid": "bob",
        },
        "total": {"accounts.reset_password": 3},
    }
    masked = mask_answer("stats", stats, tasks, workers)
    assert secret not in json.dumps(masked)
    assert masked["total"] == {"accounts.reset_password": 3} and masked["broker"]["userid"] == "bob"
    conf = {"places": f"Store(url='s3://a:{secret}@b', access_key='{secret}')", "AWS_SECRET": secret, "timezone": "UTC"}
    masked = mask_answer("conf", conf, tasks, workers)
    assert secret not in json.dumps(masked) and masked["timezone"] == "UTC"


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        ("flower.events.EventsState.event = None; del flower.events.EventsState.event", "EventsState"),
        ("flower.inspector.Inspector._on_update = lambda self, response: None", "_on_update"),
        ("del flower.api.tasks.BaseTaskHandler.update_response_result", "update_response_result"),
        ("flower.events.EventsState = None", "event"),
    ],
)
def test_a_flower_that_cannot_be_masked_is_not_started(spoil: str, word: str) -> None:
    done = run(f"import flower.events, flower.inspector, flower.api.tasks\n{spoil}", {})
    assert done.returncode == 78, done.stderr
    assert "cannot be masked" in done.stderr and word in done.stderr and "Traceback" not in done.stderr


def test_a_broken_pattern_is_said_at_the_start() -> None:
    done = run("", {"patterns": ["a(b"]})
    assert done.returncode == 78
    assert "flower_redact_patterns: pattern 1 is not a regular expression: missing )" in done.stderr


def run(before: str, redact: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """install() in a process of its own, after some lines that spoil Flower."""
    lines = [
        "import json, sys",
        "from flowerbed import install, settings",
        before,
        "redact = settings.Redact(**json.loads(sys.argv[1]))",
        "install.use(settings.Settings(auth='none', redact=redact), settings.Credentials())",
        "install.install({})",
    ]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(FILES), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-c", "\n".join(lines), json.dumps(redact)], env=environment, capture_output=True, text=True
    )
