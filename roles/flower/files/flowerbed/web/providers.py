"""Flower's own sign-in services, with our sessions and rules."""

from __future__ import annotations

from typing import Any

from flowerbed.settings import Credentials, Settings


def prepare(config: dict[str, Any], settings: Settings, credentials: Credentials) -> None:
    """Gives Flower what its services read."""
    raise NotImplementedError
