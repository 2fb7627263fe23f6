"""check-config: what Flower would ignore or crash on is one sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import flower
import pytest
from addon_support import FILES, INSTALL

from flowerbed import install
from flowerbed.options import config_problem


def check(path: Path) -> tuple[int, str]:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(FILES), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "flowerbed", "check-config", "--settings", "/nowhere.json", str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == ""
    return done.returncode, done.stderr


def test_a_good_file(tmp_path: Path) -> None:
    path = tmp_path / "tmp1234"
    path.write_text(
        "# -*- coding: utf-8 -*-\n"
        "import re as _re\n"
        "from datetime import timedelta as _timedelta\n"
        "max_tasks = 5\ninspect_timeout = 2000.0\npersistent = True\ndb = '/var/lib/flower/ü\"{{'\nurl_prefix = None\n"
        "task_runtime_metric_buckets = [1.0, float('inf')]\nlogging = 'info'\nport = '5555'\n"
        "def format_task(task):\n    return task\n" + INSTALL
    )
    assert check(path) == (0, "")


def test_no_file_at_all(tmp_path: Path) -> None:
    assert check(tmp_path / "none") == (1, "flowerconfig.py: cannot be read: No such file or directory.\n")


CASES = [
    ("max_taskz = 5", f"max_taskz is not an option of Flower {flower.__version__}: did you mean max_tasks?"),
    ("zzzzqq = 5", f"zzzzqq is not an option of Flower {flower.__version__}."),
    ("import json", "begin with an underscore."),
    ("import logging", "logging must be text, not module."),
    ("inspect_timeout = 2000", "inspect_timeout must be a number with a decimal point, not int (write 2000.0)."),
    ("persistent = 1", "persistent must be True or False, not int."),
    ("port = True", "port must be a whole number, not bool."),
    ("port = 'http'", "port must be a whole number, and its text cannot be read as one."),
    ("task_runtime_metric_buckets = [1]", "task_runtime_metric_buckets must be a list of float, and one item is int."),
    ("basic_auth = 5", "basic_auth must be a list of str, not int."),
    ("format_task = 'x.y'", "format_task must be a function, and its text cannot be read as one."),
    ("max_tasks = (", "line 1: '(' was never closed."),
    ("x\nmax_tasks = 1", "line 1: NameError: name 'x' is not defined."),
]


@pytest.mark.parametrize(("line", "end"), CASES)
def test_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, end: str) -> None:
    # put back afterwards: the check replaces it
    monkeypatch.setattr(install, "install", install.install)
    path = tmp_path / "tmp1234"
    path.write_text(f"{line}\n{INSTALL}")
    said = config_problem(str(path)) or ""
    assert said.startswith("flowerconfig.py: ") and said.endswith(end) and "\n" not in said


def test_the_command_says_it_and_gives_1(tmp_path: Path) -> None:
    path = tmp_path / "flowerconfig.py"
    path.write_text(f"max_taskz = 5\n{INSTALL}")
    sentence = f"flowerconfig.py: max_taskz is not an option of Flower {flower.__version__}: did you mean max_tasks?\n"
    assert check(path) == (1, sentence)


def test_without_the_add_on(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text("max_tasks = 5\n")
    code, said = check(path)
    assert code == 1 and "never called" in said
