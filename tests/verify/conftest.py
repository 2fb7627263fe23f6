"""Fixtures of the checks that a scenario's verify runs against its hosts."""

from __future__ import annotations

import pytest

from tests.hosts import Host, host_names, scenario_secrets


def known_host(name: str) -> Host:
    """The host of that name. No host at all is a failure: skipped tests look like good ones."""
    if not name:
        pytest.fail("FLOWERBED_HOSTS names no host; molecule/shared/verify.yml sets it")
    return Host(name)


@pytest.fixture(params=host_names() or [""], scope="session")
def host(request: pytest.FixtureRequest) -> Host:
    """Each host of the scenario in turn."""
    return known_host(request.param)


@pytest.fixture(scope="session")
def secrets() -> dict[str, str]:
    """The random secrets of this run."""
    return scenario_secrets()
