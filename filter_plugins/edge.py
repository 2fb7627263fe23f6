"""What nginx, the edge of the role, asks of its variables: networks, limits, names of headers, the policy.

Pure functions. Sentences name the variable, what is wrong and what would be right.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

from .preflight import is_true

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NETWORKS = ("flower_allow", "flower_trusted_proxies", "flower_header_proxies", "flower_metrics_allow")
# Whoever is in these is believed: everybody would be too many.
_BELIEVED = ("flower_trusted_proxies", "flower_header_proxies")
_HEADERS = ("flower_header_user", "flower_header_email", "flower_header_groups")
# Headers that nginx sets itself, or that mean something between two hops.
_TAKEN_HEADERS = {
    *("host", "cookie", "authorization", "connection", "content-length", "content-type", "origin", "te"),
    *("transfer-encoding", "upgrade", "x-forwarded-for", "x-forwarded-proto", "x-real-ip"),
}
_SIZE = re.compile(r"([0-9]{1,9})([kKmMgG]?)")
_POLICY_BYTES = 3000  # nginx reads parameters of 4,096 bytes, and proxies before it headers of a few kB


def _items(value: object) -> list[str]:
    """Return the texts of a list; a single text, from ``-e``, is a list of one."""
    if value is None or value == "":
        return []
    return [str(item).strip() for item in value] if isinstance(value, list | tuple) else [str(value).strip()]


def _network(text: str) -> Network:
    """Read an address or a network. Raises ValueError, also for a zone, which nginx does not know."""
    if "%" in text:
        raise ValueError("a zone")
    return ipaddress.ip_network(text)


def _network_problems(name: str, value: object) -> list[str]:
    problems = []
    for text in _items(value):
        try:
            network = _network(text)
        except ValueError:
            try:
                right = f" (did you mean {ipaddress.ip_network(text, strict=False)}?)" if "%" not in text else ""
            except ValueError:
                right = ""
            problems.append(
                f"{name}: {text[:60]!r} is not an address or a network{right}: write 192.0.2.7, 192.0.2.0/24 or "
                "2001:db8::/32."
            )
            continue
        if name in _BELIEVED and network.prefixlen == 0:
            problems.append(f"{name}: {text} is everybody, and whom it names is believed: name your proxies only.")
    return problems


def _size_problems(name: str, value: object) -> list[str]:
    size = _SIZE.fullmatch(str(value))
    # With 0 nginx would take bodies of any size.
    if size and int(size[1]):
        return []
    return [f"{name}: {str(value)[:40]!r} is not a size: write a number above 0, of bytes or of k, m or g, as 1m."]


def _header_problems(var: Mapping[str, Any]) -> list[str]:
    problems = []
    seen: dict[str, str] = {}
    for variable in _HEADERS:
        header = str(var[variable])
        # nginx drops headers with an underscore, and so would what is said here.
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{0,62}", header):
            problems.append(
                f"{variable}: {header[:60]!r} cannot name a header: use letters, digits and hyphens, as Remote-User."
            )
        elif header.lower() in _TAKEN_HEADERS:
            problems.append(f"{variable}: {header} has a meaning of its own in HTTP: name another header.")
        elif header.lower() in seen:
            problems.append(f"{variable}: {header} is {seen[header.lower()]} already: give each a header of its own.")
        seen.setdefault(header.lower(), variable)
    return problems


def _policy_problems(value: object) -> list[str]:
    name, policy = "flower_content_security_policy", str(value)
    if not re.fullmatch(r"[ -~]*", policy):
        return [
            f"{name}: it has line breaks or other characters that no header can hold: write it in one line of ASCII."
        ]
    if re.search(r'["\\$]', policy):
        return [f"{name}: it has \", \\ or $, which no policy needs: write sources as 'self' or https://host."]
    if len(policy) > _POLICY_BYTES:
        return [f"{name}: it is {len(policy)} bytes long and proxies take {_POLICY_BYTES}: shorten it."]
    return []


def edge_problems(variables: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the variables of the front door, as sentences.

    :param variables: the role's variables, the defaults included. Rates, bursts and counts are not looked at
        here: ``variable_problems`` does.
    """
    var = dict(variables)
    problems = [problem for name in _NETWORKS for problem in _network_problems(name, var[name])]
    problems += _size_problems("flower_max_body", var["flower_max_body"]) + _header_problems(var)
    problems += _policy_problems(var["flower_content_security_policy"])
    if is_true(var["flower_proxy_protocol"]) and not _items(var["flower_trusted_proxies"]):
        problems.append(
            "flower_proxy_protocol: nobody is trusted to speak it: name the proxies that do in flower_trusted_proxies."
        )
    if var["flower_auth"] == "header" and var["flower_proxy"] == "nginx" and not _items(var["flower_header_proxies"]):
        problems.append(
            "flower_header_proxies: nobody could sign in, as nginx lets no headers through: name the proxy that signs"
            " people in."
        )
    return problems


def nginx_networks(*values: Any) -> list[str]:
    """Write addresses and networks as nginx's geo wants them: none twice, in a fixed order.

    Raises AnsibleFilterError for what is none; ``edge_problems`` has said so before.
    """
    try:
        networks = {_network(text) for value in values for text in _items(value)}
    except ValueError as error:
        raise AnsibleFilterError(f"nginx_networks: {error}") from None
    return [str(network) for network in sorted(networks, key=lambda one: (one.version, one))]


class FilterModule:
    """Ansible's entry to the filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by their names."""
        return {"edge_problems": edge_problems, "nginx_networks": nginx_networks}
