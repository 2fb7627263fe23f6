"""The login page, and signing out."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import tornado.web
from flower.views import BaseHandler

from flowerbed.auth import COOKIE, SignIn, user_cookie
from flowerbed.web import guard

TEMPLATES = str(Path(__file__).with_name("templates"))


class _Page(BaseHandler):  # type: ignore[misc]
    """What both pages share: the way home."""

    @property
    def sign_in(self) -> SignIn:
        """The one sign-in of this Flower."""
        return guard.sign_in_of(self)

    def home(self) -> str:
        """Flower's first page."""
        return guard.session_path(self).rstrip("/") + "/"


class LoginHandler(_Page):
    """GET shows the form, POST signs in: 302 to `next`, or the form again with 401, 403, 429 or 503."""

    def get_template_path(self) -> str:
        """Our own folder."""
        return TEMPLATES

    def check_xsrf_cookie(self) -> None:
        """Nothing: checked in post(), which can show the form again instead of an error page."""

    def get(self) -> None:
        """Shows the form, or goes on when signed in already."""
        if self.current_user is not None:
            self.redirect(self.next_page())
        else:
            self.show_form(200)

    async def post(self) -> None:
        """Takes the form."""
        if guard.is_cross_site(self.request):
            self.show_form(403, "This form was sent by another site.")
            return
        try:
            guard.raw_xsrf_check(self)
        except tornado.web.HTTPError:
            self.show_form(403, "This page was out of date, or cookies are off. Please sign in again.")
            return
        name = self.get_body_argument("username", "", strip=True)
        # a password is taken as it was typed
        password = self.get_body_argument("password", "", strip=False)
        answer = await self.sign_in.attempt(name, password, guard.client_address(self.request))
        if answer.signed_in:
            self.start_session(name)
            self.redirect(self.next_page(), status=303)
        elif answer.status == 401:
            self.show_form(401, "Wrong user name or password.")
        else:
            self.set_header("Retry-After", str(answer.retry_after))
            self.show_form(answer.status, guard.busy_text(answer.status, answer.retry_after))

    def start_session(self, name: str) -> None:
        """Sets the session cookie; the browser forgets it when it would no longer be good."""
        settings = self.sign_in.settings
        self.set_cookie(
            COOKIE,
            user_cookie(self.sign_in.credentials, name),
            path=guard.session_path(self),
            max_age=settings.session_seconds,
            httponly=True,
            samesite="Lax",
            secure=settings.secure_cookies,
        )

    def show_form(self, status: int, error: str = "") -> None:
        """The form, with what went wrong; never with the password."""
        self.set_status(status)
        self.set_header("Cache-Control", "no-store")
        self.set_header("Content-Security-Policy", "frame-ancestors 'none'")
        instance = self.sign_in.settings.instance
        name = self.get_body_argument("username", "") if self.request.method == "POST" else ""
        self.render("login.html", error=error, name=name, next_page=self.next_page(), instance=instance)

    def next_page(self) -> str:
        """Where to go after signing in: a path of this Flower, never another site or the login itself."""
        target = tornado.web.RequestHandler.get_argument(self, "next", "")
        return target if is_own_path(target) and urlparse(target).path.rstrip("/") != self.login_path() else self.home()

    def login_path(self) -> str:
        """The path of this page."""
        return self.home() + "login"


class LogoutHandler(_Page):
    """Removes the session cookie, and shows Flower's page for it where there is one (2.2), else the login."""

    def get(self) -> None:
        """Signs out in this browser."""
        self.clear_cookie(COOKIE, path=guard.session_path(self))
        self.current_user: Any = None
        if Path(self.get_template_path() or "", "logout.html").exists():
            self.render("logout.html")
        else:
            self.redirect(self.home() + "login")


def is_own_path(target: str) -> bool:
    """Whether a redirect to `target` stays on this host; browsers read \\ as / and drop tabs and line breaks."""
    if not target.startswith("/") or target.startswith(("//", "/\\")):
        return False
    if any(character <= " " or character == "\x7f" for character in target):
        return False
    parsed = urlparse(target)
    return not parsed.scheme and not parsed.netloc
