"""An imitation of the parts of GitHub, GitLab, Okta and Google that a sign-in uses, over TLS on localhost.

They are foreign companies, so the real ones cannot be asked here.  Paths and answers follow their documentation:

* https://docs.github.com/apps/oauth-apps/building-oauth-apps/authorizing-oauth-apps, and REST /user, /user/emails,
  /user/orgs and /user/teams, below /api/v3 as on an enterprise server
* https://docs.gitlab.com/api/oauth2/, and REST /api/v4/user and /api/v4/groups
* https://developer.okta.com/docs/api/openapi/okta-oauth/, the custom authorization server `default`
* https://developers.google.com/identity/protocols/oauth2/web-server, and userinfo/v2/me
"""

from __future__ import annotations

import http.server
import json
import secrets
import ssl
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from addon_support import certificate

AUTHORIZE = ("/login/oauth/authorize", "/oauth/authorize", "/oauth2/default/v1/authorize", "/o/oauth2/v2/auth")
TOKEN = ("/login/oauth/access_token", "/oauth/token", "/oauth2/default/v1/token", "/oauth2/v4/token")
#: what an answer needs of the token's scopes
NEEDS = {
    "/api/v3/user/emails": "user:email",
    "/api/v3/user/orgs": "read:org",
    "/api/v3/user/teams": "read:org",
    "/api/v4/user": "read_api",
    "/api/v4/groups": "read_api",
    "/oauth2/default/v1/userinfo": "openid",
    "/userinfo/v2/me": "email",
}
#: GitHub's limit of a page
PAGE = 100


@dataclass
class Services:
    """The companies: who is signed in there, what the answers are, and everything secret that was ever given out."""

    directory: Path
    client_id: str = "flower-client"
    client_secret: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    #: path -> the JSON of an answer, or of all pages of it
    answers: dict[str, Any] = field(default_factory=dict)
    #: path -> (status, body) instead, or None: the connection is closed without a word, or "slow"
    failures: dict[str, Any] = field(default_factory=dict)
    #: each authorize request's query, and every path that was asked for
    asked: list[dict[str, str]] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    secret: list[str] = field(default_factory=list)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    tokens: dict[str, set[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.pem = Path(certificate(self.directory, 2))
        self.secret.append(self.client_secret)
        self.over = threading.Event()
        services = self

        class Handler(_Handler):
            company = services

        self.server = _Server(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.pem)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def domain(self) -> str:
        return f"localhost:{self.server.server_address[1]}"

    def close(self) -> None:
        self.over.set()
        self.server.shutdown()
        self.server.server_close()

    def authorize(self, url: str) -> str:
        """What a browser is answered that somebody's Flower has sent to `url`: where it is sent back to.

        A page of the company's own stands between, which the person has said yes on.
        """
        parts = urlsplit(url)
        assert (parts.scheme, parts.path in AUTHORIZE) == ("https", True), url
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self.asked.append(query)
        assert query["response_type"] == "code" and query["client_id"] == self.client_id
        code = secrets.token_urlsafe(16)
        self.codes[code] = query
        self.secret.append(code)
        return query["redirect_uri"] + "?" + urlencode({"code": code, "state": query["state"]})


class _Server(http.server.ThreadingHTTPServer):
    """Threads that end with the test."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A Flower that has stopped waiting has closed the connection."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(http.server.BaseHTTPRequestHandler):
    """One request to a company."""

    company: Services
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        form = {name: values[0] for name, values in parse_qs(self._body()).items()}
        if self.fails():
            return
        wanted = self.company.codes.pop(form.get("code", ""), None)
        fits = (
            self.path in TOKEN
            and wanted is not None
            and form.get("client_id") == self.company.client_id
            and form.get("client_secret") == self.company.client_secret
            and form.get("redirect_uri") == wanted["redirect_uri"]
            and form.get("grant_type") == "authorization_code"
        )
        if not fits or wanted is None:
            # GitHub says 200, the others 400
            self.answer(200 if self.path == TOKEN[0] else 400, {"error": "bad_verification_code"})
            return
        token = secrets.token_urlsafe(24)
        self.company.secret.append(token)
        self.company.tokens[token] = set(wanted["scope"].split())
        self.answer(200, {"access_token": token, "token_type": "bearer", "scope": wanted["scope"]})

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self.company.seen.append(self.path)
        if self.fails():
            return
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        scopes = self.company.tokens.get(token)
        # GitHub takes its older word, too, which Flower uses
        known = ("Bearer", "token") if parts.path.startswith("/api/v3/") else ("Bearer",)
        if scheme not in known or scopes is None:
            self.answer(401, {"message": "Bad credentials"})
        elif parts.path not in self.company.answers:
            self.answer(404, {"message": "Not Found"})
        elif parts.path in NEEDS and NEEDS[parts.path] not in scopes:
            self.answer(403, {"message": "insufficient scope"})
        else:
            self.page(parts.path, self.company.answers[parts.path], query, scopes)

    def page(self, path: str, whole: Any, query: dict[str, str], scopes: set[str]) -> None:
        """An answer, or the page of it that was asked for."""
        if path == "/api/v4/groups":
            level = int(query.get("min_access_level", "0"))
            whole = [{"full_path": name} for name, access in whole.items() if access >= level]
        if path == "/oauth2/default/v1/userinfo" and "groups" not in scopes:
            whole = {name: value for name, value in whole.items() if name != "groups"}
        if not isinstance(whole, list):
            self.answer(200, whole)
            return
        size, number = min(int(query.get("per_page", "30")), PAGE), int(query.get("page", "1"))
        more = len(whole) > number * size
        link = f'<https://evil.test{path}?page={number + 1}>; rel="next"' if more else ""
        self.answer(200, whole[(number - 1) * size : number * size], link)

    def fails(self) -> bool:
        """Does what the test wants instead of answering well."""
        path = urlsplit(self.path).path
        if path not in self.company.failures:
            return False
        failure = self.company.failures[path]
        self.close_connection = True
        if failure == "slow":
            self.company.over.wait(5)
        elif failure is not None:
            status, body = failure
            self.send(status, body)
        return True

    def answer(self, status: int, data: Any, link: str = "") -> None:
        self.send(status, json.dumps(data).encode(), link)

    def send(self, status: int, body: bytes, link: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if 300 <= status < 400:
            self.send_header("Location", f"https://{self.company.domain}/elsewhere")
        if link:
            self.send_header("Link", link)
        self.end_headers()
        self.wfile.write(body)

    def _body(self) -> str:
        return self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Nothing."""
