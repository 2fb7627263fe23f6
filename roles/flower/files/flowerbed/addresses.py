"""Addresses as they are written and as they are reached; the standard library only, for the doctor."""

from __future__ import annotations

import ipaddress


def bracketed(host: str) -> str:
    """A host's name or address as a URL has it: an IPv6 address stands in brackets (RFC 3986, 3.2.2)."""
    return f"[{host}]" if ":" in host else host


def place(host: str, port: int) -> str:
    """Host and port, as people write them."""
    return f"{bracketed(host)}:{port}"


def reachable(address: str) -> str:
    """Where this host reaches a server that listens at `address`: 0.0.0.0 and :: are every address; a name stays."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.is_unspecified:
        return "::1" if parsed.version == 6 else "127.0.0.1"
    return str(parsed)
