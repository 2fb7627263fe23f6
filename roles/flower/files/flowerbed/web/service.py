"""The way to a sign-in service and back, once for all of Flower's four.

The exchange of a code for a token is Flower's; the rest is here, because Flower 2.1 checks no `state`, and because
Flower tells people too little of what failed, and too much of how.
"""

from __future__ import annotations

import hmac
import json
import logging
import re
import secrets
from collections.abc import AsyncIterator, Sequence
from functools import lru_cache
from typing import Any

import tornado.auth
import tornado.web
from tornado.httpclient import AsyncHTTPClient, HTTPClientError
from tornado.httputil import url_concat
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from flowerbed.headers import is_name
from flowerbed.identity import Profile
from flowerbed.settings import rules
from flowerbed.web import guard
from flowerbed.web.admission import let_in, refuse, show
from flowerbed.web.login import Page

STATE = "oauth_state"
#: how long a person may take at the service, in days
STATE_DAYS = 15 / 1440
#: seconds that one question to a service may take, and bytes of its answer
TIMEOUT, MAX_ANSWER = 10.0, 2**20
#: pages of a hundred groups that are looked at
MAX_PAGES = 20

logger = logging.getLogger(__name__)


class RefusedError(Exception):
    """The service says who somebody is, and they cannot be let in; the text is for them."""


class UnusableError(ValueError):
    """An answer of a service that says nothing of use; the text, which is for the log, quotes none of it."""


class Service(Page):
    """The way to a service and back: /login sends people there, and they come back to it with a code or an error."""

    #: what people call it, and what is asked of it
    title = ""
    scopes: Sequence[str] = ()
    _OAUTH_SETTINGS_KEY = "oauth"

    async def get(self) -> None:
        """Goes to the service, or comes back: 302 to `next`, 403 for who may not, 502 for a sick service."""
        self.set_header("Cache-Control", "no-store")
        code, error = self._given("code"), self._given("error")
        if self.current_user is not None:
            # a second tab, or a page of the past
            self.redirect(self._take_state() or self.next_page())
        elif not code and not error:
            self.go_there()
        elif (next_page := self._take_state()) is None:
            show(self, 403, "This sign-in was begun in another window or too long ago, or cookies are off.")
        elif error:
            said = error if re.fullmatch(r"[a-z_]{1,40}", error) else "an error"
            refuse(self, 403, f"{self.title} did not sign you in: {said}.", f"{self.title} says {said}")
        else:
            await self._come_back(code, next_page)

    async def _come_back(self, code: str, next_page: str) -> None:
        try:
            profiles = await self.profiles(_token(await self.exchange(code)))
        except RefusedError as refused:
            refuse(self, 403, str(refused), str(refused))
        except (HTTPClientError, OSError, ValueError, RecursionError, tornado.auth.AuthError) as failure:
            reason = _reason(failure)
            logger.warning("Signing in with %s failed: %s", self.title, reason)
            text = f"{self.title} gave no usable answer. Try again in a minute, or tell the operator of this Flower."
            refuse(self, 502, text, f"{self.title}: {reason}")
        else:
            if let_in(self, profiles):
                self.redirect(next_page)

    def go_there(self) -> None:
        """Sends the browser to the service, and remembers in a cookie that it was this browser, and for which page."""
        state, next_page = secrets.token_urlsafe(32), self.next_page()
        value = f"{state} {next_page if len(next_page) <= 512 else self.home()}"
        self.set_secure_cookie(_state_cookie(state), value, expires_days=STATE_DAYS, path=guard.session_path(self))
        self.authorize_redirect(
            redirect_uri=self.sign_in.settings.redirect_uri,
            client_id=self.sign_in.settings.client_id,
            scope=[*self.scopes, *self.scopes_for_groups(self.asked_groups())],
            response_type="code",
            extra_params={"state": state},
        )

    def _take_state(self) -> str | None:
        """The page to go to when this browser began the sign-in; once only."""
        state = self._given("state")
        if not re.fullmatch(r"[\w-]{43}", state, re.ASCII):
            return None
        cookie = _state_cookie(state)
        expected, _, page = (self.get_secure_cookie(cookie, max_age_days=STATE_DAYS) or b"").decode().partition(" ")
        if not hmac.compare_digest(expected.encode(), state.encode()):
            return None
        self.clear_cookie(cookie, path=guard.session_path(self))
        return page

    def _given(self, name: str) -> str:
        # Flower's own get_argument() escapes for HTML
        return tornado.web.RequestHandler.get_query_argument(self, name, "") or ""

    def asked_groups(self) -> list[str]:
        """The groups that any rule names."""
        return list(dict.fromkeys(group for rule in rules(self.sign_in.settings) for group in rule.groups))

    def scopes_for_groups(self, asked: Sequence[str]) -> Sequence[str]:
        """What must be asked of the service besides, to hear of groups."""
        return ()

    async def exchange(self, code: str) -> Any:
        """The service's answer to a code."""
        return await self.get_authenticated_user(redirect_uri=self.sign_in.settings.redirect_uri, code=code)

    async def profiles(self, token: str) -> list[Profile]:
        """Who somebody may be, one profile for each verified address; raises RefusedError."""
        raise NotImplementedError

    def get_auth_http_client(self) -> AsyncHTTPClient:
        """What asks the service."""
        return _client()

    async def ask(self, url: str, token: str) -> Any:
        """The JSON at an address of the service."""
        return json.loads((await self._fetch(url, token)).body)

    async def pages(self, url: str, token: str) -> AsyncIterator[dict[str, Any]]:
        """The objects of a long list, a hundred at a time."""
        for page in range(1, MAX_PAGES + 1):
            response = await self._fetch(url_concat(url, {"per_page": "100", "page": str(page)}), token)
            for item in as_list(json.loads(response.body)):
                yield as_object(item)
            # only whether there is more: an address from outside is not one to send a token to
            if 'rel="next"' not in response.headers.get("Link", ""):
                return
        logger.warning("%s names more groups than the first %d, which were looked at.", self.title, 100 * MAX_PAGES)

    async def _fetch(self, url: str, token: str) -> Any:
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json", "User-Agent": "flowerbed"}
        return await self.get_auth_http_client().fetch(url, headers=headers)


@lru_cache(maxsize=1)
def _client() -> AsyncHTTPClient:
    """One client for all; it follows no redirect, which older Tornados would hand the token to."""
    defaults = {"connect_timeout": TIMEOUT, "request_timeout": TIMEOUT, "follow_redirects": False}
    return SimpleAsyncHTTPClient(force_instance=True, max_clients=20, max_body_size=MAX_ANSWER, defaults=defaults)


def _state_cookie(state: str) -> str:
    """A cookie for each attempt, since a browser may bring back several tabs at once."""
    return f"{STATE}_{state[:8]}"


def _reason(failure: Exception) -> str:
    """What failed, for the log: never an answer's text or an address, which may hold tokens."""
    if isinstance(failure, HTTPClientError):
        return "no answer" if failure.code == 599 else f"HTTP {failure.code}"
    if isinstance(failure, (json.JSONDecodeError, UnicodeError)):
        return "an answer that is no JSON"
    if isinstance(failure, OSError):
        return failure.strerror or type(failure).__name__
    return str(failure) if isinstance(failure, UnusableError) else type(failure).__name__


def _token(answer: Any) -> str:
    """The access token of an answer to a code; GitHub says 200 where it gives none."""
    data = as_object(answer)
    if not isinstance(token := data.get("access_token"), str) or not token:
        error = str(data.get("error", ""))
        raise UnusableError(f"no token ({error if re.fullmatch(r'[a-z_]{1,60}', error) else 'no reason was given'})")
    return token


def as_object(value: Any) -> dict[str, Any]:
    """A JSON object; raises UnusableError for anything else, as the two below do."""
    if not isinstance(value, dict):
        raise UnusableError("an answer that is no JSON object")
    return value


def as_list(value: Any) -> list[Any]:
    """A JSON list."""
    if not isinstance(value, list):
        raise UnusableError("an answer that is no JSON list")
    return value


def text_of(data: dict[str, Any], name: str) -> str:
    """A text in a JSON object, not empty and not endless."""
    value = data.get(name)
    if not isinstance(value, str) or not is_name(value):
        raise UnusableError(f"an answer without {name}")
    return value
