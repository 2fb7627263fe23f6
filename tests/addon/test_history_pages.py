"""Flower's pages and API of tasks on the history, beside a Flower that has the same tasks in its memory."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from addon_support import BROWSER, Flower, Redis, Response, wait_for
from history_support import BEGIN, CHORD, WORKER, collector, history_settings, keep, publish, sent, story, table
from passlib.hash import bcrypt

from flowerbed.auth import user_cookie
from flowerbed.settings import Credentials, User

SECRET = secrets.token_urlsafe(32)
USERS = [User(role, bcrypt.using(rounds=4).hash("x"), role) for role in ("viewer", "operator")]
CREDENTIALS = Credentials(SECRET, tuple(USERS))
#: what must differ from Flower's answer, and how: the events that the history is made of are not kept whole
NOT_KEPT = {"clock": 0, "exchange": None, "routing_key": None}
#: a task in memory has no runtime unless it succeeded; the history measures the others itself
MEASURED = ("bad-1", "away-1")


def credentials(redis: Redis, **more: Any) -> dict[str, Any]:
    users = [{"name": user.name, "hash": user.hash, "role": user.role} for user in USERS]
    return {"cookie_secret": SECRET, "users": users, "celery": {"broker_url": redis.url}, **more}


def ask(flower: Flower, path: str, role: str | None = "operator", method: str = "GET", **form: str) -> Response:
    """One request of somebody's, as a page's script sends it."""
    cookies = {"_xsrf": xsrf(flower)}
    if role is not None:
        cookies["user"] = user_cookie(CREDENTIALS, role)
    headers = {**BROWSER, "X-XSRFToken": cookies["_xsrf"]}
    return flower.request(method, path, headers, cookies=cookies, form=form or None)


_tokens: dict[int, str] = {}


def xsrf(flower: Flower) -> str:
    if flower.port not in _tokens:
        _tokens[flower.port] = flower.request("GET", "/login", BROWSER).cookie_value("_xsrf")
    return _tokens[flower.port]


def got(flower: Flower, path: str) -> Any:
    """The JSON of an answer."""
    answer = ask(flower, path)
    assert answer.status == 200, f"{path}: {answer.status} {answer.text[:500]}"
    return json.loads(answer.text)


def rows(flower: Flower, search: str = "", **asked: Any) -> list[str]:
    """The ids that a page of the table shows."""
    answer = got(flower, table(search, **asked))
    assert answer.get("searchError", "") == "", answer["searchError"]
    return [row["uuid"] for row in answer["data"]]


def banner(page: str) -> list[str]:
    return re.findall(r"data-history-notice>([^<]*)<", page)


@dataclass
class Pair:
    """The same tasks in the history of one Flower, and in the memory of another."""

    history: Flower
    memory: Flower


@pytest.fixture(scope="module")
def pair(
    tmp_path_factory: pytest.TempPathFactory, flower_process: Callable[..., Flower], redis_server: Redis
) -> Iterator[Pair]:
    path = tmp_path_factory.mktemp("history") / "history.sqlite"
    # another broker database: the Flower on the history hears nothing
    elsewhere = redis_server.url.removesuffix("/0") + "/1"
    keep(f"sqlite:///{path}", story(), lost=["runs-1"])
    with collector() as (_, port):
        history = flower_process(
            history_settings(path, port),
            {**credentials(redis_server), "celery": {"broker_url": elsewhere}},
        )
        memory = flower_process({"secure_cookies": False}, credentials(redis_server))

        def heard() -> bool:
            publish(redis_server.url, [sent("ping", "shop.ping", BEGIN)])
            return ask(memory, "/api/task/info/ping").status == 200

        wait_for(heard, "events")
        publish(redis_server.url, story())
        wait_for(lambda: got(memory, "/api/task/info/pack")["state"] == "SUCCESS", "the story")
        yield Pair(history, memory)


IDS = sorted({event["uuid"] for event in story()})


@pytest.mark.parametrize("uuid", IDS)
def test_a_task_has_flowers_keys_types_and_values(pair: Pair, uuid: str) -> None:
    path = f"/api/task/info/{uuid}"
    ours, flowers = got(pair.history, path), got(pair.memory, path)
    assert ours.pop("lost", False) is (uuid == "runs-1")
    assert list(ours) == list(flowers)
    for key, value in flowers.items():
        if key in NOT_KEPT:
            assert ours[key] == NOT_KEPT[key]
        elif key == "runtime" and uuid in MEASURED:
            assert value is None and ours[key] == pytest.approx(0.5)
        elif key == "children":
            assert sorted(ours[key]) == sorted(value)
        else:
            assert (ours[key], type(ours[key])) == (value, type(value)), key


def test_the_list_is_flowers(pair: Pair) -> None:
    ours, flowers = got(pair.history, "/api/tasks"), got(pair.memory, "/api/tasks")
    flowers.pop("ping")
    assert sorted(ours) == sorted(flowers) == IDS
    for uuid in IDS:
        ours[uuid].pop("lost", None)
        # Flower puts the worker last here, and leaves it out where there is none
        assert list(ours[uuid]) == list(flowers[uuid]), uuid
        assert sorted(ours[uuid]["children"]) == sorted(flowers[uuid]["children"])
        same = [key for key in ours[uuid] if key not in (*NOT_KEPT, "runtime", "children")]
        assert {key: ours[uuid][key] for key in same} == {key: flowers[uuid][key] for key in same}


@pytest.mark.parametrize(
    "query",
    [
        "taskname=shop.pick",
        "taskname=shop.nothing",
        "state=SUCCESS",
        "state=All",
        f"workername={quote(WORKER)}",
        "workername=nobody",
        "taskname=shop.slow&state=REVOKED",
        "search=shop.pick",
        "search=state:FAILURE",
        "search=kwargs:user=7",
        "search=" + quote('args:"(1, 2)"'),
        "search=" + quote("name:shop.add OR name:shop.pack"),
        "search=" + quote('"shop.add" AND state:SUCCESS'),
        "received_start=2001-01-01+00:00",
        "received_end=2001-01-01+00:00",
        "limit=0",
        "limit=-5",
    ],
)
def test_filters_are_flowers(pair: Pair, query: str) -> None:
    flowers = set(got(pair.memory, f"/api/tasks?{query}")) - {"ping"}
    if query.startswith("received_"):
        # Flower lets those through that were not received
        flowers -= {"waits-1"}
    assert set(got(pair.history, f"/api/tasks?{query}")) == flowers


@pytest.mark.parametrize("sort", ["name", "-name", "received", "-received", "started", "-started", "state", "-state"])
def test_sorting_and_pages_of_the_api(pair: Pair, sort: str) -> None:
    key = sort.lstrip("-")
    ours = list(got(pair.history, f"/api/tasks?sort_by={sort}").values())
    values = [task[key] for task in ours if task[key] is not None]
    assert values == sorted(values, reverse=sort.startswith("-"))
    assert len(ours) == len(IDS)
    ids = [task["uuid"] for task in ours]
    pages = [list(got(pair.history, f"/api/tasks?sort_by={sort}&limit=4&offset={start}")) for start in (0, 4, 8, 12)]
    assert [uuid for page in pages for uuid in page] == ids


def test_types(pair: Pair) -> None:
    flowers = set(got(pair.memory, "/api/task/types")["task-types"]) - {"shop.ping"}
    assert got(pair.history, "/api/task/types") == {"task-types": sorted(flowers)}


def test_a_row_of_the_table_has_flowers_keys(pair: Pair) -> None:
    ours, flowers = got(pair.history, table("shop.pack")), got(pair.memory, table("shop.pack"))
    assert list(ours["data"][0]) == list(flowers["data"][0])
    assert {key: type(value) for key, value in ours["data"][0].items() if key not in NOT_KEPT} == {
        key: type(value) for key, value in flowers["data"][0].items() if key not in NOT_KEPT
    }
    assert (ours["draw"], ours["recordsTotal"], ours["recordsFiltered"]) == (7, len(IDS), 1)
    assert (
        ask(pair.history, "/tasks/datatable", method="POST", **dict(_query(table("shop.pack")))).text
        == ask(pair.history, table("shop.pack")).text
    )


def _query(path: str) -> list[tuple[str, str]]:
    from urllib.parse import parse_qsl

    return parse_qsl(path.partition("?")[2], keep_blank_values=True)


@pytest.mark.parametrize("sort", ["name", "received", "started", "runtime", "worker", "state", "uuid", "retries"])
def test_the_table_sorts(pair: Pair, sort: str) -> None:
    for descending in (True, False):
        data = got(pair.history, table(sort=sort, descending=descending))["data"]
        values = [row[sort] for row in data if row[sort] is not None]
        assert values == sorted(values, reverse=descending)
        assert len(data) == len(IDS)


def test_the_table_says_what_it_does_not_sort_by(pair: Pair) -> None:
    answer = got(pair.history, table(sort="result"))
    assert "is not sorted by result" in answer["searchError"] and len(answer["data"]) == len(IDS)


def test_pages_of_the_table(pair: Pair) -> None:
    whole = rows(pair.history)
    assert rows(pair.history, start=0, length=5) + rows(pair.history, start=5, length=100) == whole
    beyond = got(pair.history, table(start=10**6))
    assert (beyond["data"], beyond["recordsFiltered"]) == ([], len(IDS))


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("queue:celery name:shop.pa", ["pack"]),
        ("exception:timeout", ["bad-1"]),
        ("worker:w1@ state:revoked", ["away-1"]),
        ("name:shop.pick since:2h", ["pick3", "pick2", "pick1"]),
        ("name:shop.pick until:2h", []),
    ],
)
def test_search_of_the_table(pair: Pair, search: str, found: list[str]) -> None:
    assert rows(pair.history, search) == found


@pytest.mark.parametrize("search", ['"open', "NOT this", "(((((((deep)))))))", "since:tomorrow", "ab", "-minus"])
def test_a_wrong_search_is_a_sentence(pair: Pair, search: str) -> None:
    answer = got(pair.history, table(search))
    assert answer["data"] == [] and re.fullmatch(r"[A-Zs-].*\.", answer["searchError"])
    refused = ask(pair.history, "/api/tasks?search=" + quote(search))
    assert (refused.status, json.loads(refused.text)) == (400, {"error": answer["searchError"]})


HOSTILE = [
    {"draw": None},
    {"draw": "x"},
    {"start": None},
    {"start": "1.5"},
    {"length": ""},
    {"length": "1e3"},
    {"order[0][column]": None},
    {"order[0][column]": "0"},
    {"order[0][column]": "-1"},
    {"columns[3][data]": "__class__"},
    {"columns[3][data]": "name; DROP TABLE tasks"},
    {"start": "9" * 5000},
]
HARMLESS = [
    {"start": "-1"},
    {"length": "-1"},
    {"length": 10**12},
    {"start": 10**40},
    {"order[0][dir]": "sideways"},
    {"search[value]": "💐 ünïcode"},
    {"search[value]": "x" * 2000},
    {"search[value]": "%_%"},
    {"search[value]": "' OR 1=1 --"},
]


@pytest.mark.parametrize("changed", [*HOSTILE, *HARMLESS], ids=lambda changed: str(changed)[:40])
def test_hostile_arguments_of_the_table(pair: Pair, changed: dict[str, Any]) -> None:
    answer = ask(pair.history, table(**changed))
    assert answer.status == (400 if changed in HOSTILE else 200), answer.text[:300]
    if answer.status == 200:
        assert json.loads(answer.text)["draw"] == 7


@pytest.mark.parametrize(
    "query",
    [
        "limit=x",
        "offset=x",
        "sort_by=args",
        "sort_by=--",
        "received_start=yesterday",
        "received_end=2026-13-01+00:00",
        "received_end=" + "9" * 3000,
    ],
)
def test_wrong_arguments_of_the_api(pair: Pair, query: str) -> None:
    answer = ask(pair.history, f"/api/tasks?{query}")
    assert answer.status == 400 and answer.text.strip()


@pytest.mark.parametrize("query", ["offset=-7", "limit=" + "9" * 40, "offset=" + "9" * 40])
def test_numbers_beyond_all_bounds(pair: Pair, query: str) -> None:
    assert ask(pair.history, f"/api/tasks?{query}").status == 200


@pytest.mark.parametrize("uuid", ["none", "a%2Fb", "%00", "%F0%9F%92%90", "x" * 3000, "<script>", "%ED%A0%80"])
def test_unknown_tasks(pair: Pair, uuid: str) -> None:
    for path in (f"/task/{uuid}", f"/api/task/info/{uuid}"):
        answer = ask(pair.history, path)
        assert answer.status in (400, 404), f"{path}: {answer.status}"
        assert "<script>alert" not in answer.text and "Traceback" not in answer.text


def test_the_page_of_the_table(pair: Pair) -> None:
    page = ask(pair.history, "/tasks").text
    plain = ask(pair.memory, "/tasks").text
    assert banner(page) == []
    assert "since:2h" in page and "search-help" not in plain
    assert re.findall(r"<th[^>]*>([^<]*)", page) == re.findall(r"<th[^>]*>([^<]*)", plain)
    # but for what is ours it is Flower's page
    ours = re.sub(r'<details class="small" id="search-help".*?</details>\s*', "", page, flags=re.DOTALL)
    ours = ours.replace(' data-orderable="false"', "").replace('<a href="#search-help">', "LINK")
    assert ours.split() == re.sub(r"<a href=\"https://flower.readthedocs[^>]*filter[^>]*>", "LINK", plain).split()


def test_the_page_of_a_task_is_flowers(pair: Pair) -> None:
    page, plain = (ask(flower, "/task/ok-1").text for flower in (pair.history, pair.memory))
    text = [re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html)) for html in (page, plain)]
    for part in re.findall(r"(?:Name|UUID|Status|Arguments|Result|Received|Started|Succeeded|Worker) [^ ]+", text[1]):
        assert part in text[0]
    assert "task-tree" not in page and banner(page) == []


def test_the_tree_of_a_chord(pair: Pair) -> None:
    for uuid in CHORD:
        page = ask(pair.history, f"/task/{uuid}").text
        tree = page[page.index('id="task-tree"') :]
        assert re.findall(r'title="([\w-]+)">', tree) == list(CHORD)
        assert set(re.findall(r'href="/task/([\w-]+)"', tree)) == set(CHORD) - {uuid}
        assert tree.count('aria-current="true"') == 1
    assert "as the body of a chord is" in page


def test_a_lost_task_is_marked(pair: Pair) -> None:
    page = ask(pair.history, "/task/runs-1").text
    assert ["This task is lost" in notice for notice in banner(page)] == [True]
    states = {row["uuid"]: row["state"] for row in got(pair.history, table())["data"]}
    assert states["runs-1"] == "STARTED (lost)"
    assert states["ok-1"] == "SUCCESS"


def test_buttons_are_for_operators(pair: Pair) -> None:
    for uuid, button in (("runs-1", "task-terminate"), ("again-1", "task-revoke"), ("ok-1", None)):
        operator, viewer = (ask(pair.history, f"/task/{uuid}", role).text for role in ("operator", "viewer"))
        assert [name for name in ("task-terminate", "task-revoke") if f'id="{name}"' in operator] == [button] * bool(
            button
        )
        assert 'id="task-terminate"' not in viewer and 'id="task-revoke"' not in viewer


def test_every_piece_found_its_place(pair: Pair) -> None:
    for path in ("/tasks", "/task/pack", "/task/runs-1", "/task/none"):
        ask(pair.history, path)
    assert "has no place" not in pair.history.log and "Traceback" not in pair.history.log


def test_no_script_and_no_style_of_ours(pair: Pair) -> None:
    for path in ("/tasks", "/task/pack"):
        page = ask(pair.history, path).text
        assert not re.search(r"<script(?![^>]* src=)|<style|\son\w+=", page)


ROUTES = ["/tasks", table(), "/task/ok-1", "/api/tasks", "/api/task/types", "/api/task/info/ok-1"]


@pytest.mark.parametrize("path", ROUTES, ids=lambda path: path.partition("?")[0])
def test_who_may_look(pair: Pair, path: str) -> None:
    assert ask(pair.history, path, None).status in (302, 401)
    for role in ("viewer", "operator"):
        assert ask(pair.history, path, role).status == 200
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        allowed = method == "POST" and path.startswith("/tasks/datatable")
        assert ask(pair.history, path, None, method, x="1").status in (302, 401)
        assert ask(pair.history, path, "viewer", method, x="1").status == (200 if allowed else 403)
        assert ask(pair.history, path, "operator", method, x="1").status == (200 if allowed else 405)


def test_a_page_of_another_site_cannot_ask(pair: Pair) -> None:
    """The table is read by POST: with the token only, as Flower's."""
    cookies = {"user": user_cookie(CREDENTIALS, "operator"), "_xsrf": xsrf(pair.history)}
    path, form = table(), {"x": "1"}
    assert pair.history.request("POST", path, BROWSER, cookies=cookies, form=form).status == 403
    foreign = {**BROWSER, "Sec-Fetch-Site": "cross-site", "X-XSRFToken": cookies["_xsrf"]}
    assert pair.history.request("POST", path, foreign, cookies=cookies, form=form).status == 403


def test_the_api_is_cut(pair: Pair, tmp_path: Path, flower_process: Callable[..., Flower], redis_server: Redis) -> None:
    assert "Flowerbed-History" not in ask(pair.history, "/api/tasks").headers
    path = tmp_path / "history.sqlite"
    keep(f"sqlite:///{path}", [sent(f"t{number}", "shop.add", BEGIN + number) for number in range(1005)])
    with collector() as (_, port):
        flower = flower_process(history_settings(path, port), credentials(redis_server))
        for query, number, is_cut in (("", 1000, True), ("?limit=9999", 1000, True), ("?limit=10", 10, False)):
            answer = ask(flower, f"/api/tasks{query}")
            assert len(json.loads(answer.text)) == number
            assert answer.headers.get("Flowerbed-History") == ("cut at 1000 tasks" if is_cut else None)
        assert len(got(flower, "/api/tasks?offset=1000")) == 5


def test_without_a_sign_in_the_api_is_closed_unless_flower_is_told_otherwise(
    tmp_path: Path, flower_process: Callable[..., Flower], redis_server: Redis
) -> None:
    keep(f"sqlite:///{tmp_path}/history.sqlite", story())
    with collector() as (_, port):
        flower = flower_process(
            history_settings(tmp_path / "history.sqlite", port, auth="none"),
            {"celery": {"broker_url": redis_server.url}},
        )
        assert "ok-1" in flower.request("GET", table()).text
        for path in ("/api/tasks", "/api/task/types", "/api/task/info/ok-1"):
            assert flower.request("GET", path).status == 401


def test_what_flower_knows_first_is_shown(
    tmp_path: Path, flower_process: Callable[..., Flower], redis_server: Redis
) -> None:
    """The history is a second behind, or paused."""
    keep(f"sqlite:///{tmp_path}/history.sqlite", story())
    with collector() as (told, port):
        flower = flower_process(history_settings(tmp_path / "history.sqlite", port), credentials(redis_server))

        def heard() -> bool:
            publish(redis_server.url, [sent("new-1", "shop.new", BEGIN)])
            return ask(flower, "/task/new-1").status == 200

        wait_for(heard, "a task that is in memory only")
        assert got(flower, "/api/task/info/new-1")["name"] == "shop.new"
        assert "shop.new" in got(flower, "/api/task/types")["task-types"]
        assert ask(flower, "/task/none").status == 404
        # while the history is paused Flower knows more of a task than the history
        end = {"type": "task-succeeded", "uuid": "runs-1", "hostname": WORKER, "timestamp": BEGIN + 99}
        publish(redis_server.url, [{**end, "result": "'late'", "runtime": 9.0}])
        told.answer = {"status": "ok", "reader": "reading", "history": "The history in x has no room left."}
        wait_for(lambda: "late" in ask(flower, "/task/runs-1").text, "Flower's own page of the task", 15)
        wait_for(lambda: "has no room left" in str(banner(ask(flower, "/task/ok-1").text)), "the banner", 15)


def test_hooks_zone_columns_prefix_and_masks(
    tmp_path: Path, flower_process: Callable[..., Flower], redis_server: Redis
) -> None:
    keep(f"sqlite:///{tmp_path}/history.sqlite", story())
    config = (
        "def format_task(task):\n    task.args = 'formatted ' + str(task.args)\n    return task\n"
        "natural_time = True\ntasks_columns = 'name,state,exception'\n"
    )
    with collector() as (_, port):
        flower = flower_process(
            history_settings(tmp_path / "history.sqlite", port, url_prefix="/fl", redact={"keys": ["user"]}),
            credentials(redis_server),
            config=config,
        )
        row = got(flower, table("id:ok-1"))["data"][0]
        # the history was written before this mask was asked for
        assert row["args"] == "formatted (1, 2)" and row["kwargs"] == "{'user': '***'}"
        assert "formatted (1, 2)" in ask(flower, "/task/ok-1").text
        for path in ("/task/ok-1", "/api/task/info/ok-1", "/api/tasks", table()):
            answer = ask(flower, path)
            assert answer.status == 200 and "'user': 7" not in answer.text and "user&#x27;: 7" not in answer.text
        page = ask(flower, "/tasks").text
        assert 'value="natural-time' in page
        if "data-column" in page:
            assert re.findall(r'data-column="(\w+)"', page) == ["name", "state", "exception"]
        assert 'href="/fl/task/pack"' in ask(flower, "/task/order").text


def test_without_a_history_nothing_changes(flower_process: Callable[..., Flower], redis_server: Redis) -> None:
    for more in ({}, {"history": {"url": "sqlite:////nowhere/x"}}, {"collector": {"enabled": True}}):
        flower = flower_process({"secure_cookies": False, **more}, credentials(redis_server))
        page = ask(flower, "/tasks").text
        assert "search-help" not in page and banner(page) == []
        flower.stop()


def test_flowers_own_sign_in_holds(tmp_path: Path, flower_process: Callable[..., Flower], redis_server: Redis) -> None:
    """With auth "flower" there is no guard: each handler of ours asks itself."""
    keep(f"sqlite:///{tmp_path}/history.sqlite", story())
    with collector() as (_, port):
        flower = flower_process(
            history_settings(tmp_path / "history.sqlite", port, auth="flower"),
            {"celery": {"broker_url": redis_server.url}},
            config="basic_auth = ['a:b']\n",
        )
        for path in ROUTES:
            assert flower.request("GET", path).status == 401, path
            assert flower.request("GET", path, basic=("a", "b")).status == 200, path
        assert flower.request("POST", table(), form={"x": "1"}).status in (401, 403)
