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
