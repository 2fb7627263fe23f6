"""Pages, tasks and trees against a naive evaluation in Python of the same rows, in both databases."""

from __future__ import annotations

import random
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from flowerbed.collector.tasks import Record
from flowerbed.history import paging, words
from flowerbed.history import query as query_module
from flowerbed.history.paging import Pages
from flowerbed.history.problems import HistoryError
from flowerbed.history.query import SORTS, Page, Query, Search, SearchError, Task
from flowerbed.history.reading import Reading, Session, TimeUpError
from flowerbed.history.rows import COLUMNS
from flowerbed.history.schema import REVISION, row_of
from flowerbed.history.search import And, Expression, Or, Term, parse
from flowerbed.history.store import open_store
from flowerbed.history.words import Words
from flowerbed.settings import SettingsError

NAMES = ("shop.send_mail", "shop.send%mail", "Shop.Import", "billing.charge", "été.nettoyer", None)
WORKERS = ("w1@host", "w2@host", "W1@other", None)
QUEUES = ("celery", "mail", "bulk_1", None)
STATES = ("PENDING", "RECEIVED", "STARTED", "RETRY", "SUCCESS", "SUCCESS", "FAILURE", "REVOKED", "REJECTED")
WORDS = (
    "order",
    "Order",
    "50%",
    "a_b",
    "x\\y",
    "it's",
    '"quoted"',
    "naïve",
    "NAÏVE",
    "日本語テキスト",
    "--",
    "/*",
    ":p0",
    "äöü",
)
LONG = (
    "needle",
    "hay stack",
    "order 50%",
    "%%%",
    "___",
    "a_b",
    "\\y ",
    "'; DROP TABLE tasks; --",
    '"quoted"',
    "語テキ",
    ":p0 ",
    "ord",
)


def records(count: int, seed: int) -> list[Record]:
    chance = random.Random(seed)

    def maybe(value: Any, often: float = 0.8) -> Any:
        return value if chance.random() < often else None

    def some_text() -> str:
        return " ".join(chance.choice(WORDS) for _ in range(chance.randrange(5))) + chance.choice(("", " needle", "7"))

    return [
        Record(
            id=f"{chance.getrandbits(64):016x}-{number}",
            name=chance.choice(NAMES),
            state=chance.choice(STATES),
            worker=chance.choice(WORKERS),
            queue=chance.choice(QUEUES),
            # some at the same moment, some late, some never
            received=maybe(float(chance.randrange(count) + 1000)),
            started=maybe(float(chance.randrange(count) + 1000), 0.6),
            finished=maybe(2000.0 + number, 0.5),
            runtime_seconds=maybe(chance.choice((0.0, 0.5, 1.0, 1.5, 100.0, chance.random() * 3)), 0.7),
            retries=chance.randrange(3),
            args=maybe(f"({some_text()},)"),
            kwargs=maybe(f"{{'key': {chance.randrange(5)}, 'word': '{some_text()}'}}"),
            result=maybe(some_text()),
            exception=maybe(f"ValueError({some_text()!r})", 0.3),
            seen=1000.0 + number,
            updated=2000.0,
        )
        for number in range(count)
    ]


# ------------------------------------------------------------------ the naive evaluation


def small(value: str) -> str:
    return "".join(character.lower() if "A" <= character <= "Z" else character for character in value)


def holds(expression: Expression, task: Record) -> bool:
    if isinstance(expression, And):
        return all(holds(child, task) for child in expression.children)
    if isinstance(expression, Or):
        return any(holds(child, task) for child in expression.children)
    value = small(expression.value)
    if expression.field == "state":
        return task.state == expression.value
    if expression.field == "id":
        return small(task.id).startswith(value)
    if expression.field is not None:
        return value in small(getattr(task, expression.field) or "")
    columns = ("name", "worker", "queue", "state", "args", "kwargs", "result", "exception")
    texts = [small(getattr(task, column) or "") for column in columns]
    return any(value in found for found in texts) or small(task.id).startswith(value)


def matches(search: Search, task: Record) -> bool:
    for column in ("name", "state", "worker", "queue"):
        if getattr(search, column) is not None and getattr(task, column) != getattr(search, column):
            return False
    for column in ("received", "started"):
        least, largest = getattr(search, f"{column}_from"), getattr(search, f"{column}_until")
        value = getattr(task, column)
        if (least is not None or largest is not None) and value is None:
            return False
        if (least is not None and value < least) or (largest is not None and value > largest):
            return False
    return search.text is None or holds(search.text, task)


def key(task: Record | Task, sort: str) -> tuple[bool, Any]:
    value = getattr(task, sort)
    return value is not None, value.casefold() if isinstance(value, str) else value or 0


def some_search(chance: random.Random) -> Search:
    def maybe(values: Any, often: float = 0.25) -> Any:
        return chance.choice([value for value in values if value is not None]) if chance.random() < often else None

    def term() -> Expression:
        field = chance.choice(
            (None, None, "args", "kwargs", "result", "exception", "name", "worker", "queue", "state", "id")
        )
        if field == "state":
            return Term("state", chance.choice(STATES))
        if field in ("name", "worker", "queue"):
            return Term(field, chance.choice(("send", "mail", "host", "w1@", "bulk_", "%ma", "IMPORT", "été")))
        if field == "id":
            return Term("id", f"{chance.randrange(256):02x}")
        return Term(field, chance.choice(LONG))

    def expression(level: int) -> Expression:
        if level == 2 or chance.random() < 0.4:
            return term()
        kind = chance.choice((And, Or))
        return kind(tuple(expression(level + 1) for _ in range(chance.randrange(2, 4))))

    return Search(
        name=maybe(NAMES),
        state=maybe(STATES),
        worker=maybe(WORKERS),
        queue=maybe(QUEUES),
        text=expression(0) if chance.random() < 0.6 else None,
        received_from=maybe((1000.0, 1100.0, 1200.0), 0.15),
        received_until=maybe((1100.0, 1200.0, 1300.0), 0.15),
        started_from=maybe((1000.0, 1100.0, 1200.0), 0.15),
        started_until=maybe((1100.0, 1200.0, 1300.0), 0.15),
    )


def assert_right(
    page: Page, search: Search, tasks: list[Record], sort: str, descending: bool, at: int, limit: int
) -> None:
    """The page, but for the order of tasks with the same key."""
    known = {task.id: task for task in tasks}
    wanted = sorted((task for task in tasks if matches(search, task)), key=lambda task: key(task, sort))
    if descending:
        wanted.reverse()
    found = [known[task.id] for task in page.tasks]
    assert all(matches(search, task) for task in found), search
    assert len({task.id for task in found}) == len(found)
    assert [key(task, sort) for task in found] == [key(task, sort) for task in wanted[at : at + limit]], (search, sort)
    assert page.searched_back_to is None
    if page.matching_exact:
        assert page.matching == len(wanted), search
    else:
        assert at + len(found) <= page.matching <= len(wanted)
        assert page.matching > at + len(found) or len(wanted) == at + len(found)
    assert (page.total, page.total_exact) == (len(tasks), True)


@pytest.fixture
def state_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    return tmp_path


@pytest.fixture
def tasks(url: str, state_directory: Path) -> Iterator[list[Record]]:
    found = records(400, 7)
    store = open_store(url)
    store.write([row_of(task) for task in found])
    if not store.is_sqlite:
        with store.transaction() as connection:
            connection.execute(text("ANALYZE tasks"))
    yield found
    store.close()


def take_in(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fills the index of words."""
    monkeypatch.setattr(words, "REST_SECONDS", 0.0)
    monkeypatch.setattr(words, "STEP_NUMBERS", 37)
    monkeypatch.setattr(words, "SHARE", 1.0)
    Words(url).turn(threading.Event())


@pytest.mark.parametrize("way", ["scanned", "gathered", "indexed", "little"])
def test_any_search_sorted_by_anything(
    url: str, tasks: list[Record], way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(way)
    monkeypatch.setattr(paging, "FIRST_STEP", 3)
    monkeypatch.setattr(paging, "LARGEST_STEP", 50)
    # a machine that is busy must not matter here
    monkeypatch.setattr(query_module, "PAGE_SECONDS", 60.0)
    for name in ("GATHER_SECONDS", "SCAN_SECONDS", "COUNT_SECONDS"):
        monkeypatch.setattr(paging, name, 20.0)
    if way in ("gathered", "indexed"):
        # as if looking at the newest had not filled the page
        monkeypatch.setattr(paging, "QUICK_SECONDS", 0.0)
        monkeypatch.setattr(paging, "FILTER_SECONDS", 0.0)
    if way in ("indexed", "little"):
        take_in(url, monkeypatch)
    if way == "little":
        monkeypatch.setattr(paging, "MOST_GATHERED", 20)
        monkeypatch.setattr(paging, "MOST_FEW", 5)
        monkeypatch.setattr(paging, "MOST_SORTED", 10)
        monkeypatch.setattr(paging, "MOST_RANGES", 3)
    query = Query(url)
    sorts = SORTS if way != "little" else ("received", "started")
    for _ in range(150):
        search, sort, descending = some_search(chance), chance.choice(sorts), chance.random() < 0.5
        at, limit = chance.choice((0, 0, 0, 5, 30)), chance.choice((1, 10, 25))
        page = query.page(search, sort=sort, descending=descending, offset=at, limit=limit)
        assert_right(page, search, tasks, sort, descending, at, limit)
    query.close()


def test_pages_follow_each_other(url: str, tasks: list[Record]) -> None:
    query = Query(url)
    for search in (Search(), Search(state="SUCCESS"), parse("needle", 0), parse("worker:w1@", 0)):
        for sort in ("received", "started", "runtime_seconds"):
            for descending in (True, False):
                found: list[str] = []
                while page := query.page(search, sort=sort, descending=descending, offset=len(found), limit=33).tasks:
                    found += [task.id for task in page]
                assert sorted(found) == sorted(task.id for task in tasks if matches(search, task))
    query.close()


# ------------------------------------------------------------------ what time does not allow


def test_no_time_gives_the_newest_and_says_so(url: str, tasks: list[Record], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "FIRST_STEP", 10)
    monkeypatch.setattr(paging, "LARGEST_STEP", 10)
    # one step before all else, and nine after it
    monkeypatch.setattr(paging, "QUICK_SECONDS", 0.0)
    asked = {"number": 0}
    fetch = Session.fetch

    def few(self: Session, statement: str, parameters: Any = None) -> Any:
        asked["number"] += "ESCAPE" in statement
        if asked["number"] > 10:
            raise TimeUpError
        return fetch(self, statement, parameters)

    monkeypatch.setattr(Session, "fetch", few)
    query = Query(url)
    search = parse("needle OR ord", 0)
    pages = Pages
    monkeypatch.setattr(pages, "_fetch", lambda self, numbers: ((number, number) for number in numbers))
    page = query.page(search, limit=300)
    back = page.searched_back_to
    assert back is not None
    assert 0 < len(page.tasks) < 200
    assert not page.matching_exact
    times = sorted((task.received for task in tasks if task.received is not None), reverse=True)
    newest = [task for task in tasks if matches(search, task) and task.received is not None and task.received >= back]
    assert times[10] > back > times[-1]
    assert len(page.tasks) == len(newest)
    query.close()


def test_a_statement_ends_in_its_time(url: str, tasks: list[Record]) -> None:
    endless = (
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 1000000000) SELECT max(x) FROM n"
    )
    reading = Reading(url)
    begun = time.monotonic()
    with pytest.raises(HistoryError, match="too long") as caught, reading.session(0.3) as session:
        session.fetch(endless)
    assert caught.value.kind == "slow"
    assert 0.2 < time.monotonic() - begun < 3
    # and the next question is answered
    with reading.session(5) as session, pytest.raises(TimeUpError), session.within(0.1):
        session.fetch(endless)
    with reading.session(5) as session:
        assert session.fetch("SELECT count(*) FROM tasks") == [(len(tasks),)]
    reading.close()


def test_a_page_that_is_too_deep(url: str, tasks: list[Record], monkeypatch: pytest.MonkeyPatch) -> None:
    query = Query(url)
    assert query.page(Search(), offset=10**9).tasks == []
    assert query.page(Search(state="SUCCESS"), offset=10**6).tasks == []
    assert query.page(Search(), offset=-5, limit=-5).tasks == []

    def slow(*_: Any) -> Any:
        raise TimeUpError

    monkeypatch.setattr(Pages, "_rows", slow)
    for search in (Search(), Search(state="SUCCESS")):
        with pytest.raises(SearchError, match="narrow the search"):
            query.page(search, sort="started", offset=300)
    with pytest.raises(HistoryError, match="too long"):
        query.page(Search(state="SUCCESS"), sort="started")
    query.close()


# ------------------------------------------------------------------ all else


def test_a_task_and_names(url: str, tasks: list[Record]) -> None:
    query = Query(url)
    for task in tasks[:20]:
        found = query.task(task.id)
        assert found is not None
        assert {name: getattr(found, name) for name in COLUMNS} == {name: getattr(task, name) for name in COLUMNS}
    for unknown in ("", "nobody", "x" * 100_000, "a\0b", "\ud800", "' OR 1=1 --", "%"):
        assert query.task(unknown) is None
        assert query.tree(unknown).tasks == []
    assert query.types() == sorted({task.name for task in tasks if task.name})
    assert query.workers() == sorted({task.worker for task in tasks if task.worker})
    query.close()


@pytest.mark.parametrize("hostile", ["a\0b", "\ud800abc"])
def test_what_no_database_takes(url: str, tasks: list[Record], hostile: str) -> None:
    query = Query(url)
    for search in (Search(name=hostile), Search(state=hostile), Search(worker=hostile), Search(queue=hostile)):
        with pytest.raises(SearchError):
            query.page(search)
    with pytest.raises(SearchError):
        query.page(Search(), sort="args; DROP TABLE tasks")
    query.close()


def test_trees(url: str) -> None:
    def task(uuid: str, root: str | None, parent: str | None = None, group: str | None = None) -> Record:
        return Record(id=uuid, root_id=root, parent_id=parent, group_id=group, received=float(len(uuid)), seen=1.0)

    store = open_store(url)
    family = [task("r", "r"), task("c1", "r", "r", "g"), task("c22", "r", "r", "g"), task("grand", "r", "c1")]
    # of a root that the history never knew, and of none
    others = [task("alone", None), task("or", "lost", "lost"), task("orphan", "lost", "or"), task("z", "z")]
    many = [task("many", "many"), *(task(f"many{number}", "many", "many") for number in range(600))]
    store.write([row_of(found) for found in (*family, *others, *many)])
    query = Query(url)
    for member in family:
        tree = query.tree(member.id)
        assert (tree.root, [found.id for found in tree.tasks], tree.cut) == ("r", ["r", "c1", "c22", "grand"], False)
    assert [found.id for found in query.tree("alone").tasks] == ["alone"]
    assert query.tree("or") == query.tree("orphan") == query.tree("lost")
    assert (query.tree("or").root, [found.id for found in query.tree("or").tasks]) == ("lost", ["or", "orphan"])
    tree = query.tree("many599")
    assert tree.cut
    assert len(tree.tasks) == 500
    assert {"many", "many599"} <= {found.id for found in tree.tasks}
    query.close()
    store.close()


def test_no_tree_goes_through_all_tasks(url: str, tasks: list[Record], monkeypatch: pytest.MonkeyPatch) -> None:
    plans: list[str] = []
    fetch = Session.fetch

    def explained(self: Session, statement: str, parameters: Any = None) -> Any:
        explain = "EXPLAIN QUERY PLAN " if self.is_sqlite else "EXPLAIN "
        if not self.is_sqlite:
            # a small table is not worth its index
            fetch(self, "SELECT set_config('enable_seqscan', 'off', false)")
        plans.append("\n".join(str(line[-1]) for line in fetch(self, explain + statement, parameters)))
        return fetch(self, statement, parameters)

    monkeypatch.setattr(Session, "fetch", explained)
    query = Query(url)
    query.tree(tasks[0].id)
    query.children([tasks[0].id, tasks[1].id])
    query.close()
    assert len(plans) > 5
    for plan in plans:
        assert "tasks_seen" not in plan
        assert "SCAN" not in plan
        assert "Seq Scan" not in plan


def test_children_and_the_latest(url: str) -> None:
    query = Query(url)
    store = open_store(url)
    assert query.latest() is None
    made = [Record(id="p", seen=1.0), Record(id="a", parent_id="p", seen=2.0), Record(id="b", parent_id="p", seen=3.0)]
    store.write([row_of(task) for task in made])
    found = query.children(["p", "a", "nobody", "a\0b", "p"])
    assert {parent: sorted(ids) for parent, ids in found.items()} == {"p": ["a", "b"]}
    assert query.children([]) == {}
    assert query.latest() == 3.0
    query.close()
    store.close()


# ------------------------------------------------------------------ databases that are not as they should be


def test_a_history_that_is_not_there(url: str, tmp_path: Path) -> None:
    query = Query(url)
    for _ in range(2):
        with pytest.raises(HistoryError) as caught:
            query.page(Search())
        assert caught.value.kind == "missing"
        assert "collector makes it" in str(caught.value)
    # nothing was made by asking
    assert list(tmp_path.iterdir()) == []
    # and it is there as soon as it is
    store = open_store(url)
    assert query.page(Search()) == Page([], 0, True, 0, True, None)
    store.close()
    query.close()


@pytest.mark.parametrize(("revision", "kind"), [("9999", "newer"), ("0001", "schema")])
def test_a_history_of_another_release(url: str, revision: str, kind: str) -> None:
    store = open_store(url)
    with store.transaction() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})
    query = Query(url)
    for _ in range(2):
        with pytest.raises(HistoryError) as caught:
            query.task("x")
        assert caught.value.kind == kind
    with store.transaction() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": REVISION})
    assert query.task("x") is None
    query.close()
    store.close()


def test_files_that_are_no_history(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    path.write_bytes(b"something else, but long enough to be looked at" * 100)
    with pytest.raises(HistoryError) as caught:
        Query(f"sqlite:///{path}").page(Search())
    assert caught.value.kind == "damaged"
    path.unlink()
    path.mkdir()
    with pytest.raises(HistoryError):
        Query(f"sqlite:///{path}").page(Search())
    path.rmdir()
    sqlite3.connect(path).execute("CREATE TABLE other (x)").connection.close()
    with pytest.raises(HistoryError) as caught:
        Query(f"sqlite:///{path}").page(Search())
    assert caught.value.kind == "missing"


def test_urls_that_can_never_work() -> None:
    for wrong in ("", "mysql://x/y", "sqlite://", "postgresql://host", "nonsense"):
        with pytest.raises(SettingsError):
            Query(wrong)


def test_a_server_that_goes_away_and_comes_back(postgres: Any) -> None:
    url = postgres.url()
    open_store(url).close()
    query = Query(url)
    assert query.page(Search()).tasks == []
    postgres.stop()
    try:
        with pytest.raises(HistoryError) as caught:
            query.page(Search())
        assert caught.value.kind == "down"
    finally:
        postgres.start()
    assert query.page(Search()).tasks == []
    query.close()


def test_a_password_is_never_told(postgres: Any) -> None:
    database = postgres.url().rpartition("/")[2]
    query = Query(f"postgresql://nobody:hush-hush@127.0.0.1:{postgres.port}/{database}")
    with pytest.raises(HistoryError) as caught:
        query.page(Search())
    assert caught.value.kind == "denied"
    assert "hush" not in str(caught.value)


def test_reading_never_writes(url: str, tasks: list[Record]) -> None:
    reading = Reading(url)
    with pytest.raises(HistoryError), reading.session(5) as session:
        session.fetch("UPDATE tasks SET name = 'x' RETURNING id")
    reading.close()


def test_the_sqlite_file_after_a_crash_and_with_nobody_writing(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    store = open_store(f"sqlite:///{path}")
    store.write([row_of(Record(id="a", received=1.0, seen=1.0))])
    copy = tmp_path / "copy" / "history.sqlite"
    copy.parent.mkdir()
    # as a crash leaves it: what was written is in the log only
    for end in ("", "-wal"):
        shutil.copy(f"{path}{end}", f"{copy}{end}")
    store.close()
    for found in (path, copy):
        query = Query(f"sqlite:///{found}")
        assert [task.id for task in query.page(Search()).tasks] == ["a"]
        query.close()


def test_pages_while_it_is_written(url: str, state_directory: Path) -> None:
    stop, failures = threading.Event(), []
    store = open_store(url)

    def write() -> None:
        number = 0
        while not stop.is_set():
            rows = [
                row_of(Record(id=f"{number + n}", seen=float(number + n), received=float(number + n), args="(needle,)"))
                for n in range(100)
            ]
            try:
                store.write(rows)
            except HistoryError as error:
                failures.append(error)
            number += 100

    thread = threading.Thread(target=write)
    thread.start()
    try:
        query = Query(url)
        last = -1.0
        for number in range(60):
            page = query.page(parse("needle", 0) if number % 2 else Search(), limit=10)
            received = [task.received or 0.0 for task in page.tasks]
            assert received == sorted(received, reverse=True)
            if received:
                assert received[0] >= last
                last = received[0]
        assert last > 0
        query.close()
    finally:
        stop.set()
        thread.join()
        store.close()
    assert failures == []


def test_many_ask_at_once(url: str, tasks: list[Record]) -> None:
    query = Query(url)
    with ThreadPoolExecutor(12) as pool:
        pages = list(pool.map(lambda number: query.page(Search(), limit=number), range(1, 60)))
    assert [len(page.tasks) for page in pages] == list(range(1, 60))
    query.close()
