"""The checks ui, auth, tasks and metrics: is it Flower, who is let in, what does it show?"""

from __future__ import annotations

import secrets
from urllib.parse import urlsplit

from flowerbed.doctor.door import METRICS_LIMIT, Answer, UnreachableError, basic
from flowerbed.doctor.examination import CLOSE_API, Examination
from flowerbed.doctor.report import Finding


class Entrance(Examination):
    """The pages, the login, and what is behind it."""

    def check_ui(self) -> Finding:
        """Does a Flower answer there?"""
        answer = self._anonymous("/")
        if self.door.scheme == "http" and answer.status in (301, 302, 307, 308):
            answer = self._upgrade(answer)
        seconds = answer.seconds
        if self.door.login and answer.asks_login:
            answer = self._enter()
        return self._judge_page(answer, seconds)

    def _upgrade(self, answer: Answer) -> Answer:
        """Follows the redirect from http to https of the same host, which any browser would follow."""
        place = urlsplit(answer.headers.get("Location", ""))
        if place.scheme != "https" or place.hostname != self.door.host:
            return answer
        self.door.scheme, self.door.port = "https", place.port or 443
        return self._anonymous("/")

    def _judge_page(self, answer: Answer, seconds: float) -> Finding:
        place = self.door.name
        if answer.status in (502, 503, 504) and not self.door.unix_socket:
            seen = UnreachableError(
                "behind", f"{place} answers {answer.status}: the web server is up, Flower behind it is not", ""
            )
            hint = self.inside.why_down(seen, None) if self.inside else ""
            self.down = seen
            return self._fail(
                "ui", seen.reason, hint or "On its host: systemctl status 'flower@*' and journalctl -u 'flower@*'."
            )
        if answer.status == 404:
            self.down = UnreachableError(
                "notfound", f"{place} is not there (404)", "Check the prefix at the end of the URL."
            )
            return self._fail("ui", self.down.reason, self._holder() or self.down.hint)
        if answer.status >= 500:
            return self._fail("ui", f"{place} answers {answer.status}", "Look at the error in Flower's log.")
        if answer.status in (403, 429):
            what = "too many requests" if answer.status == 429 else "closed to this address"
            return self._fail(
                "ui", f"{place} answers {answer.status} ({what})", "Look at the web server's rules for this address."
            )
        if answer.status == 200 and b"Flower" not in answer.body and b"flower" not in answer.body:
            self.down = UnreachableError("other", f"{place} answers, but it is not Flower", "")
            inside = self.inside.why_down(None, self._local_port()) if self.inside else ""
            return self._fail(
                "ui", self.down.reason, inside or self._holder() or "Check host, port and prefix of the URL."
            )
        if 300 <= answer.status < 400 and not answer.asks_login:
            to = urlsplit(answer.headers.get("Location", ""))
            where = f"{to.scheme}://{to.hostname}{to.path}" if to.hostname else to.path
            return self._fail("ui", f"{place} sends us on to {where}", "Use that address.")
        return Finding("ui", "ok", f"the page answers in {seconds * 1000:.0f} ms")

    def check_auth(self) -> Finding:
        """Are the anonymous and the wrong kept out, and the right let in?"""
        page = self._anonymous("/")
        if page.status == 200:
            return self._open_door()
        if not page.asks_login:
            return self._fail(
                "auth", f"the anonymous get {page.status}, neither a login nor a page", "See the check ui.", 1
            )
        interface = self._anonymous("/api/tasks?limit=1")
        if interface.status == 200:
            return self._fail("auth", "the page asks for a login but /api is open to everybody", CLOSE_API)
        if self.door.distrust:
            return Finding("auth", "skip", "a login is asked for; none is sent over TLS that is not trusted")
        if not self.door.login:
            return self._no_login()
        if refusal := self._wrong_login_refused():
            return refusal
        answer = self._enter()
        if answer.status == 200:
            proof = "a forged session" if "Cookie" in self.door.login else "a wrong password"
            return Finding(
                "auth", "ok", f"the anonymous are sent to the login, {proof} is refused, the right one let in"
            )
        self.refused = True
        return self._not_let_in(answer)

    def _open_door(self) -> Finding:
        if self.inside and self.inside.settings.auth == "none":
            return Finding("auth", "ok", "open to everybody who can reach it, as the settings say (auth: none)")
        return self._fail(
            "auth",
            "Flower is open: everybody who can reach it may see tasks and stop workers",
            "Set flower_users (or FLOWER_BASIC_AUTH=user:password for start-flower.sh) and start it again.",
        )

    def _no_login(self) -> Finding:
        self.refused = True
        if self.inside:
            return Finding(
                "auth", "ok", "the anonymous are sent to the login (a sign-in service, so the doctor has none)"
            )
        return self._fail(
            "auth",
            "Flower asks for a login and the URL holds none",
            "Put user and password before the host, best by standard input.",
        )

    def _wrong_login_refused(self) -> Finding | None:
        """Tries what must not open the door; an unknown name, so that no real user's failed attempts are counted."""
        if cookie := self.door.login.get("Cookie"):
            forged = {"Cookie": cookie[:-1] + ("1" if cookie[-1] == "0" else "0")}
        else:
            forged = basic(f"doctor-{secrets.token_hex(4)}", secrets.token_urlsafe(12))
        answer = self.door.get("/", login=False, headers=forged)
        if answer.status == 200:
            what = "a forged session" if cookie else "an unknown user with a random password"
            return self._fail(
                "auth", f"{what} is let in", "Authentication does not work: close the door until it does."
            )
        return None

    def _not_let_in(self, answer: Answer) -> Finding:
        if answer.status in (429, 503):
            return self._fail(
                "auth",
                f"logins are slowed down just now ({answer.status})",
                "Too many failed attempts: wait some minutes.",
            )
        if "Cookie" in self.door.login:
            return self._fail(
                "auth",
                f"Flower refuses the doctor's own session ({answer.status})",
                "It runs with another cookie secret than the credentials on disk: systemctl restart the unit.",
            )
        if answer.status >= 500:
            return self._fail("auth", f"the login ends in an error ({answer.status})", "Look at Flower's log.")
        return self._fail(
            "auth",
            f"Flower refuses the user {self.door.user!r} with this password ({answer.status})",
            "Correct the name or password; special characters in the URL must be %-quoted (%40 for @).",
        )

    def check_tasks(self) -> Finding:
        """Does the task history answer?"""
        if skip := self._cannot_enter("tasks"):
            return skip
        answer = self.door.get("/api/tasks?limit=1")
        if answer.status == 401 and b"UNAUTHENTICATED_API" in answer.body:
            page = self.door.get("/tasks")
            if page.status == 200:
                return Finding(
                    "tasks", "ok", "the page of tasks answers (Flower closes its API as long as there is no login)"
                )
            answer = page
        tasks = answer.json()
        if answer.status == 200 and isinstance(tasks, dict):
            newest = next(iter(tasks.values()), None)
            if not isinstance(newest, dict):
                return Finding("tasks", "ok", "the task history answers; no task was seen yet")
            return Finding(
                "tasks", "ok", f"the task history answers; newest: {newest.get('name')} {newest.get('state')}"
            )
        if answer.status in (401, 302, 303):
            return self._fail("tasks", "the task history asks for another login", "See the check auth.", 3)
        return self._fail("tasks", f"the task history answers {answer.status}", "Look at the error in Flower's log.")

    def check_metrics(self) -> Finding:
        """Are Flower's numbers there, or closed to us on purpose?"""
        answer = self._anonymous("/metrics")
        if answer.asks_login and self.door.login:
            answer = self.door.get("/metrics", limit=METRICS_LIMIT)
        if answer.status == 200:
            return self._judge_metrics(answer, "")
        if answer.asks_login:
            return Finding("metrics", "skip", "/metrics asks for a login")
        if answer.status in (403, 404):
            if self.direct and self.direct is not self.door:
                return self._judge_metrics(
                    self.direct.get("/metrics", limit=METRICS_LIMIT), "; closed at the front door"
                )
            return Finding("metrics", "ok", f"closed to this address ({answer.status})")
        return self._fail("metrics", f"/metrics answers {answer.status}", "Look at the error in Flower's log.")

    def _judge_metrics(self, answer: Answer, also: str) -> Finding:
        if answer.status == 200 and b"flower_" in answer.body:
            return Finding("metrics", "ok", f"/metrics has Flower's numbers{also}")
        return self._fail(
            "metrics",
            f"/metrics answers {answer.status} without any flower_ number{also}",
            "Is another program behind this URL?",
        )
