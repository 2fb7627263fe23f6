"""Fixtures of the tests that change the front door by plays. The host has a broker; Flower may be there or not."""

from __future__ import annotations

import pytest

from tests.hosts import Host, host_names

# Without a scenario there is no host to look at; molecule/shared/verify.yml asserts that there is one.
collect_ignore_glob = [] if host_names() else ["test_*.py"]


@pytest.fixture(scope="session")
def host() -> Host:
    """The one host of the scenario."""
    (name,) = host_names()
    return Host(name)
