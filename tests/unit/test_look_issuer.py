"""The look at an OpenID Connect issuer, asked over HTTPS on loopback with a certificate made here."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_look import free_port, look


@dataclass
class Issuer:
    """A server that answers every path with one status and one body."""

    port: int
    ca_bundle: str
    status: int = 200
    body: bytes = b""
    paths: list[str] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"https://localhost:{self.port}"

    def tells(self, document: Any, status: int = 200) -> Issuer:
        self.status, self.body = status, json.dumps(document).encode()
        return self

    def document(self, **changes: Any) -> dict[str, Any]:
        endpoints = {f"{name}_endpoint": f"{self.address}/{name}" for name in ("authorization", "token")}
        return {"issuer": self.address, **endpoints, "jwks_uri": f"{self.address}/keys", **changes}

    def ask(self) -> dict[str, str]:
        answer: dict[str, str] = look.ask_issuer(self.address, self.ca_bundle)
        return answer


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Issuer]:
    folder = tmp_path_factory.mktemp("issuer")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.paths.append(self.path)
            self.send_response(told.status)
            if told.status == 302:
                self.send_header("Location", f"{told.address}/elsewhere")
            self.end_headers()
            self.wfile.write(told.body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    told = Issuer(server.server_address[1], str(certificate))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield told
    server.shutdown()


def test_a_good_issuer(issuer: Issuer) -> None:
    assert issuer.tells(issuer.document()).ask() == {"problem": "", "detail": ""}
    assert issuer.paths[-1] == "/.well-known/openid-configuration"


def test_what_is_wrong_with_the_document(issuer: Issuer) -> None:
    other = issuer.document(issuer="https://other.example.org")
    assert issuer.tells(other).ask() == {"problem": "issuer", "detail": "https://other.example.org"}
    plain = issuer.document(token_endpoint="http://localhost/token")
    assert issuer.tells(plain).ask() == {"problem": "endpoints", "detail": "token_endpoint"}
    assert issuer.tells(["rubbish"]).ask()["problem"] == "rubbish"
    issuer.body = b"<html>"
    assert issuer.ask()["problem"] == "rubbish"
    assert issuer.tells({}, 404).ask() == {"problem": "status", "detail": "404"}


def test_a_redirect_is_not_followed(issuer: Issuer) -> None:
    issuer.paths.clear()
    assert issuer.tells({}, 302).ask() == {"problem": "status", "detail": "302"}
    assert issuer.paths == ["/.well-known/openid-configuration"]


def test_a_certificate_that_is_not_trusted(issuer: Issuer) -> None:
    answer = look.ask_issuer(issuer.address, "")
    assert answer["problem"] == "tls"
    assert "certificate" in answer["detail"]
    assert look.ask_issuer(issuer.address, str(Path(issuer.ca_bundle).parent / "gone.pem"))["problem"] == "ca-bundle"


def test_nobody_there() -> None:
    assert look.ask_issuer(f"https://localhost:{free_port()}", "")["problem"] == "unreachable"
    assert look.ask_issuer("https://issuer.invalid", "")["problem"] in ("unknown-host", "unreachable")


def test_something_that_takes_connections_and_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert look.ask_issuer(f"https://localhost:{port}", "")["problem"] in ("unreachable", "tls")
