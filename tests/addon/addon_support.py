"""What the tests of the add-on share: a private Redis, a real Flower, and asking it questions."""

from __future__ import annotations

import base64
import contextlib
import datetime
import http.client
import ipaddress
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

FILES = Path(__file__).resolve().parents[2] / "roles" / "flower" / "files"
INSTALL = "from flowerbed.install import install as _install\n_install(globals())\n"
#: the doctor without any installed package: from outside it needs the standard library only
OUTSIDE_DOCTOR = [
    sys.executable,
    "-I",
    "-S",
    "-c",
    "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); runpy.run_module('flowerbed.doctor', run_name='__main__')",
    str(FILES),
]
#: a browser opening a page
BROWSER = {"Accept": "text/html,application/xhtml+xml", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "same-origin"}


def free_port() -> int:
    """A TCP port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 20) -> Any:
    """The first true value of `condition`; fails with `what` when it never comes."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.05)
    pytest.fail(f"waited {seconds} s in vain for {what}")


def certificate(directory: Path, days: float, name: str = "localhost") -> str:
    """A self-signed certificate with its key, both in one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    names = x509.SubjectAlternativeName([x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=10))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = directory / f"{name}{days}.pem"
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return str(path)


class Redis:
    """A redis-server on loopback with a random password and nothing on disk."""

    def __init__(self, listen: str = "port %d\n") -> None:
        self.listen = listen
        self.port = free_port()
        self.password = secrets.token_urlsafe(24)
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        quiet = f"bind 127.0.0.1\nsave ''\nappendonly no\nrequirepass {self.password}\n"
        settings = self.listen % self.port + quiet
        self.process = subprocess.Popen(["redis-server", "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        assert self.process.stdin is not None
        self.process.stdin.write(settings.encode())
        self.process.stdin.close()
        wait_for(self.answers, "redis-server")

    def answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@dataclass
class Response:
    status: int
    headers: http.client.HTTPMessage
    text: str

    def cookie(self, name: str) -> str | None:
        """The whole Set-Cookie line of a cookie."""
        return next((line for line in self.headers.get_all("Set-Cookie") or [] if line.startswith(name + "=")), None)

    def cookie_value(self, name: str) -> str:
        line = self.cookie(name)
        assert line, f"no cookie {name}"
        return line.split(";")[0].partition("=")[2].strip('"')


@dataclass
class Flower:
    """A running Flower and where its files are."""

    directory: Path
    port: int
    unix_socket: str | None
    prefix: str
    environment: dict[str, str]
    arguments: list[str]
    process: subprocess.Popen[bytes] = field(init=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.prefix}"

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text(encoding="utf-8", errors="replace")

    def start(self, wait: bool = True) -> None:
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "flowerbed", *self.arguments],
                env=self.environment,
                cwd=self.directory,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        if wait:
            wait_for(self.answers, "Flower")

    def answers(self) -> bool:
        if self.process.poll() is not None:
            pytest.fail(f"Flower ended with {self.process.returncode}:\n{self.log}")
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.request("GET", "/healthcheck").status == 200
        return False

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def request(
        self,
        method: str,
        path: str,
        headers: dict[str, str] | None = None,
        *,
        basic: tuple[str, str] | None = None,
        cookies: dict[str, str] | None = None,
        form: dict[str, str] | None = None,
    ) -> Response:
        """One request to a path below the prefix; redirects are not followed."""
        sent = dict(headers or {})
        if basic:
            sent["Authorization"] = "Basic " + base64.b64encode(":".join(basic).encode()).decode()
        if cookies:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items())
        body = urlencode(form) if form is not None else None
        if body is not None:
            sent["Content-Type"] = "application/x-www-form-urlencoded"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        if self.unix_socket:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(20)
            connection.sock.connect(self.unix_socket)
        try:
            connection.request(method, self.prefix + path, body, sent)
            answer = connection.getresponse()
            return Response(answer.status, answer.headers, answer.read().decode("utf-8", "replace"))
        finally:
            connection.close()

    def sign_in(self, name: str, password: str, headers: dict[str, str] | None = None, next_page: str = "") -> Response:
        """Fills in the login form as a browser does."""
        page = self.request("GET", "/login", BROWSER)
        token = re.search(r'name="_xsrf" value="([^"]+)"', page.text)
        assert page.status == 200 and token, page.text
        return self.request(
            "POST",
            "/login",
            {**BROWSER, **(headers or {})},
            cookies={"_xsrf": page.cookie_value("_xsrf")},
            form={"_xsrf": token[1], "username": name, "password": password, "next": next_page},
        )
