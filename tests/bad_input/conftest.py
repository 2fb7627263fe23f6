"""Fixtures of the tests that try each mistake on one host."""

from __future__ import annotations

import os
import secrets as random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.fingerprint import fingerprint
from tests.hosts import Host, host_names, scenario_secrets
from tests.plays import Play, run_play
from tests.verify.sweep import sweep_text

# Without a scenario there is no host to look at; molecule/shared/verify.yml asserts that there is one.
collect_ignore_glob = [] if host_names() else ["test_*.py"]


class Attempt(Protocol):
    """Runs site.yml with these variables over a good inventory; the play must fail and show no secret."""

    def __call__(self, variables: dict[str, Any], *, hidden: dict[str, str] | None = None) -> Play: ...


class Untouched(Protocol):
    """What the host is before and after the block must be the same."""

    def __call__(self) -> AbstractContextManager[None]: ...


@pytest.fixture(scope="session")
def host() -> Host:
    """The one host of the scenario."""
    (name,) = host_names()
    found = Host(name)
    # Ansible's first visit makes its own folder.
    found.run("mkdir", "-p", "-m", "0700", "/root/.ansible/tmp")
    return found


@pytest.fixture
def secret() -> str:
    """A secret of its own for each test, of letters and digits, so that it is the same however it is quoted."""
    return random.token_hex(12)


@pytest.fixture
def attempt(tmp_path: Path) -> Attempt:
    """See Attempt."""

    def run(variables: dict[str, Any], *, hidden: dict[str, str] | None = None) -> Play:
        play = run_play("site.yml", variables, "-vvv", "--diff")
        log = tmp_path / "play.log"
        log.touch(0o600)
        log.write_text(play.output, encoding="utf-8")
        assert sweep_text(log, {**scenario_secrets(), **(hidden or {})}) == [], "the output shows a secret"
        assert play.code != 0, "the play must fail"
        assert "EXEC" in play.output or "FAILED" in play.output, "the play must have met the host"
        return play

    return run


@pytest.fixture
def untouched(host: Host) -> Untouched:
    """See Untouched."""

    @contextmanager
    def same() -> Iterator[None]:
        before = fingerprint(host)
        assert len(before.files) > 5000, "the look must have seen the host"
        yield
        assert before.changes(fingerprint(host)) == []

    return same


@pytest.fixture(autouse=True)
def no_stray_settings() -> None:
    """The inventory is the scenario's; a test that runs outside of it would prove nothing."""
    assert os.environ.get("MOLECULE_INVENTORY_FILE")
