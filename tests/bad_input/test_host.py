"""A host on which it cannot work is refused in one sentence, and is as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.bad_input.conftest import Attempt, Untouched
from tests.hosts import Host, server_name, wait_for
from tests.plays import Play


def refused(play: Play, *says: str) -> None:
    """One sentence that holds these words, and no change."""
    assert len(play.message.splitlines()) == 1, play.message
    assert [word for word in says if word not in play.message] == [], play.message
    assert play.recap["changed"] == 0


@contextmanager
def busy_port(host: Host, port: int) -> Iterator[None]:
    """Somebody else listens there."""
    unit = f"somebody-else-{port}"
    host.run("systemd-run", "--quiet", f"--unit={unit}", "/usr/bin/python3", "-m", "http.server", str(port))
    try:
        wait_for("the port is taken", lambda: host.run("ss", "-Hltn", f"sport = :{port}"), seconds=20, every=0.2)
        yield
    finally:
        host.run("systemctl", "stop", unit)


@pytest.mark.parametrize(
    ("port", "variable"), [(443, "flower_https_port"), (80, "flower_http_port"), (8000, "flower_metrics_port")]
)
def test_port_in_use_by_somebody_else(
    host: Host, attempt: Attempt, untouched: Untouched, port: int, variable: str
) -> None:
    with busy_port(host, port), untouched():
        play = attempt({})
    refused(play, variable, f"port {port}", "python3")


@contextmanager
def covered(host: Host, path: str, text: str) -> Iterator[None]:
    """Another file lies over this one."""
    host.run("install", "-m", "0644", "/dev/stdin", "/tmp/cover", stdin=text)
    host.run("mount", "--bind", "/tmp/cover", path)
    try:
        yield
    finally:
        host.run("umount", path)


@pytest.mark.parametrize(
    ("release", "name"),
    [
        ('ID=fedora\nVERSION_ID=42\nPRETTY_NAME="Fedora Linux 42"\n', "Fedora Linux 42"),
        ('ID=debian\nVERSION_ID="11"\nPRETTY_NAME="Debian GNU/Linux 11 (bullseye)"\n', "Debian GNU/Linux 11"),
    ],
)
def test_unsupported_system(host: Host, attempt: Attempt, untouched: Untouched, release: str, name: str) -> None:
    with covered(host, "/etc/os-release", release), untouched():
        play = attempt({})
    refused(play, name, "Debian 12 or 13")


@contextmanager
def small_disk(host: Host, size: str) -> Iterator[None]:
    """/opt/flower is a disk of its own, of this size."""
    host.run("mkdir", "/opt/flower")
    host.run("mount", "-t", "tmpfs", "-o", f"size={size},mode=0755", "tmpfs", "/opt/flower")
    try:
        yield
    finally:
        host.run("umount", "/opt/flower")
        host.run("rmdir", "/opt/flower")


def test_disk_that_is_too_small(host: Host, attempt: Attempt, untouched: Untouched) -> None:
    with small_disk(host, "100m"), untouched():
        play = attempt({})
    refused(play, "/opt/flower", "250 MB", "make room")


def private_key(key: ec.EllipticCurvePrivateKey) -> str:
    """A key as PEM."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def certificate(key: ec.EllipticCurvePrivateKey, name: str) -> str:
    """A self-signed certificate of this key for this name, as PEM."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.PEM)
        .decode()
    )


@pytest.mark.parametrize("given_as", ["text", "paths"])
def test_provided_certificate_whose_key_does_not_fit(
    host: Host, attempt: Attempt, untouched: Untouched, given_as: str
) -> None:
    ours, other = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    pems = {"certificate": certificate(ours, server_name()), "private_key": private_key(other)}
    variables = {"flower_tls": "provided", **{f"flower_tls_{part}": pem for part, pem in pems.items()}}
    if given_as == "paths":
        for part, pem in pems.items():
            host.run("install", "-m", "0600", "/dev/stdin", f"/root/{part}.pem", stdin=pem)
            variables[f"flower_tls_{part}"] = f"/root/{part}.pem"
    with untouched():
        play = attempt(variables, hidden={"private key": pems["private_key"].splitlines()[1]})
    refused(play, "flower_tls_private_key", "does not belong to flower_tls_certificate")
    host.run("rm", "-f", *(f"/root/{part}.pem" for part in pems))
