"""A collector that is not wanted any more, is wanted again, and has other settings than before."""

from __future__ import annotations

from tests.hosts import USER_NAME, Host, basic, scenario_secrets, wait_for
from tests.lifecycle.looks import NEW, assert_serves, collector_health, collector_pid, main_pid
from tests.plays import run_play

COUNT = """
import json, sqlite3
rows = sqlite3.connect("file:/var/lib/flower/main/history.sqlite?mode=ro", uri=True)
print(rows.execute("SELECT count(*) FROM tasks").fetchone()[0])
"""


def rows(host: Host) -> int:
    """Tasks in the history."""
    return int(host.python(COUNT, user="flower-main"))


def test_a_setting_of_its_own_restarts_it_alone(host: Host) -> None:
    pids = main_pid(host), collector_pid(host)
    run_play("site.yml", {**NEW, "flower_metrics_queues": ["nobody-consumes-it"]}).well()
    assert main_pid(host) == pids[0]
    assert collector_pid(host) != pids[1]
    wait_for(
        "the queue is told of",
        lambda: (
            'celery_queue_length{queue="nobody-consumes-it"} 0'
            in host.shell(
                "python3 -c 'import urllib.request as u; print(u.urlopen(\"http://127.0.0.1:8000/metrics\").read().decode())'"
            )
        ),
    )


def test_without_one_flower_serves_and_the_history_stays(host: Host) -> None:
    before = wait_for("tasks in the history", lambda: rows(host))
    run_play("site.yml", {**NEW, "flower_collector": False}).well()
    assert host.run("systemctl", "list-unit-files", "flower-collector@*", "--no-legend", check=False) == ""
    assert ":8000 " not in host.run("ss", "-Hlnt")
    assert host.run("find", "/etc/flower", "-name", "*collector*") == ""
    answer = host.get("/collector/metrics", basic(USER_NAME, scenario_secrets()["user_password"]))
    assert answer.status == 404
    assert rows(host) >= before
    run_play("site.yml", NEW).well()
    assert_serves(host)
    assert rows(host) >= before
    assert collector_health(host)["history"] == "ok"
