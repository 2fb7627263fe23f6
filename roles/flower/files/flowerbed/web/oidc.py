"""Signing in and out with OpenID Connect: /login sends people to the provider and takes them when they come back.

A page of ours says what went wrong and waits to be clicked: nothing here redirects by itself after an error, so that
nobody is sent round and round.
"""

from __future__ import annotations

import json
import logging
from typing import Any
from urllib.parse import urlencode

import tornado.web

from flowerbed.oidc import ATTEMPT_SECONDS, DOWN, STALE, Attempt, Client, SignInError
from flowerbed.web import admission, guard
from flowerbed.web.login import Page

CLIENT = "flowerbed_oidc_client"
#: one cookie for each attempt, so that two tabs do not disturb each other
ATTEMPT_COOKIE = "oidc_"
MAX_ATTEMPTS = 20
#: of the page to go on to; a longer one is forgotten
MAX_NEXT = 512
ANSWERS = ("code", "state", "error", "iss")

logger = logging.getLogger(__name__)


def client_of(handler: Any) -> Client:
    """The one client of this Flower."""
    settings = handler.application.settings
    if CLIENT not in settings:
        sign_in = guard.sign_in_of(handler)
        settings[CLIENT] = Client(sign_in.settings, sign_in.credentials)
    client: Client = settings[CLIENT]
    return client


class LoginHandler(Page):
    """GET sends somebody to the provider, or takes them back from there: 302, or a page with 400, 403, 502 or 503."""

    #: the page that the attempt which came back wants to go on to
    onward = ""

    def _request_summary(self) -> str:
        # Tornado logs this; the query may hold a code
        return f"{self.request.method} {self.request.path} ({guard.client_address(self.request)})"

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Tornado would log the whole request."""
        if isinstance(value, tornado.web.HTTPError):
            super().log_exception(typ, value, tb)
        else:
            logger.error("Uncaught exception at %s", self._request_summary(), exc_info=(typ, value, tb))

    async def get(self) -> None:
        """Goes there, or comes back."""
        self.set_header("Cache-Control", "no-store")
        self.set_header("Referrer-Policy", "no-referrer")
        answer = self.answer()
        try:
            if answer:
                await self.come_back(answer)
            elif self.current_user is not None and not self.wants_another():
                self.redirect(self.next_page())
            else:
                await self.leave()
        except SignInError as error:
            self.refused(error)

    def answer(self) -> dict[str, str]:
        """The provider's answer in the query; of a parameter that is there twice nothing."""
        given = {name: self.get_query_arguments(name) for name in ANSWERS}
        return {name: values[0] if len(values) == 1 else "" for name, values in given.items() if values}

    def wants_another(self) -> bool:
        """Whether somebody asks for the provider's form although it knows them."""
        return bool(self.get_query_arguments("another"))

    async def leave(self) -> None:
        """Sends the browser to the provider, with a cookie by which it will be known."""
        next_page = self.next_page()
        attempt = Attempt.begin(next_page if len(next_page) <= MAX_NEXT else self.home())
        place = await client_of(self).authorization_url(attempt, self.wants_another())
        self.keep(attempt)
        self.redirect(place)

    async def come_back(self, answer: dict[str, str]) -> None:
        """Takes the provider's answer and starts a session."""
        client, attempt = client_of(self), self.kept(answer.get("state", ""))
        self.onward = attempt.next_page
        client.use_up(attempt)
        profile = await client.profile(attempt, await client.code_of(answer))
        if admission.let_in(self, [profile], self.links(403)):
            self.redirect(attempt.next_page)

    def refused(self, error: SignInError) -> None:
        """Writes down why nobody was signed in, and shows a page."""
        if error.text == DOWN:
            self.set_header("Retry-After", "30")
        admission.refuse(self, error.status, error.text, error.reason, error.name, self.links(error.status))

    def links(self, status: int) -> list[tuple[str, str]]:
        """Where to go from the page of an error: back to the same page of Flower's, as the same person or another."""
        again = {"next": self.onward or self.next_page()}
        links = [(f"{self.login_path()}?{urlencode(again)}", "Try again")]
        if status == 403:
            links.append((f"{self.login_path()}?{urlencode({**again, 'another': '1'})}", "Sign in as somebody else"))
        return links

    # ---- the cookie of an attempt

    def keep(self, attempt: Attempt) -> None:
        """Sets the attempt's cookie; only /login sees it."""
        begun = [name for name in self.request.cookies if name.startswith(ATTEMPT_COOKIE)]
        if len(begun) >= MAX_ATTEMPTS:
            # all of them: their headers grow, and nginx bounds those
            for name in begun:
                self.clear_cookie(name, path=self.login_path())
        name = ATTEMPT_COOKIE + attempt.state
        value = json.dumps([attempt.seed, attempt.next_page], separators=(",", ":"))
        self.set_secure_cookie(
            name,
            value,
            expires_days=None,
            path=self.login_path(),
            max_age=ATTEMPT_SECONDS,
            httponly=True,
            samesite="Lax",
            secure=self.sign_in.settings.secure_cookies,
        )

    def kept(self, state: str) -> Attempt:
        """The attempt that this browser began with that state; its cookie is taken away."""
        name = ATTEMPT_COOKIE + state
        raw = self.get_secure_cookie(name, max_age_days=ATTEMPT_SECONDS / 86400) if state else None
        if raw is None:
            raise SignInError(400, STALE, "the state is not one that this browser began within ten minutes")
        self.clear_cookie(name, path=self.login_path())
        seed, next_page = json.loads(raw)
        return Attempt(state, seed, next_page)


async def logout_place(page: Page) -> str | None:
    """Where the browser must go to be signed out of the provider too; None where that is not offered or it is down.

    From there it comes back to our /logout with a state, which says that there is nothing more to do.
    """
    back = (page.sign_in.settings.redirect_uri or "").removesuffix("/login") + "/logout"
    try:
        return await client_of(page).logout_url(back, "done")
    except SignInError as error:
        logger.warning("Signed out here, but not at the sign-in service: %s", error.reason)
        return None
