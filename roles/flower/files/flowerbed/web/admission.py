"""Letting people of a sign-in service in, or saying no: a session or a page of one sentence, and a line of audit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tornado.template import Loader

from flowerbed import audit
from flowerbed.auth import profile_cookie, profile_person
from flowerbed.identity import OPERATOR, Profile
from flowerbed.web import guard
from flowerbed.web.login import TEMPLATES, set_session

#: browsers drop a longer cookie without a word (RFC 6265, 6.1: 4096 bytes with its name and attributes)
MAX_COOKIE = 3800


#: places to go from a page, with what their buttons say
Links = Sequence[tuple[str, str]]


def let_in(handler: Any, profiles: Sequence[Profile], links: Links = ()) -> bool:
    """Starts a session for the first of somebody's profiles with their highest role, or says no; whether it began."""
    sign_in, address = guard.sign_in_of(handler), guard.client_address(handler.request)
    settings = sign_in.settings
    found = [(person, profile) for profile in profiles if (person := profile_person(settings, profile)) is not None]
    if not found:
        name = profiles[0].name
        text = f"{name} may not use this Flower. Ask its operator for access, or sign in with another account."
        refuse(handler, 403, text, "no rule of access fits", name, links)
        return False
    person, profile = max(found, key=lambda pair: pair[0].role == OPERATOR)
    value = profile_cookie(settings, sign_in.credentials, profile)
    if len(value) > MAX_COOKIE:
        text = f"{person} is in too many groups that the rules of this Flower name. Its operator must name fewer."
        refuse(handler, 403, text, "too many groups for a cookie", str(person), links)
        return False
    set_session(handler, value)
    email = profile.email if profile.email != person else None
    audit.write("sign-in", user=str(person), email=email, role=person.role, address=address, via=settings.auth)
    return True


def refuse(handler: Any, status: int, text: str, reason: str, user: str | None = None, links: Links = ()) -> None:
    """Answers with a page of one sentence, and writes down why."""
    address, via = guard.client_address(handler.request), guard.sign_in_of(handler).settings.auth
    audit.write("sign-in refused", user=user, reason=reason, address=address, via=via)
    show(handler, status, text, links)


def show(handler: Any, status: int, text: str, links: Links = ()) -> None:
    """A page of one sentence, with links, else with a way to try again."""
    again = guard.session_path(handler).rstrip("/") + "/login"
    handler.set_status(status)
    handler.set_header("Cache-Control", "no-store")
    handler.set_header("Content-Security-Policy", "frame-ancestors 'none'")
    # the address of this page may hold a code
    handler.set_header("Referrer-Policy", "no-referrer")
    # not render(): a handler of one's own has templates of its own
    page = Loader(TEMPLATES).load("message.html")
    instance = guard.sign_in_of(handler).settings.instance
    told = {"title": "Not signed in", "text": text, "links": links or [(again, "Sign in again")], "instance": instance}
    handler.finish(page.generate(**handler.get_template_namespace(), **told))
