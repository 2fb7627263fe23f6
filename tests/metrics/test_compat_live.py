"""The dashboards and alerts of celery-exporter work unchanged on real work, in a real Prometheus."""

from __future__ import annotations

import math
import re
from typing import Any

import mixin
import pytest
from addon_support import wait_for
from live_support import Collecting
from world import World

from flowerbed.metrics import compat

BY = re.compile(r"by ?\(([^)]*)\)")
ALERTS = {
    "CeleryTaskHighFailRate": {"name": "shop.fail", "queue_name": "celery", "namespace": "shop", "job": "celery"},
    "CeleryHighQueueLength": {"queue_name": "nobody", "namespace": "shop", "job": "celery"},
    "CeleryWorkerDown": {"hostname": "gone", "namespace": "shop", "job": "celery"},
}


def rules(world: World, group: str) -> list[dict[str, Any]]:
    groups = {one["name"]: one["rules"] for one in world.prometheus.ask("rules")["groups"]}
    return list(groups[group])


@pytest.mark.parametrize("expression", list(mixin.expressions()))
def test_a_query_of_the_dashboards_returns_numbers_with_its_labels(world: World, expression: str) -> None:
    wanted = {label for labels in BY.findall(expression) for label in labels.split(",")} - {"le"}
    if expression.startswith("count("):
        wanted = set()
    found = world.prometheus.course(mixin.filled(expression))
    numbers = [labels for labels, values in found if any(map(math.isfinite, values))]
    assert numbers, "no data"
    # where nothing failed the exporter has a failure without an exception, at 0
    assert {label for labels in numbers for label in labels} == wanted
    assert all(wanted - {"exception"} <= set(labels) for labels in numbers)


@pytest.mark.parametrize("selector", mixin.VARIABLES)
def test_a_list_to_choose_from_has_entries(world: World, selector: str) -> None:
    assert world.prometheus.query(mixin.filled(selector))


def test_every_rule_is_evaluated_without_a_complaint(world: World) -> None:
    found = rules(world, "celery") + rules(world, "dashboards")
    assert len(found) == len(ALERTS) + len(list(mixin.expressions()))
    assert {(one["name"], one["health"], one.get("lastError")) for one in found} == {
        (one["name"], "ok", None) for one in found
    }
    silent = [one["query"] for one in rules(world, "dashboards") if not world.prometheus.course(one["name"])]
    assert silent == []


@pytest.mark.parametrize(("alert", "labels"), list(ALERTS.items()))
def test_an_alert_fires_with_the_labels_of_its_text(world: World, alert: str, labels: dict[str, str]) -> None:
    def fires() -> list[dict[str, Any]]:
        (rule,) = [one for one in rules(world, "celery") if one["name"] == alert]
        return [one for one in rule["alerts"] if one["state"] == "firing" and labels.items() <= one["labels"].items()]

    assert wait_for(fires, f"{alert} of {labels}", 20)


def test_alerts_of_what_is_well_are_silent(world: World) -> None:
    firing = {
        (one["labels"]["alertname"], one["labels"].get("name", one["labels"].get("hostname", "")))
        for one in world.prometheus.ask("alerts")["alerts"]
    }
    assert {name for alert, name in firing if alert == "CeleryWorkerDown"} == {"gone"}
    assert "shop.add" not in {name for alert, name in firing if alert == "CeleryTaskHighFailRate"}


def test_our_own_names_are_served_beside_theirs(world: World) -> None:
    def families(one: Collecting) -> set[tuple[str, frozenset[str]]]:
        return {(name, frozenset(dict(labels))) for name, labels in one.numbers() if name.startswith("celery_")}

    plain, both = families(world.ours), families(world.compat)
    assert plain - both == {("celery_queue_length", frozenset({"queue"}))}, "its label is queue_name now"
    added = {re.sub(r"_bucket|_sum$", "", name) for name, _ in both - plain}
    theirs = {one.name for one in compat.METRICS}
    assert {name if name in theirs else name.removesuffix("_count") for name in added} == theirs - {
        compat.CONSUMERS.name  # RabbitMQ's
    }
