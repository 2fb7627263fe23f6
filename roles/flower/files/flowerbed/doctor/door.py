"""A way to Flower: HTTP with the standard library only."""

from __future__ import annotations

import base64
import contextlib
import http.client
import ipaddress
import json
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from flowerbed.addresses import bracketed
from flowerbed.doctor.masking import Masker

#: bytes of an answer that are read at most: /metrics of a large site has 76 MB, and `flower_` is in its first lines
BODY_LIMIT = 32 * 1024 * 1024
METRICS_LIMIT = 1024 * 1024


class UsageError(ValueError):
    """The doctor cannot begin; the text is one sentence without any secret."""


class UnreachableError(Exception):
    """No HTTP answer came: `reason` says what was seen, `hint` what to do, `kind` is for the code."""

    def __init__(self, kind: str, reason: str, hint: str) -> None:
        super().__init__(reason)
        self.kind, self.reason, self.hint = kind, reason, hint


@dataclass
class Answer:
    """One HTTP answer."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes
    seconds: float

    @property
    def text(self) -> str:
        """The body as text, for a look only."""
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body as JSON, or None when it is something else."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    @property
    def asks_login(self) -> bool:
        """Whether the answer is a login instead of what was asked for."""
        return self.status == 401 or (self.status in (302, 303, 307) and "login" in self.headers.get("Location", ""))


@dataclass
class Door:
    """A way to speak HTTP to Flower: a URL, or a unix socket, with what it takes to be let in."""

    scheme: str
    host: str
    port: int
    prefix: str = ""
    connect: tuple[str, int] | None = None
    unix_socket: str | None = None
    cafile: str | None = None
    timeout: float = 10.0
    login: dict[str, str] = field(default_factory=dict, repr=False)
    user: str = ""
    #: why the certificate is not trusted; from then on nothing secret is sent
    distrust: tuple[str, str] | None = None
    certificate: dict[str, Any] = field(default_factory=dict)
    peer: str = ""
    cookies: list[str] = field(default_factory=list, repr=False)

    @property
    def netloc(self) -> str:
        """Host and port as the Host header has them."""
        host = bracketed(self.host)
        return host if self.port == {"http": 80, "https": 443}[self.scheme] else f"{host}:{self.port}"

    @property
    def name(self) -> str:
        """What the user calls it, without any secret."""
        if self.unix_socket:
            return f"{self.unix_socket} {self.prefix}".rstrip()
        return f"{self.scheme}://{self.netloc}{self.prefix}/"

    @property
    def target(self) -> str:
        """Where the connection goes, for a sentence."""
        host, port = self.connect or (self.host, self.port)
        return self.unix_socket or f"{host} port {port}"

    def get(self, path: str, *, login: bool = True, headers: dict[str, str] | None = None, limit: int = BODY_LIMIT,
            timeout: float | None = None) -> Answer:  # fmt: skip
        """GETs `path` below the prefix, following no redirect; UnreachableError when no HTTP answer comes in time."""
        started = time.monotonic()
        deadline = started + (timeout or self.timeout)
        sent = {"Host": self.netloc, "User-Agent": "flowerbed-doctor", "Accept-Encoding": "identity"}
        sent |= headers or {}
        connection = http.client.HTTPConnection(self.host, self.port)
        try:
            connection.sock = self._open(deadline)
            if login and self.distrust is None:
                sent |= self.login
            connection.request("GET", self.prefix + path, headers=sent)
            response = connection.getresponse()
            body = b"".join(self._read(response, connection.sock, deadline, limit))
        except UnreachableError:
            raise
        except TimeoutError:
            raise self._late() from None
        except (OSError, http.client.HTTPException) as error:
            raise UnreachableError(
                "closed",
                f"{self.target} accepts the connection but answers no HTTP ({type(error).__name__})",
                "Another program has that port, or it speaks TLS and the URL must begin with https://.",
            ) from None
        finally:
            connection.close()
        self.cookies += response.msg.get_all("Set-Cookie") or []
        return Answer(response.status, response.msg, body, time.monotonic() - started)

    def speaks_tls(self) -> bool:
        """Whether TLS answers where plain HTTP was not understood; nothing is sent over it."""
        if self.unix_socket or self.scheme == "https":
            return False
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with (
            contextlib.suppress(OSError, UnreachableError),
            self._open_tcp(time.monotonic() + 3) as plain,
            context.wrap_socket(plain, server_hostname=self.host),
        ):
            return True
        return False

    def _late(self) -> UnreachableError:
        return UnreachableError(
            "timeout",
            f"{self.target} did not answer in time",
            "Flower's event loop may be blocked or the host overloaded: look at its load and Flower's log.",
        )

    def _read(
        self, response: http.client.HTTPResponse, sock: socket.socket | None, deadline: float, limit: int
    ) -> Iterator[bytes]:
        """The body in pieces; the deadline counts for all of it, so that a server that drips cannot hold us."""
        while limit > 0:
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._late()
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.settimeout(left)
            piece = response.read1(min(limit, 65536))
            if not piece:
                return
            limit -= len(piece)
            yield piece

    def _open(self, deadline: float) -> socket.socket:
        if self.unix_socket:
            return self._open_unix(self.unix_socket, deadline)
        plain = self._open_tcp(deadline)
        return plain if self.scheme == "http" else self._secured(plain, deadline)

    def _open_unix(self, path: str, deadline: float) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(max(0.1, deadline - time.monotonic()))
        try:
            sock.connect(path)
        except FileNotFoundError:
            raise UnreachableError("absent", f"the socket {path} does not exist", "Flower is not running.") from None
        except PermissionError:
            raise UnreachableError("permission", f"the socket {path} is closed to this user", "Run as root.") from None
        except TimeoutError:
            raise self._late() from None
        except OSError:
            raise UnreachableError(
                "refused", f"nothing listens on the socket {path}", "Flower is not running."
            ) from None
        self.peer = "127.0.0.1"
        return sock

    def _open_tcp(self, deadline: float) -> socket.socket:
        host, port = self.connect or (self.host, self.port)
        try:
            sock = socket.create_connection((host, port), timeout=max(0.1, deadline - time.monotonic()))
        except (socket.gaierror, UnicodeError):
            raise UnreachableError(
                "dns",
                f"the name {host} cannot be resolved",
                "Check the spelling, and DNS or /etc/hosts on this machine.",
            ) from None
        except ConnectionRefusedError:
            raise UnreachableError(
                "refused", f"nothing listens on {self.target}", "Start Flower or the web server in front of it."
            ) from None
        except TimeoutError:
            raise UnreachableError(
                "timeout",
                f"{self.target} does not answer",
                "Check that the host is up and that no firewall is between.",
            ) from None
        except OSError as error:
            raise UnreachableError(
                "network", f"{self.target} cannot be reached: {error.strerror}", "Check the route to that host."
            ) from None
        self.peer = sock.getpeername()[0]
        return sock

    def _secured(self, plain: socket.socket, deadline: float) -> socket.socket:
        """TLS on top; a certificate that is not trusted is remembered, and looked past without sending any secret."""
        context = ssl.create_default_context()
        if self.cafile:
            context.load_verify_locations(self.cafile)
            # our own self-signed certificate has no issuer, and 3.13's strictness wants one
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        if self.distrust:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            sock = context.wrap_socket(plain, server_hostname=self.host)
        except ssl.SSLCertVerificationError as error:
            plain.close()
            self.distrust = _distrust(error, self.host)
            return self._secured(self._open_tcp(deadline), deadline)
        except (ssl.SSLError, OSError) as error:
            plain.close()
            # a server of plain HTTP waits in silence for the end of what it takes for a request
            silent = isinstance(error, TimeoutError)
            why = "silence" if silent else getattr(error, "reason", None) or type(error).__name__
            raise UnreachableError(
                "tls",
                f"{self.target} does not speak TLS ({why})",
                "Write http:// if it is meant to be plain, else fix TLS.",
            ) from None
        self.certificate = sock.getpeercert() or {}
        return sock


def _distrust(error: ssl.SSLCertVerificationError, host: str) -> tuple[str, str]:
    """What is wrong with a certificate, and what to do; the codes are OpenSSL's X509_V_ERR_*."""
    if error.verify_code == 10:
        return (
            "the TLS certificate has expired",
            "Renew it (certbot renew, or put the new one in place) and reload nginx.",
        )
    if error.verify_code in (18, 19):
        return (
            "the TLS certificate is self-signed and not trusted here",
            "Give it with --cacert FILE (after comparing its fingerprint), or install one of a known authority.",
        )
    if error.verify_code in (62, 64):
        return (
            f"the TLS certificate is for another name than {host}",
            "Use the name it was issued for, or issue it anew.",
        )
    if error.verify_code == 9:
        return "the TLS certificate is not valid yet", "Check the clocks of both machines."
    return (
        f"the TLS certificate is not trusted ({error.verify_message})",
        "Serve the full chain, or give the authority's certificate with --cacert FILE.",
    )


def door_of(url: str, mask: Masker) -> Door:
    """A door from `http://user:password@host[:port]/prefix`; raises UsageError, never with the URL's text."""
    shape = "The URL must look like http://user:password@host[:port]/prefix"
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        raise UsageError(
            f"{shape}: its port or host is wrong, or a / ? # [ or ] in the password is not %-quoted."
        ) from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"{shape}.")
    if "@" in parts.path + parts.query + parts.fragment and "@" not in parts.netloc:
        raise UsageError(f"{shape}: a / ? or # in the password must be %-quoted (%2F %3F %23).")
    door = Door(parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80), parts.path.rstrip("/"))
    if parts.username is not None:
        door.user, password = unquote(parts.username), unquote(parts.password or "")
        mask.add(password, parts.password)
        door.login = basic(door.user, password)
        mask.add(door.login["Authorization"].removeprefix("Basic "))
    return door


def basic(user: str, password: str) -> dict[str, str]:
    """The header of HTTP Basic authentication."""
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine only."""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def readable_certificate(path: str | None) -> None:
    """Raises UsageError unless the file holds PEM certificates."""
    try:
        ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError):
        raise UsageError(f"{path} cannot be read as a PEM certificate.") from None
