"""What docs/metrics.md tells people to type is typed here."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from world import World

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs/metrics.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", DOCUMENT, re.DOTALL)
QUERIES = [text for kind, text in BLOCKS if kind == "promql"]
ALERTS, *SCRAPES = sorted((text for kind, text in BLOCKS if kind == "yaml"), key=lambda text: "groups:" not in text)
RULES: list[dict[str, Any]] = yaml.safe_load(ALERTS)["groups"][0]["rules"]
#: what must be found by the alerts in the tests' world
FOUND = {
    "CeleryQueueWithoutConsumer": {"queue": "nobody"},
    "CeleryWorkerLost": {},
}


@pytest.mark.parametrize("query", QUERIES)
def test_a_question_has_an_answer(world: World, query: str) -> None:
    course = world.prometheus.course(query)
    assert any(math.isfinite(number) for _, numbers in course for number in numbers), "no data"


def test_there_are_ten_questions() -> None:
    assert len(re.findall(r"\?\n\n```promql", DOCUMENT)) >= 10


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_an_alert_can_be_asked_and_tells_what_is_wrong_only(world: World, rule: dict[str, Any]) -> None:
    # once: other tests end and start a collector
    found = [labels for labels, numbers in world.prometheus.course(rule["expr"].replace("[10m]", "[1h]"))]
    if (labels := FOUND.get(rule["alert"])) is not None:
        assert any(labels.items() <= one.items() for one in found)
    if rule["alert"] in ("CeleryTasksFail", "CeleryQueueWaits", "CeleryEventsDisabled"):
        assert found == []


def test_promtool_takes_the_files(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    assert promtool, "promtool is missing: install Debian's package prometheus."
    for number, (text, what) in enumerate([(ALERTS, "rules"), *((one, "config") for one in SCRAPES)]):
        file = tmp_path / f"{number}.yml"
        file.write_text(text)
        done = subprocess.run([promtool, "check", what, str(file)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr + done.stdout
    assert len(SCRAPES) == 2
