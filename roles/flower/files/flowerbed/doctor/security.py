"""The check security: what could a passer-by read or use?"""

from __future__ import annotations

import base64
import http.client
import ssl
import time

from flowerbed.doctor.door import Answer, is_loopback
from flowerbed.doctor.examination import CLOSE_API, Examination
from flowerbed.doctor.report import Finding

_CERTIFICATE_DAYS = 14
_USUAL_NAMES = {"admin", "administrator", "flower", "guest", "root", "test", "user"}
_USUAL_PASSWORDS = _USUAL_NAMES | {
    "123456", "12345678", "changeme", "change_me", "default", "letmein", "pass", "passw0rd", "password", "qwerty",
    "secret", "your_password", "your_password_here", "yourpassword",
}  # fmt: skip


class Security(Examination):
    """TLS, headers, cookies, files, and doors that stand open."""

    def check_security(self) -> Finding:
        """What a passer-by could read or use."""
        page = self._anonymous("/")
        problems = self._transport_problems(page) + self._opening_problems(page)
        if self.inside:
            problems += [(text, "") for text in self.inside.file_problems()]
            problems += [(text, "give Flower a user of its own") for text in self.inside.broker().warnings]
        if not problems:
            return Finding("security", "ok", self._security_praise())
        hints = dict.fromkeys(hint for _, hint in problems if hint)
        return self._fail("security", "; ".join(text for text, _ in problems), " ".join(hints))

    def _security_praise(self) -> str:
        if self.door.unix_socket:
            return "credentials and socket are closed to other users"
        if self.door.scheme == "http":
            return "plain HTTP, but on this machine only"
        days = self._days_left()
        return "TLS, headers and API are as they should be" + (
            f"; the certificate lasts {days} days" if days is not None else ""
        )

    @property
    def _public(self) -> bool:
        """Whether others than this machine use this door: by its name when we came in through `connect`."""
        if self.door.unix_socket:
            return False
        return not is_loopback(self.door.host if self.door.connect else self.door.peer or self.door.host)

    def _days_left(self) -> int | None:
        until = self.door.certificate.get("notAfter")
        return int((ssl.cert_time_to_seconds(str(until)) - time.time()) // 86400) if until else None

    def _transport_problems(self, page: Answer) -> list[tuple[str, str]]:
        problems: list[tuple[str, str]] = []
        if self.door.scheme == "http":
            if self._public:
                problems.append(
                    ("plain HTTP: passwords and tasks cross the network readable", "Turn on TLS (flower_tls).")
                )
            else:
                return problems
        if self.door.distrust:
            problems.append(self.door.distrust)
        days = self._days_left()
        if days is not None and days < _CERTIFICATE_DAYS:
            problems.append(
                (f"the TLS certificate expires in {days} days", "Renew it, and see why that did not happen by itself.")
            )
        if missing := missing_headers(page.headers, tls=self.door.scheme == "https"):
            problems.append((f"headers are missing: {', '.join(missing)}", "Set them in the web server."))
        insecure = [text.partition("=")[0] for text in self.door.cookies
                    if text.startswith("user=") and "secure" not in _attributes(text)]  # fmt: skip
        settings = self.inside.settings if self.inside else None
        if self.door.scheme == "https" and (
            insecure or (settings and settings.auth != "none" and not settings.secure_cookies)
        ):
            problems.append(("the session cookie is not marked Secure", "Set secure_cookies."))
        return problems

    def _opening_problems(self, page: Answer) -> list[tuple[str, str]]:
        problems: list[tuple[str, str]] = []
        meant = self.inside is not None and self.inside.settings.auth == "none"
        interface = self._anonymous("/api/tasks?limit=1")
        if interface.status == 200 and not meant:
            problems.append(("the API is open without a login", CLOSE_API))
        elif interface.headers.get("Access-Control-Allow-Origin") == "*" and not meant:
            problems.append(("the API lets every web site read it (CORS *)", CLOSE_API))
        if page.status == 200 and self._public and not meant:
            problems.append(("the pages are open without a login", "Set flower_users."))
        if self._public and not self.door.connect and self._anonymous_metrics():
            problems.append(("/metrics is open to this address", "Narrow flower_metrics_allow to your Prometheus."))
        if self._default_login():
            problems.append(("a default user and password opens the door", "Choose a long random password."))
        return problems

    def _anonymous_metrics(self) -> bool:
        return self._anonymous("/metrics").status == 200

    def _default_login(self) -> bool:
        header = self.door.login.get("Authorization", "")
        if not header or self.refused or self.door.distrust:
            return False
        user, _, password = base64.b64decode(header.removeprefix("Basic ")).decode().partition(":")
        return password.lower() in _USUAL_PASSWORDS or password == "" or (user.lower() == password.lower())


def missing_headers(headers: http.client.HTTPMessage, *, tls: bool) -> list[str]:
    """The security headers that a page should have and does not."""
    policy = headers.get("Content-Security-Policy", "").lower()
    wanted = [
        ("Strict-Transport-Security", not tls or "Strict-Transport-Security" in headers),
        ("X-Content-Type-Options", headers.get("X-Content-Type-Options", "").strip().lower() == "nosniff"),
        ("X-Frame-Options", "X-Frame-Options" in headers or "frame-ancestors" in policy),
        ("Referrer-Policy", "Referrer-Policy" in headers),
    ]
    return [name for name, there in wanted if not there]


def _attributes(cookie: str) -> set[str]:
    return {part.strip().partition("=")[0].lower() for part in cookie.split(";")[1:]}
