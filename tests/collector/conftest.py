"""Lets the tests of the collector find what they share, for every import mode of pytest's."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
for path in (Path(__file__).parent, ROOT / "tests" / "addon", ROOT / "roles" / "flower" / "files"):
    if str(path) not in sys.path:
        sys.path.insert(0, str(path))

from addon_support import Redis  # noqa: E402


@pytest.fixture
def redis() -> Iterator[Redis]:
    """A Redis of the test's own."""
    server = Redis()
    yield server
    server.kill()
