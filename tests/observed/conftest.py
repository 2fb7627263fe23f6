"""Fixtures of the tests that compare what the collector says with the workload's own log; one host at a time."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hosts import Host, host_names
from tests.observed.observed import Observed

# Without a scenario there is no host to look at; molecule/collector/verify.yml asserts that there are two.
_others = "test_*_redis.py" if "rabbitmq" in "".join(host_names()) else "test_*_rabbitmq.py"
collect_ignore_glob = [_others] if host_names() else ["test_*.py"]

# where tests of the collector have what they share
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "collector"))


@pytest.fixture(scope="session")
def observed() -> Observed:
    """The host whose turn it is."""
    (name,) = host_names()
    found = Observed(name)
    found.wait_ready()
    return found


@pytest.fixture(scope="session")
def host(observed: Observed) -> Host:
    """The same, as all hosts under test are looked at."""
    return observed.host


@pytest.fixture(scope="session")
def drive(observed: Observed) -> Callable[..., list[str]]:
    """Has work sent, as tests/workload/app/drive.py says; gives the ids."""
    return observed.drive
