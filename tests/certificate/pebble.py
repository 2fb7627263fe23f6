"""An authority for the tests: pebble, the ACME server that Let's Encrypt tests with, validating for real.

It asks pebble-challtestsrv for addresses, which answers what a test tells it to. Its names and keys end with it.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509

from tests.hosts import Host, wait_for

KEY_ID = "flowerbed"
# Ports: what certbot is told, and pebble's own management.
PORT, BOUND_PORT = 14000, 14001
MANAGEMENT, BOUND_MANAGEMENT = 15000, 15001

POST = """
import json, sys, urllib.request
path, body = json.load(sys.stdin)
request = urllib.request.Request("http://127.0.0.1:8055/" + path, json.dumps(body).encode())
print(urllib.request.urlopen(request, timeout=10).status)
"""
GET = """
import json, ssl, sys, urllib.request
unchecked = ssl._create_unverified_context()
print(json.dumps(urllib.request.urlopen(json.load(sys.stdin), context=unchecked, timeout=10).read().decode()))
"""


@dataclass(frozen=True)
class Pebble(Host):
    """The host of the authority."""

    hmac_key: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)

    def start(self) -> None:
        """Start the DNS, the authority, the same for bound accounts only, and the door before the first."""
        certificate = [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "7",
            "-subj", f"/CN={self.name}", "-addext", f"subjectAltName=DNS:{self.name}",
            "-keyout", "/etc/pebble/key.pem", "-out", "/etc/pebble/certificate.pem",
        ]  # fmt: skip
        self.run("systemctl", "stop", "names", "pebble", "bound", "door.socket", "door", check=False)
        self.run("mkdir", "-p", "/etc/pebble")
        self.run(*certificate)
        self._unit("names", "pebble-challtestsrv", "-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "",
                   "-dns01", "127.0.0.1:8053", "-management", "127.0.0.1:8055")  # fmt: skip
        wait_for("the DNS answers", lambda: self.tell("set-default-ipv6", {"ip": ""}), seconds=20, every=0.2)
        self.tell("set-default-ipv4", {"ip": ""})
        self._pebble("pebble", f"127.0.0.1:{PORT + 100}", MANAGEMENT, {})
        bound = {"externalAccountBindingRequired": True, "externalAccountMACKeys": {KEY_ID: self.hmac_key}}
        self._pebble("bound", f"0.0.0.0:{BOUND_PORT}", BOUND_MANAGEMENT, bound)
        for port in (PORT + 100, BOUND_PORT, MANAGEMENT, BOUND_MANAGEMENT):
            self.wait_for_port(port)
        self.up()

    def _pebble(self, unit: str, listen: str, management: int, more: dict[str, Any]) -> None:
        config = {
            "listenAddress": listen, "managementListenAddress": f"127.0.0.1:{management}",
            "certificate": "/etc/pebble/certificate.pem", "privateKey": "/etc/pebble/key.pem",
            "httpPort": 80, "tlsPort": 443, "ocspResponderURL": "", "certificateValidityPeriod": 90 * 86400, **more,
        }  # fmt: skip
        self.run(
            "install", "-m", "0600", "/dev/stdin", f"/etc/pebble/{unit}.json", stdin=json.dumps({"pebble": config})
        )
        self._unit(unit, "pebble", "-config", f"/etc/pebble/{unit}.json", "-dnsserver", "127.0.0.1:8053")

    def _unit(self, unit: str, *command: str) -> None:
        # Each order is validated, none on the word of an earlier one, and none is refused by chance or made to wait.
        settings = ("PEBBLE_VA_NOSLEEP=1", "PEBBLE_AUTHZREUSE=0", "PEBBLE_WFE_NONCEREJECT=0")
        options = [f"--setenv={setting}" for setting in settings]
        self.run("systemd-run", "--quiet", f"--unit={unit}", *options, *command)

    def wait_for_port(self, port: int) -> None:
        """Wait until something listens there."""
        wait_for(f"port {port}", lambda: self.run("ss", "-Hltn", f"sport = :{port}"), seconds=20, every=0.2)

    def up(self) -> None:
        """Open the door to the authority, which keeps its accounts only while it runs."""
        proxy = ("/usr/lib/systemd/systemd-socket-proxyd", f"127.0.0.1:{PORT + 100}")
        self.run("systemd-run", "--quiet", "--unit=door", f"--socket-property=ListenStream={PORT}", *proxy)
        self.wait_for_port(PORT)

    def down(self) -> None:
        """Nobody answers at the authority's address."""
        self.run("systemctl", "stop", "door.socket", "door.service")

    def tell(self, path: str, body: dict[str, Any]) -> bool:
        """Tell the DNS something; see pebble-challtestsrv's management interface."""
        return bool(self.python(POST, [path, body]) == 200)

    def leads(self, name: str, address: str) -> None:
        """From now on the authority finds this address under the name; none with an empty one."""
        self.tell("clear-a", {"host": name})
        if address:
            self.tell("add-a", {"host": name, "addresses": [address]})

    def directory(self, port: int = PORT) -> str:
        """What flower_acme_directory is set to."""
        return f"https://{self.name}:{port}/dir"

    def certificate(self) -> str:
        """What the ACME server itself shows, as PEM."""
        return self.run("cat", "/etc/pebble/certificate.pem")

    def root(self, management: int = MANAGEMENT) -> str:
        """The root of the certificates that it issues, as PEM."""
        return str(self.python(GET, f"https://127.0.0.1:{management}/roots/0"))


def names_in(certificate: x509.Certificate) -> set[str]:
    """The host names that a certificate is for."""
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return set(extension.value.get_values_for_type(x509.DNSName))
