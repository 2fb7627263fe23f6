"""What only the inside can see: the unit, the files, the broker as Flower itself would reach it."""

from __future__ import annotations

import ast
import contextlib
import importlib
import re
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowerbed.doctor import programs
from flowerbed.doctor.broker import Broker, broker_problem
from flowerbed.doctor.door import UnreachableError, is_loopback
from flowerbed.doctor.masking import Masker, without_password
from flowerbed.doctor.report import some_of

if TYPE_CHECKING:
    from flowerbed.settings import Credentials, Settings

#: seconds that a broker may take for a connection, and for a reply on it
_BROKER_SECONDS = 5.0


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
        shown = programs.output(
            "systemctl", "show", self.unit, "--property=LoadState,ActiveState,SubState,Result,MainPID,NRestarts"
        )
        state = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
        return {} if state.get("LoadState") == "not-found" else state

    def last_error(self) -> str:
        """The last line of the unit's newest run that speaks of an error, else its last line; empty without a run.

        What systemd itself says, such as `Failed to start flower@main.service - …`, is no reason and is left out.
        """
        run = programs.output("systemctl", "show", "--property=InvocationID", "--value", self.unit or "-").strip()
        if not re.fullmatch("[0-9a-f]{32}", run):
            return ""
        # journalctl --invocation= needs systemd 257, the field is older than 252
        shown = programs.output(
            "journalctl", f"_SYSTEMD_INVOCATION_ID={run}", "-n", "40", "-o", "cat", "--no-pager", "-q"
        )
        lines = [line.strip() for line in shown.splitlines() if line.strip()]
        bad = re.compile(r"error|critical|exception|refused|denied|cannot|failed to|in use|no such", re.IGNORECASE)
        systemd = ("flower@", "Failed to start flower@", "Failed to start Flower", "Stopp", "Start", "systemd")
        own = [line for line in lines if not line.startswith(systemd)]
        chosen = [line for line in own if bad.search(line)] or own
        return self.mask(chosen[-1])[:240] if chosen else ""

    def why_down(self, seen: UnreachableError | None, port: int | None) -> str:
        """What the host says about a Flower that does not answer: the unit, its last error, who holds the port."""
        said: list[str] = []
        state = self.unit_state()
        holder = programs.port_holder(port) if port else ""
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
        broker = Broker(name=self.mask(without_password(url)), url=url)
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
            broker.problem, broker.hint = broker_problem(error, self.mask, broker.name)
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
                    census.elsewhere = f"{some_of(found)} on database {name} of the same Redis (Flower watches {own})"
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
