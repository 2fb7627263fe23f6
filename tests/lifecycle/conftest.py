"""Fixtures of the tests that live through a host's years, in the order of their files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.authority import Authority
from tests.hosts import Host, host_names

# Without a scenario there is no host to look at; molecule/shared/verify.yml asserts that there is one.
collect_ignore_glob = [] if host_names() else ["test_*.py"]


@pytest.fixture(scope="session")
def host() -> Host:
    """The one host of the scenario."""
    (name,) = host_names()
    return Host(name)


@pytest.fixture(scope="session")
def authority() -> Authority:
    """A CA that exists for this run only."""
    return Authority.new()


@pytest.fixture
def scratch(host: Host, tmp_path: Path) -> Iterator[str]:
    """A folder on the host for what a test brings along."""
    folder = f"/root/{tmp_path.name}"
    host.run("mkdir", folder)
    yield folder
    host.run("rm", "-rf", folder)
