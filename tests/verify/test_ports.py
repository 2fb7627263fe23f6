"""What listens, and for whom."""

from __future__ import annotations

import ipaddress

from tests.hosts import Host


def listeners(host: Host) -> list[tuple[str, int]]:
    """Address and port of each listening TCP and each bound UDP socket."""
    found = []
    for line in host.run("ss", "-Hlntu").splitlines():
        address, port = line.split()[4].rsplit(":", 1)
        address = address.strip("[]").split("%")[0]
        found.append(("0.0.0.0" if address == "*" else address, int(port)))
    return found


def test_only_the_front_door_is_open(host: Host) -> None:
    outside = {port for address, port in listeners(host) if not ipaddress.ip_address(address).is_loopback}
    assert outside == {80, 443}


def test_redis_is_on_loopback(host: Host) -> None:
    addresses = {address for address, port in listeners(host) if port == 6379}
    assert addresses
    assert all(ipaddress.ip_address(address).is_loopback for address in addresses)


def test_flower_has_no_port_of_its_own(host: Host) -> None:
    assert 5555 not in {port for _, port in listeners(host)}
