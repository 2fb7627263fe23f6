"""Fixtures for the tests of the add-on; what they are made of is in addon_support.py."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# for every import mode of pytest's
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).resolve().parents[2] / "roles" / "flower" / "files")]

from addon_support import FILES, INSTALL, Flower, Redis, free_port  # noqa: E402


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Redis]:
    """A private Redis for the whole run."""
    redis = Redis()
    yield redis
    redis.kill()


@pytest.fixture(scope="module")
def flower_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Flower]]:
    """A function that starts a Flower: settings and credentials as dictionaries, or only an environment."""
    started: list[Flower] = []

    def start(
        settings: dict[str, Any] | None = None,
        credentials: dict[str, Any] | None = None,
        *,
        config: str = "",
        environment: dict[str, str] | None = None,
        unix_socket: bool = False,
        wait: bool = True,
        port: int | None = None,
    ) -> Flower:
        directory = tmp_path_factory.mktemp("flower")
        port = port or free_port()
        path = str(directory / "flower.sock") if unix_socket else None
        # bytecode would go into the repository
        base = {"PATH": os.environ["PATH"], "PYTHONPATH": str(FILES), "PYTHONDONTWRITEBYTECODE": "1"}
        arguments = ["run"]
        if settings is None:
            base["FLOWER_PORT"] = str(port)
        else:
            (directory / "flowerconfig.py").write_text(config + INSTALL)
            (directory / "flower.json").write_text(json.dumps(credentials or {}))
            paths = {
                "flowerconfig": str(directory / "flowerconfig.py"),
                "credentials": str(directory / "flower.json"),
                "unix_socket": path,
                "port": port,
            }
            (directory / "flowerbed.json").write_text(json.dumps({**paths, **settings}))
            arguments += ["--settings", str(directory / "flowerbed.json")]
        prefix = (settings or {}).get("url_prefix", "").strip("/")
        flower = Flower(
            directory, port, path, "/" + prefix if prefix else "", {**base, **(environment or {})}, arguments
        )
        started.append(flower)
        flower.start(wait)
        return flower

    yield start
    for flower in started:
        flower.stop()
