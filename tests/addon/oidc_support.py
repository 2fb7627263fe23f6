"""What the tests of OpenID Connect share: a provider, a browser without a screen, and the audit log."""

from __future__ import annotations

import html
import http.cookiejar
import json
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit

from addon_support import certificate, free_port, wait_for

from tests.idp.provider import IdentityProvider


def new_provider(
    directory: Path, clients: list[dict[str, Any]], accounts: dict[str, dict[str, Any]]
) -> IdentityProvider:
    """The certified provider of tests/idp on loopback, with a certificate of its own in `directory`."""
    pem = Path(certificate(directory, 2))
    return IdentityProvider(
        issuer=f"https://localhost:{free_port()}", certificate=pem, key=pem, clients=clients, accounts=accounts
    )


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


@dataclass
class Page:
    url: str
    status: int
    headers: Message
    text: str

    @property
    def message(self) -> str:
        """The sentence of a page of ours."""
        found = re.search(r'id="message"[^>]*>([^<]*)<', self.text)
        return html.unescape(found[1]) if found else ""

    def links(self) -> list[str]:
        return [html.unescape(place) for place in re.findall(r'<a class="btn[^>]* href="([^"]+)"', self.text)]


@dataclass
class Browser:
    """Keeps cookies, follows redirects one by one, and fills in forms."""

    certificate: Path
    jar: http.cookiejar.CookieJar = field(default_factory=http.cookiejar.CookieJar)
    hops: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        context = ssl.create_default_context(cafile=self.certificate)
        self._opener = urllib.request.build_opener(
            urllib.request.HTTPCookieProcessor(self.jar),
            urllib.request.HTTPSHandler(context=context),
            _NoRedirects(),
        )

    def step(self, url: str, form: dict[str, str] | None = None) -> Page:
        """One request, without following a redirect."""
        data = urlencode(form).encode() if form is not None else None
        request = urllib.request.Request(url, data, {"Accept": "text/html", "Sec-Fetch-Mode": "navigate"})
        self.hops.append(url)
        try:
            with self._opener.open(request, timeout=20) as answer:
                return Page(url, answer.status, answer.headers, answer.read().decode("utf-8", "replace"))
        except urllib.error.HTTPError as error:
            with error:
                return Page(url, error.code, error.headers, error.read().decode("utf-8", "replace"))

    def go(self, url: str, form: dict[str, str] | None = None, until: Callable[[str], bool] | None = None) -> Page:
        """A request and all redirects after it; with `until`, not to the first place for which it is true."""
        page = self.step(url, form)
        for _ in range(12):
            if not 300 <= page.status < 400:
                return page
            place = urljoin(page.url, page.headers["Location"])
            if until and until(place):
                return Page(place, page.status, page.headers, page.text)
            page = self.step(place)
        raise AssertionError(f"sent round and round: {[hop.split('?')[0] for hop in self.hops[-12:]]}")

    def sign_in(self, url: str, login: str) -> Page:
        """Opens a page of Flower's, and signs in at the provider when that asks."""
        return self.answer_provider(self.go(url), {"login": login})

    def answer_provider(self, page: Page, form: dict[str, str], until: Callable[[str], bool] | None = None) -> Page:
        """Fills in the provider's form, where it is shown."""
        if "Sign in to the provider" not in page.text:
            return page
        page = self.go(page.url, form, until)
        # whoever was signed in there is signed out first, by a form that a browser's script sends by itself
        action = re.search(r'<form method="post" action="([^"]+)"', page.text)
        if action and "submit()" in page.text:
            hidden = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', page.text))
            page = self.go(html.unescape(action[1]), hidden, until)
        return page

    def cookie(self, name: str) -> str | None:
        return next((cookie.value for cookie in self.jar if cookie.name == name), None)


def query(url: str) -> dict[str, str]:
    """The parameters of a URL, each once."""
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


def audit_lines(log: str) -> list[dict[str, Any]]:
    """The audit log's entries."""
    return [json.loads(line.partition("audit ")[2]) for line in log.splitlines() if line.startswith("<5>audit ")]


def new_audit_line(read: Callable[[], str], before: int, event: str) -> dict[str, Any]:
    """The entry of that kind that came after `before` others."""

    def newest() -> dict[str, Any] | None:
        lines = [line for line in audit_lines(read())[before:] if line["event"] == event]
        return lines[-1] if lines else None

    line: dict[str, Any] = wait_for(newest, f"an audit line {event!r}", 5)
    return line
