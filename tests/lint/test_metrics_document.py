"""The tables of docs/metrics.md are those of the add-on, and what the documents name is there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from flowerbed.metrics import compat, names

ROOT = Path(__file__).resolve().parents[2]


def test_the_tables_are_current() -> None:
    command = [sys.executable, str(ROOT / "scripts/metrics_table.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_metric_that_changes_is_noticed(tmp_path: Path) -> None:
    script = (ROOT / "scripts/metrics_table.py").read_text()
    changed = (ROOT / "docs/metrics.md").read_text().replace("| `celery_tasks_total` | counter |", "| `x` | gauge |")
    for name, text in (("scripts/metrics_table.py", script), ("docs/metrics.md", changed)):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    (tmp_path / "roles").symlink_to(ROOT / "roles")
    command = [sys.executable, str(tmp_path / "scripts/metrics_table.py")]
    assert subprocess.run([*command, "--check"], capture_output=True, check=False).returncode == 1
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert (tmp_path / "docs/metrics.md").read_text() == (ROOT / "docs/metrics.md").read_text()


@pytest.mark.parametrize("name", ["metrics.md", "history.md"])
def test_a_document_names_what_there_is(name: str) -> None:
    text = (ROOT / "docs" / name).read_text()
    options = yaml.safe_load((ROOT / "roles/flower/meta/argument_specs.yml").read_text())["argument_specs"]["main"]
    variables = set(re.findall(r"(?<![\w-])flower_[a-z_]+", text))
    assert variables - set(options["options"]) == set()
    known = {metric.name for metric in (*names.METRICS, *compat.METRICS)}
    told = {re.sub(r"_(bucket|sum|count)$", "", found) for found in re.findall(r"\b(?:celery|flowerbed)_\w+", text)}
    assert {found for found in told if found not in known and f"{found}_count" not in known} == set()


def test_the_documents_name_every_variable_of_theirs() -> None:
    options = yaml.safe_load((ROOT / "roles/flower/meta/argument_specs.yml").read_text())["argument_specs"]["main"]
    text = "".join((ROOT / "docs" / name).read_text() for name in ("metrics.md", "history.md"))
    ours = [one for one in options["options"] if one.startswith(("flower_metrics_", "flower_history"))]
    assert [one for one in ours if one not in text] == []
