"""The browser's tests look at the same hosts as tests/verify."""

from __future__ import annotations

from tests.verify.conftest import host, secrets

__all__ = ["host", "secrets"]
