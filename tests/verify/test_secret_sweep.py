"""No secret is where somebody else could see it; and the search is shown to find one in each place."""

from __future__ import annotations

import base64
import json
import os
import secrets as random
import urllib.parse
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hosts import Host
from tests.verify.sweep import secrets_of_host, sweep_files, sweep_processes_and_journal, sweep_text


@pytest.fixture(scope="module")
def known(host: Host, secrets: dict[str, str]) -> dict[str, str]:
    """Every secret there is: the inventory's and the host's."""
    found = {**secrets, **secrets_of_host(host)}
    assert len(found) >= 6
    return found


def places(result: dict[str, object]) -> list[object]:
    """Where something was found."""
    found = result["found"]
    assert isinstance(found, list)
    return found


def test_processes_and_journal(host: Host, known: dict[str, str]) -> None:
    result = sweep_processes_and_journal(host, known)
    assert places(result) == []


def test_files_readable_to_nobody(host: Host, known: dict[str, str]) -> None:
    result = sweep_files(host, known)
    assert places(result) == []
    assert isinstance(result["looked"], int)
    assert result["looked"] > 5000, "nobody can read more than this on any Debian"


def test_output_of_the_play(known: dict[str, str]) -> None:
    log = Path(os.environ["FLOWERBED_PLAY_LOG"])
    text = log.read_text(encoding="utf-8", errors="replace")
    assert "EXEC" in text or "ESTABLISH" in text, "the play must have run with -vvv"
    assert "--- before" in text, "and with --diff"
    assert "TASK [flowerbed.celery.flower : " in text, "and it must be the play that applies the role"
    assert sweep_text(log, known) == []


# The search itself: a secret is planted in each place and must be found there.


@pytest.fixture
def planted() -> dict[str, str]:
    """A secret of its own for each test, quoted like the hard ones."""
    return {"planted": random.token_urlsafe(9) + "@:/ %" + random.token_urlsafe(9)}


def test_finds_a_command_line_and_an_environment(host: Host, planted: dict[str, str]) -> None:
    quoted = planted["planted"].replace("%", "%25")
    script = f"""
import json, subprocess
quiet = {{"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}}
environment = subprocess.Popen(["/usr/bin/sleep", "100"], env={{"URL": "{quoted}"}}, **quiet)
command = subprocess.Popen(["/usr/bin/python3", "-c", "import time; time.sleep(100)", "{quoted}"], **quiet)
print(json.dumps([environment.pid, command.pid]))
"""
    in_environment, in_command = host.python(script)
    try:
        found = places(sweep_processes_and_journal(host, planted))
    finally:
        host.run("kill", str(in_environment), str(in_command), check=False)
    assert [f"/proc/{in_environment}/environ", "planted"] in found
    assert [f"/proc/{in_command}/cmdline", "planted"] in found


def test_finds_the_journal(host: Host, planted: dict[str, str]) -> None:
    host.run("logger", "-t", "sweep", stdin=f"broker {planted['planted']}")
    host.run("journalctl", "--sync")
    assert ["journal", "planted"] in places(sweep_processes_and_journal(host, planted))


@pytest.mark.parametrize(("mode", "seen"), [("0644", True), ("0640", False)])
def test_finds_a_readable_file_and_only_that(host: Host, planted: dict[str, str], mode: str, seen: bool) -> None:
    path = f"/etc/sweep-{random.token_hex(4)}"
    host.run("install", "-m", mode, "/dev/stdin", path, stdin=f"url={planted['planted']}\n")
    try:
        assert ([path, "planted"] in places(sweep_files(host, planted))) == seen
    finally:
        host.run("rm", path)


@pytest.mark.parametrize("quote", ["json.dumps", "urllib.parse.quote", "repr", "base64"])
def test_finds_the_plays_output_however_quoted(planted: dict[str, str], tmp_path: Path, quote: str) -> None:
    writers: dict[str, Callable[[str], str]] = {
        "json.dumps": lambda text: json.dumps(json.dumps({"stdout": text})),
        "urllib.parse.quote": lambda text: urllib.parse.quote(text, safe=""),
        "repr": repr,
        "base64": lambda text: base64.b64encode(f"redis://:{text}@h/0".encode()).decode(),
    }
    log = tmp_path / "play.log"
    log.write_text(f"ok: [host]\nchanged: {writers[quote](planted['planted'])}\n", encoding="utf-8")
    assert sweep_text(log, planted) == [(2, "planted")]
