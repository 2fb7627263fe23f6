"""The login page, and signing out."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import tornado.web
from flower.views import BaseHandler

from flowerbed import audit
from flowerbed.auth import COOKIE, DEVICE_DAYS, SignIn, device_cookie, device_cookie_name, user_cookie
from flowerbed.web import guard

TEMPLATES = str(Path(__file__).with_name("templates"))


class Page(BaseHandler):  # type: ignore[misc]
    """What pages of signing in and out share: the way home, the way on, and the session's cookie."""

    @property
    def sign_in(self) -> SignIn:
        """The one sign-in of this Flower."""
        return guard.sign_in_of(self)

    def home(self) -> str:
        """Flower's first page."""
        return guard.session_path(self).rstrip("/") + "/"

    def login_path(self) -> str:
        """The path of the login."""
        return self.home() + "login"

    def next_page(self) -> str:
        """Where to go after signing in: a path of this Flower, never another site or the login itself."""
        target = tornado.web.RequestHandler.get_argument(self, "next", "")
        return target if is_own_path(target) and urlparse(target).path.rstrip("/") != self.login_path() else self.home()


def set_session(handler: Any, value: str) -> None:
    """Sets the session cookie; the browser forgets it when it would no longer be good."""
    settings = guard.sign_in_of(handler).settings
    handler.set_cookie(
        COOKIE,
        value,
        path=guard.session_path(handler),
        max_age=settings.session_seconds,
        httponly=True,
        samesite="Lax",
        secure=settings.secure_cookies,
    )


class LoginHandler(Page):
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
        address = guard.client_address(self.request)
        device = self.get_cookie(device_cookie_name(self.sign_in.credentials, name)) or ""
        answer = await self.sign_in.attempt(name, password, address, device)
        if answer.signed_in:
            set_session(self, user_cookie(self.sign_in.credentials, name))
            self.know_device(name)
            role = next(user.role for user in self.sign_in.credentials.users if user.name == name)
            audit.write("sign-in", user=name, role=role, address=address, via="password")
            self.redirect(self.next_page(), status=303)
        elif answer.status == 401:
            self.show_form(401, "Wrong user name or password.")
        else:
            self.set_header("Retry-After", str(answer.retry_after))
            self.show_form(answer.status, guard.busy_text(answer.status, answer.retry_after))

    def know_device(self, name: str) -> None:
        """Sets the cookie by which this browser is known when somebody guesses at this user; only /login sees it."""
        credentials = self.sign_in.credentials
        self.set_cookie(
            device_cookie_name(credentials, name),
            device_cookie(credentials, name),
            path=self.login_path(),
            max_age=DEVICE_DAYS * 86400,
            httponly=True,
            samesite="Strict",
            secure=self.sign_in.settings.secure_cookies,
        )

    def show_form(self, status: int, error: str = "") -> None:
        """The form, with what went wrong; never with the password."""
        self.set_status(status)
        self.set_header("Cache-Control", "no-store")
        self.set_header("Content-Security-Policy", "frame-ancestors 'none'")
        instance = self.sign_in.settings.instance
        name = self.get_body_argument("username", "") if self.request.method == "POST" else ""
        self.render("login.html", error=error, name=name, next_page=self.next_page(), instance=instance)


class LogoutHandler(Page):
    """Removes the session cookie, and shows Flower's page for it where there is one (2.2), else ours or the login."""

    async def get(self) -> None:
        """Signs out in this browser, and at an OpenID Connect provider that offers it."""
        was_signed_in = self.current_user is not None
        self.clear_cookie(COOKIE, path=guard.session_path(self))
        self.current_user: Any = None
        # the provider sends the browser back here with a state: then it is done
        if self.sign_in.settings.auth == "oidc" and was_signed_in and not self.get_query_arguments("state"):
            # it imports this module, and a library that no other auth needs
            from flowerbed.web import oidc  # noqa: PLC0415

            if place := await oidc.logout_place(self):
                self.redirect(place)
                return
        if self.sign_in.settings.auth == "header":
            # the next request would bring the headers again
            guard.refuse(self, 200, "The proxy before this Flower signs people in and out: sign out there.")
            return
        if Path(self.get_template_path() or "", "logout.html").exists():
            self.render("logout.html")
        elif self.sign_in.settings.auth == "password":
            self.redirect(self.login_path())
        else:
            # a sign-in service may let them in again without a word: that takes a click
            from flowerbed.web import admission  # noqa: PLC0415 - it imports this module

            admission.show(self, 200, "You have signed out of this Flower.")


def is_own_path(target: str) -> bool:
    """Whether a redirect to `target` stays on this host; browsers read \\ as / and drop tabs and line breaks."""
    if not target.startswith("/") or target.startswith(("//", "/\\")):
        return False
    if any(character <= " " or character == "\x7f" for character in target):
        return False
    parsed = urlparse(target)
    return not parsed.scheme and not parsed.netloc
