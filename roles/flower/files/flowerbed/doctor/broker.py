"""How a broker answered, and what its refusal means."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass, field

from flowerbed.doctor.masking import Masker

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


@dataclass
class Broker:
    """How the broker answered us: `problem` is empty when it did."""

    name: str = ""
    problem: str = ""
    hint: str = ""
    url: str = field(default="", repr=False)
    warnings: tuple[str, ...] = ()


def broker_problem(error: BaseException, mask: Masker, name: str) -> tuple[str, str]:
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
