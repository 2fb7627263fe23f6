"""How tests look at a host: from inside through `docker exec`, from outside through its address over HTTPS.

What a scenario tells its tests comes through the environment (see molecule/shared/verify.yml):
FLOWERBED_HOSTS (names, separated by commas), FLOWERBED_SERVER_NAME, FLOWERBED_SECRETS (a file),
FLOWERBED_PLAY_LOG (the output of the play with -vvv --diff).
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import Message
from functools import cached_property
from pathlib import Path
from typing import Any

INSTANCE = os.environ.get("FLOWERBED_INSTANCE", "main")
UNIT = f"flower@{INSTANCE}.service"
COLLECTOR = f"flower-collector@{INSTANCE}.service"
USER_NAME = "ada"


def host_names() -> list[str]:
    """The hosts of the scenario; empty when no scenario runs these tests."""
    return [name for name in os.environ.get("FLOWERBED_HOSTS", "").split(",") if name]


def server_name() -> str:
    """The name under which the scenario's Flowers are reached."""
    return os.environ.get("FLOWERBED_SERVER_NAME", "flower.test")


def scenario_secrets() -> dict[str, str]:
    """The random secrets of this run, by name."""
    secrets: dict[str, str] = json.loads(Path(os.environ["FLOWERBED_SECRETS"]).read_text(encoding="utf-8"))
    return secrets


def basic(name: str, password: str) -> dict[str, str]:
    """The header of HTTP Basic."""
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


def wait_for(what: str, look: Callable[[], Any], seconds: float = 60, every: float = 1.0) -> Any:
    """Look until there is something, and return it. Fails with the sentence `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    problem = ""
    while time.monotonic() < deadline:
        try:
            if found := look():
                return found
        except (OSError, http.client.HTTPException, subprocess.CalledProcessError) as error:
            problem = f" ({error})"
        time.sleep(every)
    raise AssertionError(f"not within {seconds:.0f} s: {what}{problem}")


class _Connection(http.client.HTTPSConnection):
    """HTTPS to an address, with another name in SNI, Host and the certificate's check."""

    def __init__(self, address: str, name: str, port: int, context: ssl.SSLContext) -> None:
        super().__init__(name, port, timeout=30, context=context)
        self._address = address
        self._tls = context

    def connect(self) -> None:
        """Connect to the address instead of resolving the name."""
        plain = socket.create_connection((self._address, self.port), timeout=30)
        self.sock = self._tls.wrap_socket(plain, server_hostname=self.host)


@dataclass(frozen=True)
class Answer:
    """What a server answered."""

    status: int
    headers: Message
    text: str

    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.text)


@dataclass(frozen=True)
class Host:
    """A host under test, which is a container."""

    name: str
    server_name: str = field(default_factory=server_name)

    def run(self, *command: str, stdin: str | None = None, user: str = "root", check: bool = True) -> str:
        """Run a command on the host and return what it printed. Raises CalledProcessError when it fails."""
        done = subprocess.run(
            ["docker", "exec", "-i", "-u", user, self.name, *command],
            input=stdin, capture_output=True, text=True, timeout=180, check=False,
        )  # fmt: skip
        if check and done.returncode:
            raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
        return done.stdout

    def shell(self, script: str, check: bool = True) -> str:
        """Run a shell script on the host."""
        return self.run("sh", "-c", script, check=check)

    def python(self, script: str, data: Any = None, user: str = "root") -> Any:
        """Run a Python script on the host with `data` as JSON in its standard input; it prints JSON."""
        return json.loads(self.run("python3", "-c", script, stdin=json.dumps(data), user=user))

    def show(self, *properties: str, unit: str = UNIT) -> dict[str, str]:
        """Properties of a unit, as `systemctl show` prints them."""
        lines = self.run("systemctl", "show", unit, "-p", ",".join(properties)).splitlines()
        return dict(line.split("=", 1) for line in lines)

    def main_pid(self, unit: str = UNIT) -> int:
        """Process id of a unit's main process; 0 when it does not run."""
        return int(self.show("MainPID", unit=unit)["MainPID"])

    @cached_property
    def address(self) -> str:
        """Where the host is reached from outside."""
        template = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
        found = subprocess.run(
            ["docker", "inspect", "-f", template, self.name], capture_output=True, text=True, check=True
        )
        return found.stdout.split()[0]

    def tls(self) -> ssl.SSLContext:
        """What trusts the host's own certificate and nothing else."""
        return ssl.create_default_context(cadata=self.run("cat", f"/etc/flower/{INSTANCE}/tls/certificate.pem"))

    def get(self, path: str, headers: dict[str, str] | None = None) -> Answer:
        """Ask the front door over HTTPS, from outside."""
        connection = _Connection(self.address, self.server_name, 443, self.tls())
        try:
            connection.request("GET", path, headers=headers or {})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read().decode("utf-8", "replace"))
        finally:
            connection.close()

    def post(self, path: str, headers: dict[str, str] | None = None, body: str = "") -> Answer:
        """Send something to the front door over HTTPS, from outside."""
        connection = _Connection(self.address, self.server_name, 443, self.tls())
        try:
            connection.request("POST", path, body, headers or {})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read().decode("utf-8", "replace"))
        finally:
            connection.close()

    def get_plain(self, path: str) -> Answer:
        """Ask port 80, from outside."""
        connection = http.client.HTTPConnection(self.address, 80, timeout=30)
        try:
            connection.request("GET", path, headers={"Host": self.server_name})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read().decode("utf-8", "replace"))
        finally:
            connection.close()

    def api(self, path: str) -> Any:
        """Ask Flower's API as the scenario's user."""
        answer = self.get(path, basic(USER_NAME, scenario_secrets()["user_password"]))
        assert answer.status == 200, f"{path} answered {answer.status}: {answer.text[:200]}"
        return answer.json()
