"""Lets the tests of the metrics find what they share, for every import mode of pytest's."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

ROOT = Path(__file__).resolve().parents[2]
for path in (Path(__file__).parent, ROOT / "tests" / "addon", ROOT / "roles" / "flower" / "files"):
    if str(path) not in sys.path:
        sys.path.insert(0, str(path))

if TYPE_CHECKING:
    from world import World


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Workers, two collectors and a Prometheus, after a good deal of work."""
    import world as module

    with module.world(tmp_path_factory.mktemp("world")) as made:
        yield made
