"""Flower's contract with a login handler, kept by us: `set_secure_cookie("user", name)` signs somebody in.

So a handler of one's own that was written for Flower works as it is, with our rules, roles and sessions.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import flower.views.auth
import tornado.web
from flower.views import BaseHandler

from flowerbed.auth import COOKIE
from flowerbed.headers import is_address, is_name
from flowerbed.identity import Profile, Rule, texts
from flowerbed.settings import Settings
from flowerbed.web.admission import let_in, refuse

logger = logging.getLogger(__name__)


def use_rules(known: Sequence[Rule]) -> None:
    """Our rules for Flower's matcher, which cannot say two domains, or a list and a domain."""

    def authenticate(_: str, email: str) -> bool:
        return any(rule.may_fit(email, email if is_address(email) else "") for rule in known)

    flower.views.auth.authenticate = authenticate
    try:
        from flower.utils import authentication  # noqa: PLC0415 - Flower 2.1 has it in the module above
    except ImportError:
        return
    authentication.authenticate = authenticate


def use_sessions(settings: Settings) -> None:
    """Our session where a handler sets Flower's cookie `user`; every other signed cookie with our attributes."""

    def replaced(flowers: Any) -> Any:
        def set_cookie(handler: Any, name: str, value: str | bytes, *args: Any, **kwargs: Any) -> None:
            if name == COOKIE:
                start_session(handler, value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value))
                return
            attributes = {"httponly": True, "samesite": "Lax", "secure": settings.secure_cookies}
            flowers(handler, name, value, *args, **{**attributes, **kwargs})

        return set_cookie

    # Tornado's newer name for the same
    for name in ("set_secure_cookie", "set_signed_cookie"):
        if flowers := getattr(BaseHandler, name, None):
            setattr(BaseHandler, name, replaced(flowers))


def tell_no_codes() -> None:
    """Keeps the query of /login, which holds a code of the service's, out of the log."""
    flowers_summary, flowers_log = BaseHandler._request_summary, BaseHandler.log_exception

    def is_login(handler: Any) -> bool:
        return bool(handler.request.path.endswith("/login"))

    def summary(handler: Any) -> str:
        request = handler.request
        return (
            f"{request.method} {request.path} ({request.remote_ip})" if is_login(handler) else flowers_summary(handler)
        )

    def log_exception(handler: Any, kind: Any, value: Any, trace: Any) -> None:
        if is_login(handler) and not isinstance(value, tornado.web.HTTPError):
            # Tornado would write the whole request
            logger.error("Uncaught exception in %s", summary(handler), exc_info=(kind, value, trace))
        else:
            flowers_log(handler, kind, value, trace)

    BaseHandler._request_summary, BaseHandler.log_exception = summary, log_exception


def start_session(handler: Any, name: str) -> None:
    """A session for somebody whom a handler names; raises Finish after a page that says no.

    Groups, where the handler knows any, are what it has put into its attribute `sign_in_groups`.
    """
    groups = texts(getattr(handler, "sign_in_groups", ()))
    profile = Profile(name, name if is_address(name) else "", groups)
    if not is_name(name):
        refuse(handler, 403, "The sign-in gave no name that can be used.", "no usable name")
    elif let_in(handler, [profile]):
        return
    raise tornado.web.Finish
