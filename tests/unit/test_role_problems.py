"""What the role refuses: every case gives one sentence with the variable's name, and a good host or inventory none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from filter_plugins.flower import host_problems, variable_problems

ROLE = Path(__file__).resolve().parents[2] / "roles/flower"
KNOWN = list(yaml.safe_load((ROLE / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]["options"])
RESERVED = yaml.safe_load((ROLE / "vars/main.yml").read_text())["__flower_reserved_options"]
GOOD: dict[str, Any] = {
    **yaml.safe_load((ROLE / "defaults/main.yml").read_text()),
    "flower_server_name": "flower.example.org",
    "flower_broker_url": "redis://:b9JmX2vQe7@redis.example.org:6379/0",
    "flower_users": [{"name": "alice", "password": "a long enough pass phrase"}],
}
LOOK: dict[str, Any] = {
    "os": {"id": "debian", "version": "12", "name": "Debian GNU/Linux 12 (bookworm)"},
    "python": [3, 11, 2],
    "systemd": 252,
    "listeners": {"80": "nginx"},
    "conflicts": [],
    "free_bytes": 10**9,
    "issuer": {"problem": "", "detail": ""},
    "history": {"at": "", "problem": "", "detail": ""},
    "brokers": [{"at": "redis.example.org:6379", "problem": "", "detail": ""}],
}
EXPECTED: dict[str, Any] = {
    "supported": {"debian": ["12", "13"]},
    "needed_bytes": 250_000_000,
    "ports": {"flower_http_port": 80, "flower_https_port": 443, "flower_metrics_port": 8000},
    "collector": "flower-collector@main.service",
    "check_mode": False,
}


def variables(**changes: Any) -> list[str]:
    return variable_problems({**GOOD, **changes}, KNOWN, RESERVED)


def host(*, check_mode: bool = False, **changes: Any) -> list[str]:
    return host_problems({**LOOK, **changes}, {**EXPECTED, "check_mode": check_mode})


def test_a_good_inventory_has_no_problem() -> None:
    assert variables() == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"flower_broker_url": ""}, "flower_broker_url"),
        ({"flower_memroy_max": "1G"}, "did you mean flower_memory_max?"),
        ({"flower_instance": "Main"}, "flower_instance: Main cannot name"),
        ({"flower_instance": "releases"}, "flower_instance"),
        ({"flower_users": []}, "flower_users"),
        ({"flower_auth": "none"}, "flower_users: nobody signs in"),
        ({"flower_options": {"max_taskz": 1}}, "max_taskz"),
        ({"flower_options": {"max_tasks": 1}}, "flower_max_tasks"),
        ({"flower_options": {"basic_auth": ["a:b"]}}, "flower_users"),
        ({"flower_memory_max": "lots"}, "flower_memory_max: 'lots'"),
        ({"flower_cpu_quota": "two"}, "flower_cpu_quota"),
        ({"flower_tasks_max": "many"}, "flower_tasks_max"),
        ({"flower_login_rate": "often"}, "flower_login_rate"),
        ({"flower_io_weight": 0}, "flower_io_weight: 0 is out of range"),
        ({"flower_https_port": 70000}, "flower_https_port: 70000 is out of range"),
        ({"flower_https_port": 80}, "flower_http_port: it is the same"),
        ({"flower_tls": "provided"}, "flower_tls_certificate and flower_tls_private_key"),
        ({"flower_tls_certificate": "/etc/x.pem"}, "they are not used with flower_tls: self_signed"),
        ({"flower_app_dir": "/srv/x"}, "flower_app_dir: it is of no use"),
        ({"flower_app": "proj.celery:app", "flower_app_dir": "srv"}, "flower_app_dir: it is not an absolute path"),
        ({"flower_format_task": "no function"}, "flower_format_task"),
        ({"flower_version": "latest"}, "flower_version: latest is not a version"),
        ({"flower_url_prefix": "a b"}, "flower_url_prefix"),
        ({"flower_server_name": "a;b"}, "flower_server_name"),
        ({"flower_watchdog_sec": 1}, "flower_watchdog_sec: 1 is out of range"),
        (
            {"flower_metrics_address": "flower.example.org"},
            "flower_metrics_address: flower.example.org is no IP address",
        ),
        ({"flower_metrics_port": 0}, "flower_metrics_port: 0 is out of range"),
        ({"flower_metrics_port": "443"}, "flower_metrics_port: it is the same as flower_https_port"),
        ({"flower_metrics_buckets": []}, "flower_metrics_buckets: these are no bounds"),
        ({"flower_metrics_buckets": [1, 1]}, "flower_metrics_buckets"),
        ({"flower_metrics_buckets": [0.1, "ten"]}, "flower_metrics_buckets"),
        ({"flower_metrics_buckets": [True, 2]}, "flower_metrics_buckets"),
        ({"flower_metrics_task_buckets": {"etl.*": [3600, 60]}}, "flower_metrics_task_buckets: etl.* has no bounds"),
        ({"flower_metrics_series_limit": 5}, "flower_metrics_series_limit: 5 is out of range"),
        (
            {"flower_history_url": "mysql://shop:b9JmX2vQe7@db/shop"},
            "flower_history_url: it names no database that is known",
        ),
        ({"flower_history_url": "postgresql://shop:b9JmX2vQe7@db"}, "flower_history_url: it names no database after"),
        ({"flower_history_url": "postgresql://shop:b9JmX2vQe7@db:port/shop"}, "flower_history_url: it is not the URL"),
        ({"flower_history_url": "sqlite:////srv/history.sqlite"}, "below /var/lib/flower/main/ only"),
        ({"flower_history_url": "sqlite:////var/lib/flower/main/../x"}, "below /var/lib/flower/main/ only"),
        ({"flower_history_url": "postgresql://db/x", "flower_history": False}, "it is not used with flower_history"),
        ({"flower_history_url": "postgresql://db/x", "flower_collector": False}, "without a collector nothing writes"),
        ({"flower_history_size": "much"}, "flower_history_size: much is no size"),
        ({"flower_history_size": "1M"}, "flower_history_size: 1M is no size from 16M on"),
        ({"flower_history_days": -1}, "flower_history_days: -1 is out of range"),
        ({"flower_history_text_lengths": {"argz": 1}}, "flower_history_text_lengths: argz is no text"),
        ({"flower_history_text_lengths": {"args": -1}}, "flower_history_text_lengths: args: -1 is no number"),
        ({"flower_collector_memory_max": "lots"}, "flower_collector_memory_max: 'lots'"),
        ({"flower_collector_cpu_quota": "two"}, "flower_collector_cpu_quota"),
    ],
)
def test_a_bad_variable_gives_one_sentence(changes: dict[str, Any], says: str) -> None:
    problems = variables(**changes)
    assert len(problems) == 1
    assert says in problems[0]
    assert "b9JmX2vQe7" not in problems[0]


def test_all_problems_are_said_at_once() -> None:
    assert len(variables(flower_memory_max="lots", flower_users=[], flower_version="x")) == 3


def test_an_instance_can_be_removed_without_a_broker_or_users() -> None:
    assert variables(flower_state="absent", flower_broker_url="", flower_users=[]) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"flower_history_url": "postgresql://shop:b9JmX2vQe7@db.example.org:5433/shop?sslmode=verify-full"},
        {"flower_history_url": "postgresql:///shop?host=/run/postgresql"},
        {"flower_history_url": "sqlite:////var/lib/flower/main/other.sqlite"},
        {"flower_history_size": "20G", "flower_history_rows": 10**7, "flower_history_days": 0},
        {"flower_metrics_address": "::", "flower_metrics_task_buckets": {"etl.*": [60, 86400.5, "172800"]}},
        {"flower_history_text_lengths": {"result": 0, "traceback": "4096"}},
        {"flower_collector": False, "flower_metrics_port": 443},
    ],
)
def test_a_good_collector_has_no_problem(changes: dict[str, Any]) -> None:
    assert variables(**changes) == []


def test_variables_of_other_roles_can_be_named() -> None:
    assert variables(flower_shop="roses", flower_foreign_variables=["flower_shop"]) == []


def test_a_good_host_has_no_problem() -> None:
    assert host() == []


def test_the_port_of_the_own_collector_is_free() -> None:
    assert host(listeners={"8000": "flower-collector@main.service"}) == []


@pytest.mark.parametrize(
    "problem",
    ["unknown-host", "unreachable", "not-postgresql", "plain", "tls", "refused", "password-needed", "no-database"],
)
def test_every_answer_of_a_database_has_a_sentence(problem: str) -> None:
    answer = {"at": "db:5432", "problem": problem, "detail": "why"}
    problems = host(history=answer)
    assert len(problems) == 1
    assert problems[0].startswith("flower_history_url: ")
    # the same play may bring the database
    assert (host(history=answer, check_mode=True) == []) == (problem in ("unknown-host", "unreachable"))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"os": {"id": "fedora", "version": "43", "name": "Fedora 43"}}, "This host runs Fedora 43"),
        ({"os": {"id": "debian", "version": "11", "name": "Debian 11"}}, "Debian 12 or 13"),
        ({"systemd": 0}, "does not run systemd"),
        ({"python": [3, 9, 2]}, "flower_python: it is Python 3.9.2"),
        ({"listeners": {"443": "apache2"}}, "flower_https_port: port 443 is in use by apache2"),
        ({"listeners": {"80": "?"}}, "flower_http_port: port 80"),
        ({"listeners": {"8000": "nginx"}}, "flower_metrics_port: port 8000 is in use by nginx"),
        ({"listeners": {"8000": "flower-collector@shop.service"}}, "in use by flower-collector@shop.service"),
        ({"conflicts": ["/etc/nginx/sites-enabled/shop"]}, "flower_server_name: /etc/nginx/sites-enabled/shop"),
        ({"free_bytes": 10**6}, "1 MB are free"),
    ],
)
def test_a_bad_host_gives_one_sentence(changes: dict[str, Any], says: str) -> None:
    problems = host(**changes)
    assert len(problems) == 1
    assert says in problems[0]


@pytest.mark.parametrize(
    "problem", ["unknown-host", "unreachable", "tls", "refused", "password-needed", "not-redis", "not-amqp", "no-vhost"]
)
def test_every_answer_of_a_broker_has_a_sentence(problem: str) -> None:
    problems = host(brokers=[{"at": "redis:6379", "problem": problem, "detail": "why"}])
    assert len(problems) == 1
    assert problems[0].startswith("flower_broker_url: ")
    assert "redis:6379" in problems[0]


@pytest.mark.parametrize(
    "problem", ["unreachable", "unknown-host", "tls", "ca-bundle", "status", "rubbish", "issuer", "endpoints"]
)
def test_every_answer_of_an_issuer_has_a_sentence(problem: str) -> None:
    problems = host(issuer={"problem": problem, "detail": "why"})
    assert len(problems) == 1
    assert problems[0].startswith("flower_oidc_issuer: ")
    assert bool(host(check_mode=True, issuer={"problem": problem, "detail": "why"})) == (
        problem not in ("unreachable", "unknown-host")
    )


def test_one_broker_of_a_failover_list_may_be_down() -> None:
    down = {"at": "a:6379", "problem": "unreachable", "detail": "Connection refused"}
    well = {"at": "b:6379", "problem": "", "detail": ""}
    assert host(brokers=[down, well]) == []
    assert len(host(brokers=[down, down])) == 2
    assert len(host(brokers=[{**down, "problem": "refused"}, well])) == 1


def test_check_mode_lets_a_broker_be_missing_but_not_refuse() -> None:
    down = {"at": "a:6379", "problem": "unreachable", "detail": "Connection refused"}
    assert host(check_mode=True, brokers=[down]) == []
    assert len(host(check_mode=True, brokers=[{**down, "problem": "refused"}])) == 1
