"""All checks in one."""

from __future__ import annotations

from flowerbed.doctor.collector import Collector
from flowerbed.doctor.entrance import Entrance
from flowerbed.doctor.security import Security
from flowerbed.doctor.workers import Workers


class Doctor(Entrance, Workers, Collector, Security):
    """Every check that there is."""
