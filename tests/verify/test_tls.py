"""The front door's transport, seen from outside."""

from __future__ import annotations

import socket
import ssl
import warnings

import pytest

from tests.hosts import Host


def handshake(host: Host, version: ssl.TLSVersion) -> str | None:
    """Shake hands with one version of TLS only; what was agreed on."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")  # so that it is the server that refuses, not our own library
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    with (
        socket.create_connection((host.address, 443), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=host.server_name) as secured,
    ):
        return secured.version()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_new_tls_is_spoken(host: Host, version: ssl.TLSVersion) -> None:
    assert handshake(host, version) == version.name.replace("_", ".")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_tls_is_refused_by_the_server(host: Host, version: ssl.TLSVersion) -> None:
    with pytest.raises(ssl.SSLError, match=r"(?i)alert protocol version"):
        handshake(host, version)


def test_certificate_is_for_the_name(host: Host) -> None:
    """`get` checks the name and the chain: it raises where they do not fit."""
    assert host.get("/login").status == 200


def test_http_goes_to_https(host: Host) -> None:
    answer = host.get_plain("/tasks?limit=1")
    assert answer.status in (301, 308)
    assert answer.headers["Location"] == f"https://{host.server_name}/tasks?limit=1"


@pytest.mark.parametrize("path", ["/login", "/", "/static/favicon.ico", "/no-such-page"])
def test_security_headers(host: Host, path: str) -> None:
    headers = host.get(path).headers
    assert "max-age=31536000" in (headers["Strict-Transport-Security"] or "")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] in ("DENY", "SAMEORIGIN") or "frame-ancestors" in (
        headers["Content-Security-Policy"] or ""
    )
    assert headers["Referrer-Policy"]
    for name in ("Strict-Transport-Security", "X-Content-Type-Options", "X-Frame-Options"):
        assert len(headers.get_all(name) or []) <= 1, f"{name} is sent twice"
    assert "/" not in (headers["Server"] or ""), "the server's version is nobody's business"


def negotiate(host: Host, version: str, *options: str) -> str:
    """What OpenSSL on the host itself says of a handshake; it knows what nginx there could know."""
    return host.shell(
        f"openssl s_client -connect 127.0.0.1:443 -servername {host.server_name} -{version} {' '.join(options)} "
        "</dev/null 2>&1",
        check=False,
    )


def test_http_2_is_spoken(host: Host) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection((host.address, 443), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=host.server_name) as secured,
    ):
        assert secured.selected_alpn_protocol() == "h2"


def test_no_session_tickets(host: Host) -> None:
    said = negotiate(host, "tls1_2")
    assert "Cipher is ECDHE-ECDSA-" in said, said
    assert "TLS session ticket" not in said


# Mozilla's intermediate profile: nothing without forward secrecy, no CBC, no finite-field Diffie-Hellman.
@pytest.mark.parametrize(
    "cipher", ["AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA", "DHE-RSA-AES128-GCM-SHA256", "ARIA128"]
)
def test_weak_ciphers_are_refused(host: Host, cipher: str) -> None:
    said = negotiate(host, "tls1_2", "-cipher", f"{cipher}:@SECLEVEL=0")
    assert "handshake failure" in said or "no cipher match" in said, said


def test_the_best_group_that_the_host_knows_is_taken(host: Host) -> None:
    """Against those who record today and have a quantum computer later: where OpenSSL is 3.5 or newer."""
    version = tuple(map(int, host.shell("openssl version").split()[1].split(".")[:2]))
    said = negotiate(host, "tls1_3")
    assert ("X25519MLKEM768" in said) is (version >= (3, 5)), said
    assert "Server Temp Key: X25519" in said or "Negotiated TLS1.3 group: X25519MLKEM768" in said
