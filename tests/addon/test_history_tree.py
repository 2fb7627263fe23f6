"""The order and the bars of a tree of tasks, from whatever parents there are."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowerbed.history.query import Task, Tree
from flowerbed.web import tree

NOW = 1000.0
NONE: dict[str, Any] = dict.fromkeys(Task.__struct_fields__)


def task(uuid: str, parent: str | None = None, begin: float = 0.0, **fields: Any) -> Task:
    """A task that took one second, which is sent at `begin`."""
    known = {"name": "n", "state": "SUCCESS", "sent": begin, "started": begin + 0.2, "succeeded": begin + 1}
    more = {"finished": begin + 1, "retries": 0, "lost": False, "seen": begin, "updated": begin + 1}
    return Task(**{**NONE, "id": uuid, "parent_id": parent, **known, **more, **fields})


def order(*tasks: Task) -> list[tuple[str, int]]:
    return [(one.id, level) for one, level, _ in tree.ordered(tasks)]


def test_a_chain_goes_straight_down() -> None:
    assert order(task("c", "b", 2), task("a"), task("b", "a", 1)) == [("a", 0), ("b", 0), ("c", 0)]


def test_what_one_task_sent_stands_side_by_side() -> None:
    tasks = [task("a"), task("z", "a", 1), task("b", "a", 2), task("z1", "z", 3), task("b1", "b", 3.5)]
    assert order(*tasks) == [("a", 0), ("z", 1), ("z1", 1), ("b", 1), ("b1", 1)]


def test_the_body_of_a_chord_stands_behind_its_header() -> None:
    header = [task("h1", "a", 1), task("h2", "a", 2), task("h3", "a", 1.5)]
    tasks = [task("a"), *header, task("body", "h2", 3.1)]
    assert order(*tasks) == [("a", 0), ("h1", 1), ("h3", 1), ("h2", 1), ("body", 0)]
    relations = {one.id: relation for one, _, relation in tree.ordered(tasks)}
    assert relations["body"].endswith("as the body of a chord is") and relations["h2"] == "sent by a"


def test_what_began_before_the_others_had_ended_is_no_body() -> None:
    tasks = [task("a"), task("h1", "a", 1), task("h2", "a", 5), task("child", "h1", 2)]
    assert order(*tasks) == [("a", 0), ("h1", 1), ("child", 1), ("h2", 1)]


@pytest.mark.parametrize(
    "tasks",
    [
        [task("a", "a")],
        [task("a", "b"), task("b", "a", 1)],
        [task("a", "gone"), task("b", "gone", 1)],
        [task("x"), task("a", "c"), task("b", "a", 1), task("c", "b", 2), task("d", "b", 3)],
    ],
)
def test_circles_and_unknown_parents_end(tasks: list[Task]) -> None:
    assert sorted(uuid for uuid, _ in order(*tasks)) == sorted(one.id for one in tasks)


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12), st.floats(0, 100)), max_size=30))
def test_every_task_once_whatever_the_parents(links: list[tuple[int, int, float]]) -> None:
    tasks = {str(uuid): task(str(uuid), str(parent), begin) for uuid, parent, begin in links}
    found = order(*tasks.values())
    assert sorted(uuid for uuid, _ in found) == sorted(tasks)
    assert all(0 <= level <= tree.DEEPEST for _, level in found)


def test_a_long_chain_is_no_recursion() -> None:
    tasks = [task(str(number), str(number - 1), number) for number in range(5000)]
    assert len(order(*tasks)) == 5000


def test_bars_are_within_the_line() -> None:
    running = {"state": "STARTED", "succeeded": None, "finished": None}
    tasks = [
        task("a", begin=900),
        task("skewed", begin=950, started=940.0),
        task("runs", begin=960, **running),
        task("lost", begin=960, **running, lost=True, updated=970.0),
        task("waits", begin=970, state="PENDING", started=None, succeeded=None, finished=None),
        task("nothing", begin=0, sent=None, started=None, succeeded=None, finished=None, seen=980.0),
    ]
    began, ended, rows = tree.lines(tasks, NOW)
    assert (began, ended) == (900.0, NOW)
    by_id = {row.task.id: row for row in rows}
    for row in rows:
        for bar in (row.waiting, row.running):
            if bar is not None:
                assert 0 <= bar.left <= 100 and bar.width >= 0 and bar.left + bar.width <= 100.001
    waiting, running_bar, lost = by_id["waits"].waiting, by_id["runs"].running, by_id["lost"].running
    assert waiting is not None and waiting.left + waiting.width == pytest.approx(100)
    assert running_bar is not None and running_bar.left + running_bar.width == pytest.approx(100)
    assert lost is not None and lost.left + lost.width == pytest.approx(70)
    assert "its worker is gone" in by_id["lost"].times


def test_one_moment_is_a_line_too() -> None:
    began, ended, rows = tree.lines([task("a", sent=5.0, started=None, finished=5.0, succeeded=5.0, seen=5.0)], NOW)
    assert began == ended and len(rows) == 1


def test_hostile_names_are_text() -> None:
    bad = "<script>alert(1)</script>\"'&"
    tasks = [task(bad, name=bad, worker=bad, state=bad), task("b", bad, 1, name=None)]
    html = tree.page(Tree(bad, tasks, True), "b", lambda _, uuid: "/task/x", datetime.timezone.utc).decode()
    assert "<script" not in html and "There are more" in html


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-1, "0.00 ms"), (0.5, "500.00 ms"), (59.994, "59.99 s"), (61, "1m 01s"), (7322, "2h 02m 02s")],
)
def test_durations(seconds: float, said: str) -> None:
    assert tree.lasting(seconds) == said
