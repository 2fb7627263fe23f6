"""Fixtures of the tests that get certificates, in the order of their files."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from cryptography import x509

from tests.certificate.pebble import Pebble
from tests.certificate.testssl import Examination
from tests.hosts import Host, host_names

# Without a scenario there is no host to look at; molecule/shared/verify.yml asserts that there is one.
collect_ignore_glob = [] if host_names() else ["test_*.py"]

ALIAS = "alias.flower.test"
CA_BUNDLE = "/etc/ssl/acme-ca.pem"
FILES = "/etc/flower/main/tls"
SEEN_NAMES = """
import json, sys
names = json.load(sys.stdin)
with open("/etc/hosts") as file:
    kept = [line for line in file if "flower.test" not in line]
with open("/etc/hosts", "w") as file:  # Docker mounts it: it can be written, not replaced
    file.writelines(kept + [f"{address} {name}\\n" for name, address in names.items()])
print("null")
"""


@dataclass(frozen=True)
class Site(Host):
    """The host under test, whose certificate is believed by what the test trusts."""

    roots: list[str] = field(default_factory=list)

    def tls(self) -> ssl.SSLContext:
        """Trusts these roots and nothing else."""
        return ssl.create_default_context(cadata="\n".join(self.roots))

    def served(self) -> x509.Certificate:
        """The certificate that nginx shows, whoever issued it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with (
            socket.create_connection((self.address, 443), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname=self.server_name) as secured,
        ):
            shown = secured.getpeercert(binary_form=True)
        assert shown
        return x509.load_der_x509_certificate(shown)

    def sees(self, names: dict[str, str]) -> None:
        """What the host itself finds under these names."""
        self.python(SEEN_NAMES, names)

    @contextmanager
    def serves_the_same(self) -> Iterator[None]:
        """The certificate after the block is the one of before it, and the login page is there."""
        before = self.served().serial_number
        yield
        assert self.served().serial_number == before
        assert self.get("/login").status == 200


@pytest.fixture(scope="session")
def host() -> Site:
    """The one host of the scenario."""
    (name,) = host_names()
    return Site(name)


@pytest.fixture(scope="session")
def pebble(host: Site) -> Pebble:
    """The authority; the host trusts its server when told, and both find the host under its names."""
    authority = Pebble("flowerbed-certificate-acme")
    authority.start()
    host.run("install", "-m", "0644", "/dev/stdin", CA_BUNDLE, stdin=authority.certificate())
    host.roots.append(authority.root())
    both_see(host, authority, host.server_name, ALIAS)
    return authority


def both_see(host: Site, authority: Pebble, *names: str) -> None:
    """The host and the authority find the host under these names."""
    host.sees(dict.fromkeys(names, host.address))
    for name in names:
        authority.leads(name, host.address)


@pytest.fixture(scope="session")
def examination(host: Site, pebble: Pebble) -> Examination:
    """testssl.sh at work beside the tests, from the moment that one first asks for this."""
    return Examination.begin(pebble, host, host.roots[0])


@pytest.fixture(scope="session")
def letsencrypt(pebble: Pebble) -> dict[str, Any]:
    """The variables of a certificate of this authority."""
    return {
        "flower_tls": "letsencrypt",
        "flower_acme_email": "ops@flower.test",
        "flower_acme_agree_tos": True,
        "flower_acme_directory": pebble.directory(),
        "flower_acme_ca_bundle": CA_BUNDLE,
    }
