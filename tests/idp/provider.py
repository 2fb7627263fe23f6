"""Runs the certified OpenID Connect provider of this folder (provider.mjs), and tells it how to behave."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import Any

HERE = Path(__file__).resolve().parent


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


class IdentityProvider:
    """The provider as a process; a context manager that returns when it listens and ends it."""

    def __init__(
        self,
        *,
        issuer: str,
        certificate: Path,
        key: Path,
        clients: list[dict[str, Any]],
        accounts: dict[str, dict[str, Any]],
        address: str = "127.0.0.1",
    ) -> None:
        self.issuer, self.accounts, self.certificate = issuer, accounts, certificate
        self._config: dict[str, Any] = {
            "issuer": issuer,
            "address": address,
            "control_port": free_port(),
            "certificate": str(certificate),
            "key": str(key),
            "clients": clients,
            "accounts": accounts,
        }
        self._log = TemporaryFile("w+b")  # noqa: SIM115 - closed in stop()
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> IdentityProvider:
        self.start()
        self.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Starts it, and does not wait; its configuration, which holds secrets, goes through standard input."""
        self.process = subprocess.Popen(
            ["node", "provider.mjs"], cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log
        )
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(self._config).encode())
        self.process.stdin.close()

    def wait(self) -> None:
        """Returns when it listens; fails with what it wrote when it ended."""
        assert self.process is not None
        assert self.process.stdout is not None
        if not self.process.stdout.readline():
            self._log.seek(0)
            raise AssertionError(f"the provider did not start: {self._log.read().decode(errors='replace')[-2000:]}")

    def stop(self) -> None:
        """Ends it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
        self._log.close()

    def tell(self, **changes: Any) -> dict[str, Any]:
        """Changes how it behaves (mode=…, accounts=…), and answers what it was asked and what it gave out so far."""
        # a connection of its own each time: Node closes one that was idle for five seconds
        control = http.client.HTTPConnection("127.0.0.1", self._config["control_port"], timeout=10)
        try:
            control.request("POST", "/", json.dumps(changes))
            answer = control.getresponse()
            body: dict[str, Any] = json.loads(answer.read())
        finally:
            control.close()
        assert answer.status == 200, body
        return body

    @contextmanager
    def mode(self, name: str) -> Iterator[None]:
        """Lets it lie, or be down, in the block, and be honest after it."""
        self.tell(mode=name)
        try:
            yield
        finally:
            self.tell(mode="honest")

    def asked(self, what: str) -> int:
        """How often it was asked for discovery, jwks, token or userinfo."""
        return int(self.tell()["requests"].get(what, 0))

    def issued(self) -> list[str]:
        """Every code and token that it has given out."""
        return [str(secret) for secret in self.tell()["issued"]]
