"""Is this Flower well?  One line a check, an exit code, and for each failure what to do next.

    doctor http://user:password@host/prefix    from outside, as a user sees it (`-` reads the URL from standard input)
    doctor --settings FILE                     on the host as root: the front door, and what only the inside can see
    doctor --settings FILE --socket            the same, past the web server: the health gate of a deployment

Exit: 0 all passed, 1 not accessible, 2 no workers, 3 authentication or security (1 before 3 before 2), 64 bad usage.
The first form needs nothing but Python 3.10, so this file also runs by itself, outside of any virtual environment.
No secret is printed, and none is in the arguments or the environment of a program that the doctor starts.
"""

from __future__ import annotations

import argparse
import ast
import base64
import contextlib
import http.client
import importlib
import ipaddress
import json
import os
import re
import secrets
import shutil
import socket
import ssl
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

if TYPE_CHECKING:
    from flowerbed.settings import Credentials, Settings

CHECKS = ("ui", "auth", "tasks", "metrics", "workers", "broker", "security")
EXIT_USAGE = 64
_EXIT_OF = {"ui": 1, "tasks": 1, "metrics": 1, "auth": 3, "security": 3, "workers": 2, "broker": 2}
_MEANING = {1: "Flower is not accessible", 2: "no workers", 3: "authentication or security"}
#: bytes of an answer that are read at most: /metrics of a large site has 76 MB, and `flower_` is in its first lines
_BODY_LIMIT = 32 * 1024 * 1024
_METRICS_LIMIT = 1024 * 1024
#: seconds that a worker's first heartbeat may take (workers send one every 2 s)
_HEARTBEAT_GRACE = 6.0
#: seconds that a broker may take for a connection, and for a reply on it
_BROKER_SECONDS = 5.0
_CERTIFICATE_DAYS = 14
_USUAL_NAMES = {"admin", "administrator", "flower", "guest", "root", "test", "user"}
_USUAL_PASSWORDS = _USUAL_NAMES | {
    "123456", "12345678", "changeme", "change_me", "default", "letmein", "pass", "passw0rd", "password", "qwerty",
    "secret", "your_password", "your_password_here", "yourpassword",
}  # fmt: skip
_BROKER_URL = re.compile(r"\b(?:amqps?|rediss?|redis\+socket|sentinel|sqs|kafka|memory)://[^\s<>\"']*")


class UsageError(ValueError):
    """The doctor cannot begin; the text is one sentence without any secret."""


class UnreachableError(Exception):
    """No HTTP answer came: `reason` says what was seen, `hint` what to do, `kind` is for the code."""

    def __init__(self, kind: str, reason: str, hint: str) -> None:
        super().__init__(reason)
        self.kind, self.reason, self.hint = kind, reason, hint


@dataclass
class Finding:
    """The result of one check; `exit` is what it adds to the exit code when it failed."""

    name: str
    status: str
    message: str
    hint: str = ""
    exit: int = 0


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
class Masker:
    """Takes known secrets and every password in a URL out of a text."""

    secrets: set[str] = field(default_factory=set, repr=False)

    def add(self, *values: str | None) -> None:
        """Remembers secrets, as they are and as they stand in URLs."""
        for value in values:
            # one or two letters are in every sentence, and the URL rule below covers them where they matter
            if value and len(value) > 2:
                self.secrets |= {value, quote(value, safe=""), quote(value)}

    def __call__(self, text: str) -> str:
        """The text without any secret."""
        for secret in sorted(self.secrets, key=len, reverse=True):
            text = text.replace(secret, "***")
        # greedy to the last @ of the word: a password that was not quoted may hold an @ itself
        return re.sub(r"(://[^\s:/@]*):\S*@", r"\1:***@", text)


# ---------------------------------------------------------------- the door: HTTP with the standard library only


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
        host = f"[{self.host}]" if ":" in self.host else self.host
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

    def get(self, path: str, *, login: bool = True, headers: dict[str, str] | None = None, limit: int = _BODY_LIMIT,
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


# ---------------------------------------------------------------- what only the inside can see


@dataclass
class Broker:
    """How the broker answered us: `problem` is empty when it did."""

    name: str = ""
    problem: str = ""
    hint: str = ""
    url: str = field(default="", repr=False)
    warnings: tuple[str, ...] = ()


@dataclass
class Census:
    """The workers that answered our own ping, or where on the same Redis they are instead."""

    workers: tuple[str, ...] = ()
    elsewhere: str = ""


@dataclass
class Inside:
    """The host that Flower runs on: settings, credentials, the unit, the broker as Flower itself would reach it."""

    settings: Settings
    credentials: Credentials
    from_file: bool
    mask: Masker = field(repr=False)
    _broker: Broker | None = None

    @property
    def unit(self) -> str | None:
        """The systemd unit, or None where there is no systemd or no such unit."""
        return (
            f"flower@{self.settings.instance}.service"
            if self.from_file and Path("/run/systemd/system").exists()
            else None
        )

    def unit_state(self) -> dict[str, str]:
        """What systemd says about the unit; empty without systemd or unit."""
        if not self.unit:
            return {}
        shown = _output(
            "systemctl", "show", self.unit, "--property=LoadState,ActiveState,SubState,Result,MainPID,NRestarts"
        )
        state = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
        return {} if state.get("LoadState") == "not-found" else state

    def last_error(self) -> str:
        """The last line of the unit's journal that speaks of an error, else its last line."""
        shown = _output("journalctl", "-u", self.unit or "-", "-n", "40", "-o", "cat", "--no-pager", "-q")
        lines = [line.strip() for line in shown.splitlines() if line.strip()]
        bad = re.compile(r"error|critical|exception|refused|denied|cannot|failed to|in use|no such", re.IGNORECASE)
        own = [line for line in lines if not line.startswith(("flower@", "Stopp", "Start", "systemd"))]
        chosen = [line for line in own if bad.search(line)] or own
        return self.mask(chosen[-1])[:240] if chosen else ""

    def why_down(self, seen: UnreachableError | None, port: int | None) -> str:
        """What the host says about a Flower that does not answer: the unit, its last error, who holds the port."""
        said: list[str] = []
        state = self.unit_state()
        holder = port_holder(port) if port else ""
        if holder and (seen is None or seen.kind != "refused") and f"pid {state.get('MainPID', '?')})" not in holder:
            said.append(f"Port {port} is held by {holder}: stop that program or give Flower another port.")
        if state and (state["ActiveState"], state["SubState"]) != ("active", "running"):
            result = f", result {state['Result']}" if state.get("Result", "success") != "success" else ""
            said.append(f"{self.unit} is {state['ActiveState']} ({state['SubState']}{result}).")
            if error := self.last_error():
                said.append(f"Its last error: {error.rstrip('.')}.")
            said.append(f"Then: journalctl -u {self.unit} -n 50")
        elif state and seen is not None and seen.kind in ("refused", "absent"):
            said.append(f"{self.unit} runs, so the web server in front is down or its settings name another place.")
        return " ".join(said)

    def broker(self) -> Broker:
        """Reaches the broker with Flower's own credentials, once."""
        if self._broker is None:
            self._broker = self._look_at_broker()
        return self._broker

    def broker_urls(self) -> list[str]:
        """The URLs to try in turn."""
        configured = self.credentials.celery.get("broker_url") or []
        return configured.split(";") if isinstance(configured, str) else [str(url) for url in configured]

    def _look_at_broker(self) -> Broker:
        try:
            kombu_url = importlib.import_module("kombu.utils.url")
        except ImportError:
            return Broker(
                problem="kombu is not installed here", hint="Run the doctor with the Python of Flower's release."
            )
        tried: list[Broker] = []
        # celery accepts a list for failover: one that answers is enough
        for url in self.broker_urls():
            parts = kombu_url.url_to_parts(url)
            looked = self._reach(url, parts.scheme, parts.hostname, parts.port)
            local = is_loopback(parts.hostname or "localhost") or "socket" in parts.scheme
            if parts.username == parts.password == "guest" and not local:
                looked.warnings = (f"the broker {looked.name} is used with guest:guest",)
            if not looked.problem:
                return looked
            tried.append(looked)
        return tried[0] if tried else Broker(name="none")

    def _reach(self, url: str, scheme: str, host: str | None, port: int | None) -> Broker:
        """One broker URL: the name, the port, TLS and the login, one after the other, so that each fails as itself."""
        broker = Broker(name=self.mask(_without_password(url)), url=url)
        usual = {"redis": 6379, "rediss": 6379, "amqp": 5672, "pyamqp": 5672, "amqps": 5671}.get(scheme)
        if usual:
            host, port = host or "localhost", port or usual
            try:
                socket.create_connection((host, port), timeout=_BROKER_SECONDS).close()
            except (socket.gaierror, UnicodeError):
                broker.problem = f"the broker's name {host} cannot be resolved"
                broker.hint = "Correct flower_broker_url, or DNS and /etc/hosts on this host."
                return broker
            except OSError as error:
                what = "refuses the connection" if isinstance(error, ConnectionRefusedError) else "does not answer"
                broker.problem = f"the broker at {host} port {port} {what}"
                broker.hint = (
                    "Start it, or correct host and port in flower_broker_url; check bind address and firewall."
                )
                return broker
        try:
            with self._application(url).connection_for_write() as connection:
                # the transport itself: kombu's own connect() tries again and again before it says why
                transport = connection.transport
                transport.close_connection(transport.establish_connection())
        except Exception as error:  # noqa: BLE001  # each transport has its own kinds
            broker.problem, broker.hint = _broker_problem(error, self.mask, broker.name)
        return broker

    def _application(self, url: str) -> Any:
        """A Celery application that connects as Flower does: TLS that verifies, the same transport options."""
        settings = importlib.import_module("flowerbed.broker").celery_settings(self.credentials.celery)
        options = dict(settings.get("broker_transport_options") or {})
        if url.startswith(("redis", "sentinel")):
            options |= {"socket_connect_timeout": _BROKER_SECONDS, "socket_timeout": _BROKER_SECONDS}
        application = importlib.import_module("celery").Celery("doctor", set_as_current=False)
        application.conf.update(
            broker_url=url,
            broker_transport_options=options,
            broker_use_ssl=settings.get("broker_use_ssl"),
            broker_connection_timeout=_BROKER_SECONDS,
        )
        return application

    def _ping(self, application: Any) -> tuple[str, ...]:
        return tuple(sorted(application.control.inspect(timeout=1.5).ping() or {}))

    def census(self) -> Census:
        """Pings the workers ourselves; on a Redis without any, looks whether they sit in another database of it."""
        census, url = Census(), self.broker().url
        if not url or self.broker().problem:
            return census
        # an extra look only: a Redis that forbids INFO is no fault of Flower
        with contextlib.suppress(Exception):
            application = self._application(url)
            census.workers = self._ping(application)
            if census.workers or not url.startswith(("redis://", "rediss://")):
                return census
            with application.connection_for_read() as connection:
                client = connection.default_channel.client
                own = str(client.connection_pool.connection_kwargs.get("db", 0))
                others = [name.removeprefix("db") for name in client.info("keyspace")]
                addresses = {
                    name: connection.clone(virtual_host=name).as_uri(include_password=True)
                    for name in others[:16]
                    if name != own
                }
            for name, address in addresses.items():
                if found := self._ping_if_used(address):
                    census.elsewhere = f"{_names(found)} on database {name} of the same Redis (Flower watches {own})"
                    break
        return census

    def _ping_if_used(self, url: str) -> tuple[str, ...]:
        """Workers of a Redis database; a ping leaves keys for a moment, so only where Celery has been already."""
        application = self._application(url)
        with application.connection_for_read() as connection:
            if not connection.default_channel.client.exists("_kombu.binding.celery.pidbox"):
                return ()
        return self._ping(application)

    def events_option(self) -> bool:
        """False when Flower's own configuration says `enable_events = False`; read, not run."""
        path = self.settings.flowerconfig
        try:
            tree = ast.parse(Path(path).read_text(encoding="utf-8")) if path else ast.Module([], [])
        except (OSError, SyntaxError, ValueError):
            return True
        for node in tree.body:
            if isinstance(node, ast.Assign) and any(
                isinstance(t, ast.Name) and t.id == "enable_events" for t in node.targets
            ):
                return not (isinstance(node.value, ast.Constant) and node.value.value is False)
        return True

    def file_problems(self) -> list[str]:
        """Credentials and socket that other users of this host can reach."""
        problems = []
        with contextlib.suppress(OSError):
            kept = self.settings.credentials
            if kept and Path(kept).stat().st_mode & 0o077:
                problems.append(f"{kept} can be read by others than its owner (chmod 600)")
        with contextlib.suppress(OSError):
            path = Path(self.settings.unix_socket or "/nonexistent")
            if path.stat().st_mode & 0o006 and path.parent.stat().st_mode & 0o001:
                problems.append(f"{path} can be used by every user of this host (chmod 750 its directory)")
        return problems


def _without_password(url: str) -> str:
    """A broker URL for the eye: no password, no query (it may hold paths of keys and passwords)."""
    scheme, _, rest = url.partition("://")
    login, at, place = rest.rpartition("@")
    return f"{scheme}://{login.partition(':')[0] + ':***@' if at else ''}{place.partition('?')[0]}"


#: what Redis and RabbitMQ say through their libraries to a wrong user or password
_NO_ENTRY = (
    "noauth",
    "wrongpass",
    "authentication",
    "accessrefused",
    "access_refused",
    "login was",
    "invalid password",
    "auth <password>",
    "username-password",
)
#: what the libraries say when a port accepts a connection and then hangs up, stays silent or speaks another language
_NO_BROKER = ("connection closed", "connection reset", "unexpected frame", "protocol", "timeout", "timed out")


def _broker_problem(error: BaseException, mask: Masker, name: str) -> tuple[str, str]:
    """Tells a broker's refusal apart: password, rights, TLS, name, network."""
    chain: list[BaseException] = []
    step: BaseException | None = error
    while step is not None and step not in chain:
        chain.append(step)
        step = step.__cause__ or step.__context__
    said = " ".join(f"{type(item).__name__} {item}" for item in chain).lower()
    if any(word in said for word in _NO_ENTRY):
        return (
            f"the broker {name} refuses the user or password",
            "Correct the credentials in flower_broker_url (the broker's own log names the user it refused).",
        )
    if "noperm" in said or "notallowed" in said or "not_allowed" in said:
        return (
            f"the broker {name} lets us in but not to this database or virtual host",
            "Grant the user its rights there.",
        )
    if "db index" in said:
        return f"the broker {name} has no such database", "Correct the number at the end of flower_broker_url."
    if any(isinstance(item, ssl.SSLError) for item in chain):
        reason = next(str(getattr(item, "reason", "") or "") for item in chain if isinstance(item, ssl.SSLError))
        return (
            f"TLS to the broker {name} fails ({reason or 'handshake'})",
            "Check that this port speaks TLS, and the authority's certificate in broker_use_ssl.",
        )
    if any(isinstance(item, socket.gaierror) for item in chain):
        return f"a name in the broker {name} cannot be resolved", "Correct flower_broker_url, or DNS on this host."
    if any(isinstance(item, ConnectionRefusedError) for item in chain) or "no route" in said or "unreachable" in said:
        return f"the broker {name} cannot be reached", "Start it, or correct flower_broker_url; check the firewall."
    if "sentinel://" not in name and any(word in said for word in _NO_BROKER):
        # its port was reached a moment ago
        return (
            f"what listens at {name} does not answer as a broker of that kind",
            "Correct flower_broker_url: kind of broker, and TLS (rediss://, amqps://) or none, as that port has them.",
        )
    if any(isinstance(item, (OSError, TimeoutError)) for item in chain) or "connection" in said or "timeout" in said:
        return f"the broker {name} cannot be reached", "Start it, or correct flower_broker_url; check the firewall."
    first = next((str(item) for item in chain if str(item)), type(error).__name__)
    return f"the broker {name} fails: {mask(first)[:200]}", "Look at the broker's own log."


def port_holder(port: int) -> str:
    """Who listens on a TCP port of this machine, as `name (pid N)`; empty when nobody or when it cannot be seen."""
    shown = _output("ss", "-H", "-l", "-t", "-n", "-p", f"sport = :{port}")
    holders = dict.fromkeys(re.findall(r'\("([^"]+)",pid=(\d+)', shown))
    if holders:
        return ", ".join(f"{name} (pid {pid})" for name, pid in list(holders)[:3])
    return "a program of another user" if shown.strip() else ""


def _output(*command: str) -> str:
    """What a program prints; empty when it is not there, fails or takes over 10 s.  It gets no environment of ours."""
    found = shutil.which(command[0], path="/usr/sbin:/usr/bin:/sbin:/bin")
    if not found:
        return ""
    clean = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run([found, *command[1:]], capture_output=True, timeout=10, env=clean, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", "replace")


def _names(names: Iterable[str], most: int = 3) -> str:
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


# ---------------------------------------------------------------- the checks


class Doctor:
    """Looks at one door; `inside` is there when the doctor stands on the host itself."""

    def __init__(self, door: Door, mask: Masker, inside: Inside | None = None, direct: Door | None = None) -> None:
        self.door, self.mask, self.inside = door, mask, inside
        #: Flower itself, past the web server, when the inside knows it
        self.direct = direct
        self.down: UnreachableError | None = None
        self.refused = False
        self._entered: Answer | None = None
        self._seen: dict[tuple[str, str], Answer] = {}

    def run(self, only: Iterable[str] = CHECKS) -> list[Finding]:
        """All findings of the wanted checks, in the order of CHECKS."""
        wanted = set(only)
        # the broker is looked at before the workers, since it explains their absence
        order: list[str] = [
            name for name in ("ui", "auth", "tasks", "metrics", "broker", "workers", "security") if name in wanted
        ]
        found: dict[str, Finding] = {name: self._guarded(name, wanted) for name in order}
        return [found[name] for name in CHECKS if name in wanted]

    def _guarded(self, name: str, wanted: set[str]) -> Finding:
        check: Callable[[], Finding] = getattr(self, f"check_{name}")
        # the broker is seen from the host even when the page is not
        if self.down and name != "ui" and not (name == "broker" and self.inside):
            if "ui" in wanted:
                return Finding(name, "skip", "Flower is not reachable")
            return self._fail(name, self.down.reason, self.down.hint, 1)
        try:
            finding = check()
        except UnreachableError as error:
            if self.down is None and name != "ui" and error.kind == "timeout":
                finding = self._fail(name, error.reason, error.hint, 1)
            else:
                self.down = error
                finding = self._unreachable(name, error)
        except UsageError:
            raise
        except Exception as error:  # noqa: BLE001  # one check that stumbles must not hide the others
            text = f"the doctor stumbled: {type(error).__name__}: {error}"
            finding = self._fail(name, text[:240], "Please report this, with the command that you gave.", 1)
        finding.message, finding.hint = self.mask(finding.message), self.mask(finding.hint)
        return finding

    def _fail(self, name: str, message: str, hint: str, code: int | None = None) -> Finding:
        return Finding(name, "fail", message, hint, code or _EXIT_OF[name])

    def _unreachable(self, name: str, error: UnreachableError) -> Finding:
        hint = error.hint
        if self.inside:
            hint = self.inside.why_down(error, self._local_port()) or hint
        elif error.kind == "closed" and self.door.speaks_tls():
            hint = "It speaks TLS there: write https:// in the URL."
        elif error.kind in ("closed", "tls"):
            hint = self._holder() or hint
        return self._fail(name, error.reason, hint, 1)

    def _local_port(self) -> int | None:
        """The TCP port of this machine that the door or Flower itself should have, if it is one."""
        if self.inside and not self.inside.settings.unix_socket:
            return self.inside.settings.port
        return None if self.door.unix_socket else (self.door.connect or (self.door.host, self.door.port))[1]

    def _holder(self) -> str:
        port = self._local_port()
        if port is None or not (is_loopback(self.door.peer or self.door.host)):
            return ""
        holder = port_holder(port)
        return f"Port {port} is held by {holder}: stop that program or give Flower another port." if holder else ""

    # ---- ui

    def check_ui(self) -> Finding:
        """Does a Flower answer there?"""
        answer = self._anonymous("/")
        if self.door.scheme == "http" and answer.status in (301, 302, 307, 308):
            answer = self._upgrade(answer)
        seconds = answer.seconds
        if self.door.login and answer.asks_login:
            answer = self._enter()
        return self._judge_page(answer, seconds)

    def _anonymous(self, path: str) -> Answer:
        """What a passer-by gets, asked for once: the web server limits how often one may ask."""
        key = (self.door.scheme, path)
        if key not in self._seen:
            limit = _METRICS_LIMIT if path == "/metrics" else _BODY_LIMIT
            self._seen[key] = self.door.get(path, login=False, limit=limit)
        return self._seen[key]

    def _enter(self) -> Answer:
        """The first page with the login, asked for once: a wrong password is slowed down, and counted, by the door."""
        if self._entered is None:
            self._entered = self.door.get("/")
        return self._entered

    def _upgrade(self, answer: Answer) -> Answer:
        """Follows the redirect from http to https of the same host, which any browser would follow."""
        place = urlsplit(answer.headers.get("Location", ""))
        if place.scheme != "https" or place.hostname != self.door.host:
            return answer
        self.door.scheme, self.door.port = "https", place.port or 443
        return self._anonymous("/")

    def _judge_page(self, answer: Answer, seconds: float) -> Finding:
        place = self.door.name
        if answer.status in (502, 503, 504) and not self.door.unix_socket:
            seen = UnreachableError(
                "behind", f"{place} answers {answer.status}: the web server is up, Flower behind it is not", ""
            )
            hint = self.inside.why_down(seen, None) if self.inside else ""
            self.down = seen
            return self._fail(
                "ui", seen.reason, hint or "On its host: systemctl status 'flower@*' and journalctl -u 'flower@*'."
            )
        if answer.status == 404:
            self.down = UnreachableError(
                "notfound", f"{place} is not there (404)", "Check the prefix at the end of the URL."
            )
            return self._fail("ui", self.down.reason, self._holder() or self.down.hint)
        if answer.status >= 500:
            return self._fail("ui", f"{place} answers {answer.status}", "Look at the error in Flower's log.")
        if answer.status in (403, 429):
            what = "too many requests" if answer.status == 429 else "closed to this address"
            return self._fail(
                "ui", f"{place} answers {answer.status} ({what})", "Look at the web server's rules for this address."
            )
        if answer.status == 200 and b"Flower" not in answer.body and b"flower" not in answer.body:
            self.down = UnreachableError("other", f"{place} answers, but it is not Flower", "")
            inside = self.inside.why_down(None, self._local_port()) if self.inside else ""
            return self._fail(
                "ui", self.down.reason, inside or self._holder() or "Check host, port and prefix of the URL."
            )
        if 300 <= answer.status < 400 and not answer.asks_login:
            to = urlsplit(answer.headers.get("Location", ""))
            where = f"{to.scheme}://{to.hostname}{to.path}" if to.hostname else to.path
            return self._fail("ui", f"{place} sends us on to {where}", "Use that address.")
        return Finding("ui", "ok", f"the page answers in {seconds * 1000:.0f} ms")

    # ---- auth

    def check_auth(self) -> Finding:
        """Are the anonymous and the wrong kept out, and the right let in?"""
        page = self._anonymous("/")
        if page.status == 200:
            return self._open_door()
        if not page.asks_login:
            return self._fail(
                "auth", f"the anonymous get {page.status}, neither a login nor a page", "See the check ui.", 1
            )
        interface = self._anonymous("/api/tasks?limit=1")
        if interface.status == 200:
            return self._fail("auth", "the page asks for a login but /api is open to everybody", _CLOSE_API)
        if self.door.distrust:
            return Finding("auth", "skip", "a login is asked for; none is sent over TLS that is not trusted")
        if not self.door.login:
            return self._no_login()
        if refusal := self._wrong_login_refused():
            return refusal
        answer = self._enter()
        if answer.status == 200:
            proof = "a forged session" if "Cookie" in self.door.login else "a wrong password"
            return Finding(
                "auth", "ok", f"the anonymous are sent to the login, {proof} is refused, the right one let in"
            )
        self.refused = True
        return self._not_let_in(answer)

    def _open_door(self) -> Finding:
        if self.inside and self.inside.settings.auth == "none":
            return Finding("auth", "ok", "open to everybody who can reach it, as the settings say (auth: none)")
        return self._fail(
            "auth",
            "Flower is open: everybody who can reach it may see tasks and stop workers",
            "Set flower_users (or FLOWER_BASIC_AUTH=user:password for start-flower.sh) and start it again.",
        )

    def _no_login(self) -> Finding:
        self.refused = True
        if self.inside:
            return Finding(
                "auth", "ok", "the anonymous are sent to the login (a sign-in service, so the doctor has none)"
            )
        return self._fail(
            "auth",
            "Flower asks for a login and the URL holds none",
            "Put user and password before the host, best by standard input.",
        )

    def _wrong_login_refused(self) -> Finding | None:
        """Tries what must not open the door; an unknown name, so that no real user's failed attempts are counted."""
        if cookie := self.door.login.get("Cookie"):
            forged = {"Cookie": cookie[:-1] + ("1" if cookie[-1] == "0" else "0")}
        else:
            forged = basic(f"doctor-{secrets.token_hex(4)}", secrets.token_urlsafe(12))
        answer = self.door.get("/", login=False, headers=forged)
        if answer.status == 200:
            what = "a forged session" if cookie else "an unknown user with a random password"
            return self._fail(
                "auth", f"{what} is let in", "Authentication does not work: close the door until it does."
            )
        return None

    def _not_let_in(self, answer: Answer) -> Finding:
        if answer.status in (429, 503):
            return self._fail(
                "auth",
                f"logins are slowed down just now ({answer.status})",
                "Too many failed attempts: wait some minutes.",
            )
        if "Cookie" in self.door.login:
            return self._fail(
                "auth",
                f"Flower refuses the doctor's own session ({answer.status})",
                "It runs with another cookie secret than the credentials on disk: systemctl restart the unit.",
            )
        if answer.status >= 500:
            return self._fail("auth", f"the login ends in an error ({answer.status})", "Look at Flower's log.")
        return self._fail(
            "auth",
            f"Flower refuses the user {self.door.user!r} with this password ({answer.status})",
            "Correct the name or password; special characters in the URL must be %-quoted (%40 for @).",
        )

    # ---- tasks, metrics

    def check_tasks(self) -> Finding:
        """Does the task history answer?"""
        if skip := self._cannot_enter("tasks"):
            return skip
        answer = self.door.get("/api/tasks?limit=1")
        if answer.status == 401 and b"UNAUTHENTICATED_API" in answer.body:
            page = self.door.get("/tasks")
            if page.status == 200:
                return Finding(
                    "tasks", "ok", "the page of tasks answers (Flower closes its API as long as there is no login)"
                )
            answer = page
        tasks = answer.json()
        if answer.status == 200 and isinstance(tasks, dict):
            newest = next(iter(tasks.values()), None)
            if not isinstance(newest, dict):
                return Finding("tasks", "ok", "the task history answers; no task was seen yet")
            return Finding(
                "tasks", "ok", f"the task history answers; newest: {newest.get('name')} {newest.get('state')}"
            )
        if answer.status in (401, 302, 303):
            return self._fail("tasks", "the task history asks for another login", "See the check auth.", 3)
        return self._fail("tasks", f"the task history answers {answer.status}", "Look at the error in Flower's log.")

    def check_metrics(self) -> Finding:
        """Are Flower's numbers there, or closed to us on purpose?"""
        answer = self._anonymous("/metrics")
        if answer.asks_login and self.door.login:
            answer = self.door.get("/metrics", limit=_METRICS_LIMIT)
        if answer.status == 200:
            return self._judge_metrics(answer, "")
        if answer.asks_login:
            return Finding("metrics", "skip", "/metrics asks for a login")
        if answer.status in (403, 404):
            if self.direct and self.direct is not self.door:
                return self._judge_metrics(
                    self.direct.get("/metrics", limit=_METRICS_LIMIT), "; closed at the front door"
                )
            return Finding("metrics", "ok", f"closed to this address ({answer.status})")
        return self._fail("metrics", f"/metrics answers {answer.status}", "Look at the error in Flower's log.")

    def _judge_metrics(self, answer: Answer, also: str) -> Finding:
        if answer.status == 200 and b"flower_" in answer.body:
            return Finding("metrics", "ok", f"/metrics has Flower's numbers{also}")
        return self._fail(
            "metrics",
            f"/metrics answers {answer.status} without any flower_ number{also}",
            "Is another program behind this URL?",
        )

    def _cannot_enter(self, name: str) -> Finding | None:
        """A skip when we know that we are not let in, so that one wrong password is one failure and not three."""
        if self.door.distrust and self.door.login:
            return Finding(name, "skip", "no login is sent over TLS that is not trusted")
        if self.refused or (not self.door.login and self._anonymous("/").asks_login):
            return Finding(name, "skip", "needs a login that works")
        return None

    # ---- broker, workers

    def check_broker(self) -> Finding:
        """Is the broker reached: by us with the credentials when we are inside, else by Flower?"""
        return self._broker_inside(self.inside) if self.inside else self._broker_outside()

    def _broker_inside(self, inside: Inside) -> Finding:
        broker = inside.broker()
        if broker.name == "none":
            return Finding(
                "broker", "skip", "no broker URL is in the credentials (the Celery application brings its own)"
            )
        if broker.problem:
            return self._fail("broker", broker.problem, broker.hint)
        return Finding("broker", "ok", f"{broker.name} answers and accepts the credentials")

    def _broker_outside(self) -> Finding:
        """Flower's own view: a worker that is alive, or queue lengths, which it reads from the broker at once."""
        if skip := self._cannot_enter("broker"):
            return skip
        if any(worker.get("status") for worker in self._workers()):
            return Finding("broker", "ok", f"{self._broker_name()}: events of workers arrive")
        answer = self.door.get("/api/queues/length")
        if answer.status >= 500:
            return self._fail(
                "broker",
                f"Flower cannot read its broker {self._broker_name()}",
                "It is down, unreachable or refuses the credentials; on the host this tells which: "
                "/opt/flower/main/current/bin/python -m flowerbed doctor --settings /etc/flower/main/flowerbed.json",
            )
        queues = (answer.json() or {}).get("active_queues") if answer.status == 200 else None
        if queues:
            waiting = sum(int(queue.get("messages") or 0) for queue in queues)
            return Finding(
                "broker", "ok", f"{self._broker_name()} answers; {waiting} tasks wait in {len(queues)} queues"
            )
        return Finding("broker", "skip", f"{self._broker_name()} cannot be judged from outside")

    def _broker_name(self) -> str:
        found = _BROKER_URL.search(self.door.get("/broker").text)
        return _without_password(found[0]) if found else "the broker"

    def _workers(self) -> list[dict[str, Any]]:
        """Workers as Flower knows them from events, with its count of each kind of event."""
        data = self.door.get("/workers?json=1").json()
        rows = data.get("data") if isinstance(data, dict) else None
        return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []

    def check_workers(self) -> Finding:
        """Is a worker seen by its events?  If not, why not?"""
        if skip := self._cannot_enter("workers"):
            return self._workers_by_ping() or skip
        # after a start of Flower the first heartbeat takes up to two seconds
        rows = self._until(lambda rows: any(row.get("status") for row in rows), 0.0)
        if not any(row.get("status") for row in rows):
            if broken := self._broken_broker():
                return self._fail("workers", f"no worker is seen: {broken}", "Repair the broker first.")
            answering = self._inspected()
            rows = self._until(lambda rows: any(row.get("status") for row in rows), _HEARTBEAT_GRACE)
            # Flower gathers the answers in the background, so the first look may come a little early
            answering = answering or self._inspected()
            if not any(row.get("status") for row in rows):
                return self._no_workers(rows, answering)
        return self._judge_events([row for row in rows if row.get("status")], rows)

    def _until(self, good: Callable[[list[dict[str, Any]]], bool], seconds: float) -> list[dict[str, Any]]:
        deadline = time.monotonic() + seconds
        while True:
            rows = self._workers()
            if good(rows) or time.monotonic() >= deadline:
                return rows
            time.sleep(0.3)

    def _workers_by_ping(self) -> Finding | None:
        """Behind somebody else's sign-in the broker itself can still be asked, from inside."""
        if not self.inside or not (found := self.inside.census().workers):
            return None
        return Finding("workers", "ok", f"{_names(found)} on the broker (Flower's own list needs a login)")

    def _inspected(self) -> list[str]:
        """Workers that answer Flower's inspection right now; costs Flower's inspect_timeout."""
        answer = self.door.get("/api/workers?refresh=1", timeout=max(self.door.timeout, 20.0))
        found = answer.json()
        if answer.status != 200 or not isinstance(found, dict):
            return []
        try:
            now = parsedate_to_datetime(answer.headers.get("Date", "")).timestamp()
        except (TypeError, ValueError):
            now = time.time()
        # Flower keeps the answers of workers that are long gone
        return [
            name
            for name, info in found.items()
            if isinstance(info, dict) and now - float(info.get("timestamp", 0)) < 20
        ]

    def _broken_broker(self) -> str:
        """What is wrong with the broker, as far as it can be seen from here."""
        if self.inside:
            return self.inside.broker().problem
        if self.door.get("/api/queues/length").status >= 500:
            return f"Flower cannot read its broker {self._broker_name()}"
        return ""

    def _no_workers(self, rows: list[dict[str, Any]], answering: list[str]) -> Finding:
        offline = [str(row.get("hostname")) for row in rows]
        if answering:
            return self._fail(
                "workers",
                f"events are disabled: {_names(answering)} answer Flower but send it no events",
                "Start the workers with -E and without --without-heartbeat.",
            )
        gone = f" (offline: {_names(offline)})" if offline else ""
        if self.inside:
            broker, census = self.inside.broker(), self.inside.census()
            if census.workers:
                unit = self.inside.unit or "Flower"
                return self._fail(
                    "workers",
                    f"{_names(census.workers)} answer on {broker.name}, but Flower does not hear them",
                    f"Flower lost its broker or was started with another: systemctl restart {unit}",
                )
            if census.elsewhere:
                return self._fail(
                    "workers",
                    f"workers are on another broker: {census.elsewhere}",
                    "Give workers and flower_broker_url the same broker and database.",
                )
            return self._fail("workers", f"no worker answers on {broker.name}{gone}", _START_WORKERS)
        name, queues = self._broker_name(), self.door.get("/api/queues/length")
        waiting = [f"{q.get('messages')} in {q.get('name')}" for q in (queues.json() or {}).get("active_queues") or []
                   if q.get("messages")] if queues.status == 200 else []  # fmt: skip
        seen = f"; tasks wait there: {_names(waiting)}" if waiting else ""
        return self._fail(
            "workers", f"no worker answers on the broker that Flower watches, {name}{gone}{seen}", _START_WORKERS
        )

    def _judge_events(self, alive: list[dict[str, Any]], rows: list[dict[str, Any]]) -> Finding:
        """Workers are alive; do their tasks reach Flower too?  Heartbeats count tasks even when task events are off."""
        silent = {str(row["hostname"]): _processed(row) for row in alive if _processed(row) and not _task_events(row)}
        if silent:
            rows = self._until(lambda now: bool(_proof(silent, now)) or any(map(_task_events, now)), _HEARTBEAT_GRACE)
            alive = [row for row in rows if row.get("status")] or alive
            deaf = _proof(silent, rows)
            if not deaf and self.inside and not self.inside.events_option():
                deaf = sorted(silent)
            if deaf:
                return self._fail(
                    "workers",
                    f"events are disabled: {_names(deaf)} work on tasks and Flower hears of none",
                    "Start the workers with -E (worker_send_task_events), or set enable_events to True for Flower.",
                )
        offline = [str(row.get("hostname")) for row in rows if not row.get("status")]
        text = f"{len(alive)} online: {_names(str(row.get('hostname')) for row in alive)}"
        if offline:
            text += f"; {len(offline)} offline: {_names(offline)}"
        if silent and not any(_task_events(row) for row in alive):
            text += "; no task event yet"
        return Finding("workers", "ok", text)

    # ---- security

    def check_security(self) -> Finding:
        """What a passer-by could read or use."""
        page = self._anonymous("/")
        problems = self._transport_problems(page) + self._opening_problems(page)
        if self.inside:
            problems += [(text, "") for text in self.inside.file_problems()]
            problems += [(text, "give Flower a user of its own") for text in self.inside.broker().warnings]
        if not problems:
            return Finding("security", "ok", self._security_praise())
        hints = dict.fromkeys(hint for _, hint in problems if hint)
        return self._fail("security", "; ".join(text for text, _ in problems), " ".join(hints))

    def _security_praise(self) -> str:
        if self.door.unix_socket:
            return "credentials and socket are closed to other users"
        if self.door.scheme == "http":
            return "plain HTTP, but on this machine only"
        days = self._days_left()
        return "TLS, headers and API are as they should be" + (
            f"; the certificate lasts {days} days" if days is not None else ""
        )

    @property
    def _public(self) -> bool:
        """Whether others than this machine use this door: by its name when we came in through `connect`."""
        if self.door.unix_socket:
            return False
        return not is_loopback(self.door.host if self.door.connect else self.door.peer or self.door.host)

    def _days_left(self) -> int | None:
        until = self.door.certificate.get("notAfter")
        return int((ssl.cert_time_to_seconds(str(until)) - time.time()) // 86400) if until else None

    def _transport_problems(self, page: Answer) -> list[tuple[str, str]]:
        problems: list[tuple[str, str]] = []
        if self.door.scheme == "http":
            if self._public:
                problems.append(
                    ("plain HTTP: passwords and tasks cross the network readable", "Turn on TLS (flower_tls).")
                )
            else:
                return problems
        if self.door.distrust:
            problems.append(self.door.distrust)
        days = self._days_left()
        if days is not None and days < _CERTIFICATE_DAYS:
            problems.append(
                (f"the TLS certificate expires in {days} days", "Renew it, and see why that did not happen by itself.")
            )
        if missing := missing_headers(page.headers, tls=self.door.scheme == "https"):
            problems.append((f"headers are missing: {', '.join(missing)}", "Set them in the web server."))
        insecure = [text.partition("=")[0] for text in self.door.cookies
                    if text.startswith("user=") and "secure" not in _attributes(text)]  # fmt: skip
        settings = self.inside.settings if self.inside else None
        if self.door.scheme == "https" and (
            insecure or (settings and settings.auth != "none" and not settings.secure_cookies)
        ):
            problems.append(("the session cookie is not marked Secure", "Set secure_cookies."))
        return problems

    def _opening_problems(self, page: Answer) -> list[tuple[str, str]]:
        problems: list[tuple[str, str]] = []
        meant = self.inside is not None and self.inside.settings.auth == "none"
        interface = self._anonymous("/api/tasks?limit=1")
        if interface.status == 200 and not meant:
            problems.append(("the API is open without a login", _CLOSE_API))
        elif interface.headers.get("Access-Control-Allow-Origin") == "*" and not meant:
            problems.append(("the API lets every web site read it (CORS *)", _CLOSE_API))
        if page.status == 200 and self._public and not meant:
            problems.append(("the pages are open without a login", "Set flower_users."))
        if self._public and not self.door.connect and self._anonymous_metrics():
            problems.append(("/metrics is open to this address", "Narrow flower_metrics_allow to your Prometheus."))
        if self._default_login():
            problems.append(("a default user and password opens the door", "Choose a long random password."))
        return problems

    def _anonymous_metrics(self) -> bool:
        return self._anonymous("/metrics").status == 200

    def _default_login(self) -> bool:
        header = self.door.login.get("Authorization", "")
        if not header or self.refused or self.door.distrust:
            return False
        user, _, password = base64.b64decode(header.removeprefix("Basic ")).decode().partition(":")
        return password.lower() in _USUAL_PASSWORDS or password == "" or (user.lower() == password.lower())


_CLOSE_API = "Set flower_users, and take FLOWER_UNAUTHENTICATED_API out of Flower's environment."
_START_WORKERS = (
    "Start a worker there, or compare broker_url of the workers with Flower's: they must be the same, database too."
)


def missing_headers(headers: http.client.HTTPMessage, *, tls: bool) -> list[str]:
    """The security headers that a page should have and does not."""
    policy = headers.get("Content-Security-Policy", "").lower()
    wanted = [
        ("Strict-Transport-Security", not tls or "Strict-Transport-Security" in headers),
        ("X-Content-Type-Options", headers.get("X-Content-Type-Options", "").strip().lower() == "nosniff"),
        ("X-Frame-Options", "X-Frame-Options" in headers or "frame-ancestors" in policy),
        ("Referrer-Policy", "Referrer-Policy" in headers),
    ]
    return [name for name, there in wanted if not there]


def _attributes(cookie: str) -> set[str]:
    return {part.strip().partition("=")[0].lower() for part in cookie.split(";")[1:]}


def _processed(row: dict[str, Any]) -> int:
    return int(row.get("processed") or 0)


def _task_events(row: dict[str, Any]) -> int:
    """Task events that Flower counted for a worker (`task-sent` is the producer's, not the worker's)."""
    return sum(int(value) for key, value in row.items() if key.startswith("task-") and isinstance(value, int))


def _proof(silent: dict[str, int], rows: list[dict[str, Any]]) -> list[str]:
    """Workers that finished more tasks under our eyes while Flower still heard of none."""
    return sorted(
        str(row["hostname"])
        for row in rows
        if row.get("hostname") in silent and _processed(row) > silent[str(row["hostname"])] and not _task_events(row)
    )


# ---------------------------------------------------------------- the command


def exit_code(findings: Iterable[Finding]) -> int:
    """0, or the gravest: 1 not accessible, then 3 authentication or security, then 2 no workers."""
    failed = {finding.exit for finding in findings if finding.status == "fail"}
    return next((code for code in (1, 3, 2) if code in failed), 0)


def as_json(findings: list[Finding]) -> str:
    """The findings as one JSON object on one line."""
    code = exit_code(findings)
    checks = [{"name": f.name, "status": f.status, "message": f.message, "hint": f.hint} for f in findings]
    return json.dumps({"passed": code == 0, "exit": code, "checks": checks}, ensure_ascii=False)


def as_text(findings: list[Finding], title: str, *, color: bool, width: int | None) -> str:
    """One line a check; on a terminal (`width` given) long ones go on below, under their beginning."""
    paint = {"ok": "32", "fail": "1;31", "skip": "33"}
    lines = [title]
    for item in findings:
        word = "FAIL" if item.status == "fail" else item.status
        text = item.message + (f". {item.hint}" if item.hint else "")
        if width and width > 50:
            text = textwrap.fill(text, width - 1, initial_indent=" " * 16, subsequent_indent=" " * 16,
                                 break_long_words=False, break_on_hyphens=False)[16:]  # fmt: skip
        shown = f"\x1b[{paint[item.status]}m{word:<4}\x1b[0m" if color else f"{word:<4}"
        lines.append(f"{shown}  {item.name:<8}  {text}")
    code = exit_code(findings)
    skipped = sum(item.status == "skip" for item in findings)
    if code:
        lines.append(f"Not well: {_MEANING[code]} (exit {code}).")
    else:
        lines.append(f"All is well{f', but {skipped} not checked' if skipped else ''}.")
    return "\n".join(lines)


def wait_until_well(make: Callable[[], Doctor], seconds: float) -> Doctor:
    """Looks at ui and auth again and again until both are well, the time is up, or systemd has given the unit up."""
    deadline = time.monotonic() + seconds
    while True:
        doctor = make()
        left = deadline - time.monotonic()
        timeout = doctor.door.timeout
        doctor.door.timeout = max(1.0, min(timeout, left))
        well = exit_code(doctor.run(("ui", "auth"))) == 0
        # a wrong password stays wrong, and asking again would lock its user out
        given_up = (
            doctor.refused if doctor.inside is None else doctor.inside.unit_state().get("ActiveState") == "failed"
        )
        if well or given_up or left <= 0:
            return make()
        time.sleep(0.25)


def _inside(path: str | None, mask: Masker) -> Inside:
    """Settings and credentials by the package that this file belongs to."""
    try:
        settings_module = importlib.import_module("flowerbed.settings")
    except ImportError:
        raise UsageError(
            "Without a URL the doctor must run as `python -m flowerbed doctor`, from Flower's release."
        ) from None
    try:
        settings = settings_module.load(path)
        credentials = settings_module.load_credentials(settings)
    except settings_module.SettingsError as error:
        as_root = " Run the doctor as root." if os.geteuid() != 0 else ""
        raise UsageError(f"{error}{as_root}") from None
    mask.add(credentials.cookie_secret, *(user.hash for user in credentials.users))
    mask.add(*_texts(credentials.celery), *_texts(credentials.options))
    from_file = path is not None or bool(os.environ.get("FLOWERBED_SETTINGS"))
    return Inside(settings, credentials, from_file, mask)


def _readable_certificate(path: str | None) -> None:
    """Raises UsageError unless the file holds PEM certificates."""
    try:
        ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError):
        raise UsageError(f"{path} cannot be read as a PEM certificate.") from None


def _texts(value: Any, key: str = "") -> Iterator[str]:
    """What may be secret in the credentials: passwords of URLs, and texts under telling names."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _texts(item, str(name))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item, key)
    elif isinstance(value, str):
        for url in value.split(";") if "://" in value else ():
            login, at, _ = url.partition("://")[2].rpartition("@")
            if at and (password := login.partition(":")[2]):
                yield password
                yield unquote(password)
        if re.search(r"pass|secret|token|key$|credential", key, re.IGNORECASE) and not value.startswith("/"):
            yield value


def _doors(inside: Inside, past_front: bool) -> tuple[Door, Door]:
    """The front door as users have it, and Flower itself; both the same without a front door or past it."""
    settings = inside.settings
    prefix = "/" + settings.url_prefix.strip("/") if settings.url_prefix.strip("/") else ""
    everywhere = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # compared, not bound
    address = everywhere.get(settings.address, settings.address)
    direct = Door("http", "localhost" if settings.unix_socket else address, settings.port, prefix)
    direct.unix_socket = settings.unix_socket
    front = direct
    if settings.url and not past_front:
        front = door_of(settings.url, inside.mask)
        front.prefix = front.prefix or prefix
        front.cafile = settings.tls_certificate
        if settings.connect:
            host, _, port = settings.connect.rpartition(":")
            front.connect = (host.strip("[]") or "127.0.0.1", int(port))
    if settings.auth == "password":
        for door in (front, direct):
            door.user, door.login = _session(inside)
    return front, direct


def _session(inside: Inside) -> tuple[str, dict[str, str]]:
    """A session made with the cookie secret; on a laptop, which has none, the first of FLOWER_BASIC_AUTH."""
    auth, module = importlib.import_module("flowerbed.auth"), importlib.import_module("flowerbed.settings")
    if inside.credentials.cookie_secret is None:
        if not (pairs := module.basic_auth_pairs(os.environ.get("FLOWER_BASIC_AUTH") or "")):
            raise UsageError("The credentials hold no cookie_secret, so the doctor cannot make itself a session.")
        user, password = pairs[0]
        login = basic(user, password)
        inside.mask.add(password, login["Authorization"].removeprefix("Basic "))
        return user, login
    cookie = auth.session_cookie(inside.settings, inside.credentials)
    inside.mask.add(cookie)
    return "doctor", {"Cookie": f"{auth.COOKIE}={cookie}"}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flowerbed doctor",
        description="Is this Flower well? One line a check.",
        epilog="Exit: 0 all passed, 1 not accessible, 2 no workers, 3 authentication or security, 64 bad usage. "
        "A URL with a password is best given by standard input: doctor - < file",
    )
    parser.add_argument(
        "url", nargs="?", metavar="URL", help="http://user:password@host[:port]/prefix, or - for standard input"
    )
    parser.add_argument("--settings", metavar="FILE", help="flowerbed.json of an instance on this host (as root)")
    parser.add_argument("--socket", action="store_true", help="ask Flower itself, past the web server in front of it")
    parser.add_argument(
        "--wait", type=float, default=0.0, metavar="SECONDS", help="wait until page and login answer well"
    )
    parser.add_argument("--timeout", type=float, default=10.0, metavar="SECONDS", help="for one answer (default 10)")
    parser.add_argument("--cacert", metavar="FILE", help="a certificate to trust, PEM")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--only", metavar="CHECKS", help=f"some checks only, with commas: {','.join(CHECKS)}")
    return parser


def _examine(options: argparse.Namespace) -> tuple[list[Finding], str]:
    only = tuple(name.strip() for name in (options.only or ",".join(CHECKS)).split(",") if name.strip())
    if unknown := [name for name in only if name not in CHECKS]:
        raise UsageError(f"--only: {unknown[0]} is not a check; these are: {', '.join(CHECKS)}.")
    if options.url and (options.settings or options.socket):
        raise UsageError("Give either a URL, or --settings (and --socket).")
    mask = Masker()
    url = sys.stdin.readline().strip() if options.url == "-" else options.url
    if options.url and not url:
        raise UsageError("Standard input holds no URL.")
    inside = None if url else _inside(options.settings, mask)

    def make() -> Doctor:
        front, direct = _doors(inside, options.socket) if inside else (door_of(url, mask), None)
        for door in filter(None, (front, direct)):
            door.timeout = options.timeout
            door.cafile = options.cacert or door.cafile
            _readable_certificate(door.cafile)
        return Doctor(front, mask, inside, direct)

    doctor = wait_until_well(make, options.wait) if options.wait > 0 else make()
    findings = doctor.run(only)
    who = f" as {doctor.door.user}" if doctor.door.user else ""
    return findings, mask(f"Flower at {doctor.door.name}{who}")


def main(argv: list[str]) -> int:
    """The command; `argv` without the program's name.  Gives the exit code."""
    try:
        options = _parser().parse_args(argv)
    except SystemExit as stop:
        return EXIT_USAGE if stop.code else 0
    try:
        findings, title = _examine(options)
    except UsageError as error:
        print(f"doctor: {error}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        return 130
    if options.json:
        print(as_json(findings))
    else:
        terminal = sys.stdout.isatty()
        color = terminal and not os.environ.get("NO_COLOR")
        width = shutil.get_terminal_size().columns if terminal else None
        print(as_text(findings, title, color=color, width=width))
    return exit_code(findings)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
