"""Whatever is wrong with the history or the collector, Flower answers, and says what is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import secrets
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from addon_support import BROWSER, Flower, Redis, Response, free_port, wait_for
from history_support import BEGIN, collector, history_settings, keep, publish, sent, story, table

from flowerbed.history.problems import HistoryError
from flowerbed.settings import Collector
from flowerbed.web.history import MOST_ASKED, THREADS, THREADS_OF_ONE, History
from flowerbed.web.history_health import CollectorHealth, problem_of
from tests.history.conftest import Postgres

OPEN = {"FLOWER_UNAUTHENTICATED_API": "true"}


def notices(page: str) -> list[str]:
    return re.findall(r"data-history-notice>([^<]*)<", page)


def asked(flower: Flower, path: str) -> Response:
    answer = flower.request("GET", path, BROWSER)
    assert answer.status == 200, f"{path}: {answer.status} {answer.text[:300]}"
    return answer


@pytest.fixture
def start(flower_process: Callable[..., Flower], redis_server: Redis) -> Callable[..., Flower]:
    """A Flower on a history, that has one task in its memory."""

    def started(path: Path | str, port: int, **more: Any) -> Flower:
        flower = flower_process(
            history_settings(path, port, auth="none", **more),
            {"celery": {"broker_url": redis_server.url}},
            environment=OPEN,
        )

        def heard() -> bool:
            publish(redis_server.url, [sent("in-memory", "shop.memory", BEGIN)])
            return flower.request("GET", "/task/in-memory", BROWSER).status == 200

        wait_for(heard, "a task in memory")
        return flower

    return started


def nothing(path: Path) -> str:
    return f"There is no history in {path}"


def newer(path: Path) -> str:
    keep(f"sqlite:///{path}", story())
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    return "is of a newer release"


def rubbish(path: Path) -> str:
    path.write_bytes(secrets.token_bytes(8192))
    return "The history in"


def empty(path: Path) -> str:
    path.touch()
    return "There is no history in"


@pytest.mark.parametrize("spoil", [nothing, newer, rubbish, empty])
def test_flowers_own_pages_show_with_a_banner(
    spoil: Callable[[Path], str], tmp_path: Path, start: Callable[..., Flower]
) -> None:
    path = tmp_path / "history.sqlite"
    said = spoil(path)
    with collector() as (_, port):
        flower = start(path, port)
        page = asked(flower, "/tasks").text
        assert [said in notice and "in memory" in notice for notice in notices(page)] == [True]
        answer = json.loads(asked(flower, table()).text)
        assert [row["uuid"] for row in answer["data"]] == ["in-memory"]
        assert said in answer["searchError"]
        task = asked(flower, "/task/in-memory")
        assert "has no place" not in flower.log and "Traceback" not in flower.log
        assert "shop.memory" in task.text and [said in notice for notice in notices(task.text)] == [True]
        # an unknown task may well be in the history that cannot be read
        unknown = flower.request("GET", "/task/ok-1", BROWSER)
        assert unknown.status == 404 and [said in notice for notice in notices(unknown.text)] == [True]
        for path_of_api in ("/api/tasks", "/api/task/types", "/api/task/info/in-memory"):
            answered = asked(flower, path_of_api)
            assert "shop.memory" in answered.text
            assert answered.headers["Flowerbed-History"].startswith("unavailable (")
        if spoil is nothing:
            # the collector has made it: no restart is needed
            keep(f"sqlite:///{path}", story())
            wait_for(lambda: "ok-1" in asked(flower, table()).text, "the history", 15)
            assert notices(asked(flower, "/tasks").text) == []


@pytest.mark.parametrize(
    "url", ["mysql://h/d", "sqlite:///relative.sqlite", "postgresql://flower:geheim@127.0.0.1:1/x"]
)
def test_a_wrong_address_of_the_history(url: str, start: Callable[..., Flower]) -> None:
    flower = start(url, free_port())
    page = asked(flower, "/tasks").text
    assert len(notices(page)) == 1 and "geheim" not in page
    assert "in-memory" in asked(flower, table()).text
    assert "geheim" not in flower.log


def test_a_locked_history_is_not_waited_for(tmp_path: Path, start: Callable[..., Flower]) -> None:
    path = tmp_path / "history.sqlite"
    keep(f"sqlite:///{path}", story())
    with collector() as (_, port), contextlib.closing(sqlite3.connect(path, isolation_level=None)) as holder:
        # out of WAL, so that readers are locked out too
        holder.execute("PRAGMA journal_mode = DELETE")
        flower = start(path, port)
        assert "ok-1" in asked(flower, table()).text
        holder.execute("BEGIN EXCLUSIVE")
        begun = time.monotonic()
        answer = json.loads(asked(flower, table()).text)
        assert [row["uuid"] for row in answer["data"]] == ["in-memory"] and "in memory" in answer["searchError"]
        assert time.monotonic() - begun < 8
        # and Flower answers all else meanwhile
        threads = [threading.Thread(target=asked, args=(flower, table())) for _ in range(6)]
        for thread in threads:
            thread.start()
        begun = time.monotonic()
        assert asked(flower, "/healthcheck").text == "OK"
        assert time.monotonic() - begun < 2
        for thread in threads:
            thread.join()


def test_a_postgresql_that_stops_and_comes_back(flower_process: Callable[..., Flower], redis_server: Redis) -> None:
    server = Postgres()
    try:
        server.sql("CREATE ROLE secretive LOGIN PASSWORD 'geheim'")
        url = server.url().replace("flower@", "secretive:geheim@")
        server.sql("GRANT ALL ON SCHEMA public TO secretive", url.rpartition("/")[2])
        keep(url, story())
        with collector() as (_, port):
            settings = history_settings("", port, auth="none")
            del settings["history"]
            secret = {"celery": {"broker_url": redis_server.url}, "history_url": url}
            flower = flower_process(settings, secret, environment=OPEN)
            assert notices(asked(flower, "/tasks").text) == []
            assert len(json.loads(asked(flower, "/api/tasks").text)) == 11
            assert json.loads(asked(flower, table("name:shop.pick since:2h")).text)["recordsFiltered"] == 3
            assert asked(flower, "/task/pack").text.count("<li style") == 5
            server.stop()
            begun = time.monotonic()
            page = asked(flower, "/tasks").text
            assert time.monotonic() - begun < 6
            assert len(notices(page)) == 1 and "geheim" not in page
            # what failed is not asked again for a moment
            begun = time.monotonic()
            assert json.loads(asked(flower, table()).text)["data"] == []
            assert time.monotonic() - begun < 1
            server.start()
            wait_for(lambda: "ok-1" in asked(flower, table()).text, "the history", 20)
            assert notices(asked(flower, "/tasks").text) == []
            assert "geheim" not in flower.log
    finally:
        server.stop()
        shutil.rmtree(server.directory)


def test_a_collector_that_does_not_run(tmp_path: Path, start: Callable[..., Flower]) -> None:
    path = tmp_path / "history.sqlite"
    keep(f"sqlite:///{path}", story())
    port = free_port()
    flower = start(path, port)
    for page in ("/tasks", "/task/ok-1"):
        found = notices(asked(flower, page).text)
        assert len(found) == 1
        assert f"The collector does not answer at 127.0.0.1:{port}." in found[0]
        assert re.search(r"The newest task in the history is of \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC\.", found[0])
    assert "ok-1" in asked(flower, table()).text
    assert asked(flower, "/api/tasks").headers["Flowerbed-History"] == "stale"


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"status": "ok", "reader": "reading", "counting": "ok", "history": "ok"}, None),
        ({"status": "ok", "history": "off"}, "The collector keeps no history."),
        ({"status": "ok", "history": "opening"}, "The collector has not opened the history yet."),
        ({"status": "ok", "history": "The disk is full."}, "The collector has paused the history. The disk is full."),
        (
            {"status": "failing", "reader": "no way.", "counting": "ok", "history": "ok"},
            "does not hear the broker: no way.",
        ),
        ({"status": "failing", "reader": "reading", "counting": "stuck", "history": "ok"}, "The collector is stuck."),
    ],
)
def test_what_the_collector_says(told: dict[str, Any], said: str | None) -> None:
    assert (problem_of(told) is None) is (said is None) and (said or "") in (problem_of(told) or "")


@pytest.mark.parametrize(
    ("listens", "named"), [("127.0.0.1", "0.0.0.0"), ("127.0.0.1", "localhost"), ("::1", "::1"), ("::1", "::")]
)
def test_wherever_the_collector_listens(listens: str, named: str) -> None:
    with collector(address=listens) as (_, port):
        assert asyncio.run(CollectorHealth(Collector(address=named, port=port)).problem()) is None


@pytest.mark.parametrize("answer", [[], {"status": "ok"}, "x", {"history": {}}])
def test_rubbish_from_the_collector_is_no_crash(answer: Any) -> None:
    with collector() as (told, port):
        told.answer = answer if isinstance(answer, dict) else {"status": "ok", "x": answer}
        assert asyncio.run(CollectorHealth(Collector(port=port)).problem())


def test_the_collector_is_asked_once_in_five_seconds_and_never_waited_for() -> None:
    async def go() -> None:
        with collector(delay=1.0) as (told, port):
            health = CollectorHealth(Collector(port=port))
            assert await asyncio.gather(*(health.problem() for _ in range(10))) == [None] * 10
            assert told.asked == 1
            # an old answer is given at once while a new one is fetched
            health._looked -= 6
            told.answer = {"status": "ok", "history": "off"}
            begun = time.monotonic()
            assert await health.problem() is None
            assert time.monotonic() - begun < 0.8
            while await health.problem() is None:
                await asyncio.sleep(0.1)
            assert await health.problem() == "The collector keeps no history."
            assert told.asked == 2
            # one that never answers
            told.delay = 30
            health._looked = float("-inf")
            begun = time.monotonic()
            assert "does not answer" in str(await health.problem())
            assert time.monotonic() - begun < 4

    asyncio.run(go())


class Slow:
    """Counts what runs at once."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.running, self.most = seconds, 0, 0
        self.lock = threading.Lock()

    def __call__(self, _: object) -> str:
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        time.sleep(self.seconds)
        with self.lock:
            self.running -= 1
        return "answer"


def test_nobody_takes_all_threads(tmp_path: Path) -> None:
    async def go() -> None:
        history = History(f"sqlite:///{tmp_path}/none")
        slow = Slow(0.5)
        greedy = [asyncio.create_task(history.ask("a", slow)) for _ in range(12)]
        await asyncio.sleep(0.1)
        assert slow.most == THREADS_OF_ONE < THREADS
        begun = time.monotonic()
        assert await history.ask("b", lambda _: "quick") == "quick"
        assert time.monotonic() - begun < 1.5
        assert await asyncio.gather(*greedy) == ["answer"] * 12

    asyncio.run(go())


def test_too_much_at_once_is_refused_and_what_is_slow_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowerbed.web.history.SECONDS", 0.3)

    async def go() -> None:
        history = History(f"sqlite:///{tmp_path}/none")
        slow = Slow(0.8)
        answers = await asyncio.gather(
            *(history.ask(f"p{number}", slow) for number in range(MOST_ASKED + 5)), return_exceptions=True
        )
        kinds = [answer.kind for answer in answers if isinstance(answer, HistoryError)]
        assert kinds.count("busy") == 5 and kinds.count("slow") == MOST_ASKED
        # those who gave up have freed the threads, and the history is not blamed for it
        await asyncio.sleep(1)
        assert slow.most == THREADS and slow.running == 0
        assert await history.ask("p1", lambda _: "quick") == "quick"

    asyncio.run(go())


def test_only_what_holds_for_every_question_is_remembered(tmp_path: Path) -> None:
    """Nobody can make the history go away for others by what they ask."""

    def raising(kind: str) -> Callable[[object], str]:
        def question(_: object) -> str:
            raise HistoryError(kind, "No.")

        return question

    async def go() -> None:
        history = History(f"sqlite:///{tmp_path}/none")
        for kind, holds in (("other", False), ("slow", False), ("missing", True)):
            with pytest.raises(HistoryError):
                await history.ask("a", raising(kind))
            if holds:
                with pytest.raises(HistoryError):
                    await history.ask("b", lambda _: "answer")
            else:
                assert await history.ask("b", lambda _: "answer") == "answer"

    asyncio.run(go())


def test_an_unforeseen_failure_is_one_sentence_and_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def broken(_: object) -> None:
        raise ZeroDivisionError("secret")

    async def go() -> None:
        history = History(f"sqlite:///{tmp_path}/none")
        with pytest.raises(HistoryError, match=r"^The history cannot be read: ZeroDivisionError\.$"):
            await history.ask("a", broken)

    asyncio.run(go())
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(
    "missing",
    [
        "import sys; sys.modules['sqlalchemy'] = None",
        "import flower.views.tasks; del flower.views.tasks.TasksDataTable",
    ],
)
def test_a_flower_that_cannot_have_the_pages_starts_without(
    missing: str, tmp_path: Path, flower_process: Callable[..., Flower], redis_server: Redis
) -> None:
    keep(f"sqlite:///{tmp_path}/history.sqlite", story())
    flower = flower_process(
        history_settings(tmp_path / "history.sqlite", free_port(), auth="none"),
        {"celery": {"broker_url": redis_server.url}},
        config=missing + "\n",
    )
    assert "search-help" not in asked(flower, "/tasks").text
    assert "This Flower's pages cannot show the history" in flower.log
