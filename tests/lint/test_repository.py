"""What no linter looks at."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PIN = re.compile(r"^[\w.-]+(\[[\w,]+\])?==[\w.]+$")
LOCKS = sorted((ROOT / "roles/flower/files/locks").glob("*.txt"))


def test_tools_are_pinned() -> None:
    lines = (ROOT / "requirements-dev.txt").read_text().splitlines()
    assert [line for line in lines if line and not line.startswith("#") and not PIN.match(line)] == []


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_locks_have_hashes_and_name_no_index(lock: Path) -> None:
    text = lock.read_text()
    for requirement in re.split(r"\n(?=\S)", text.partition("\n")[2].strip()):
        assert re.match(r"[\w.-]+==\S+", requirement), requirement
        assert "--hash=sha256:" in requirement, requirement
    assert "://" not in text
    assert f"flower=={lock.stem.removeprefix('flower-')} " in text


def test_versions_agree() -> None:
    version = yaml.safe_load((ROOT / "galaxy.yml").read_text())["version"]
    assert version in yaml.safe_load((ROOT / "changelogs/changelog.yaml").read_text())["releases"]


@pytest.mark.parametrize("name", [".env", ".env.production", ".demo/secrets.json", ".venv/bin/python", ".test-logs/x"])
def test_git_ignores(name: str) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    assert subprocess.run(["git", "check-ignore", "-q", name], cwd=ROOT, check=False).returncode == 0


def test_git_keeps_the_example() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    assert subprocess.run(["git", "check-ignore", "-q", ".env.example"], cwd=ROOT, check=False).returncode == 1
