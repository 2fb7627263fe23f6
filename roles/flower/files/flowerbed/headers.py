"""Somebody's name in headers that a proxy sets, such as oauth2-proxy or Authelia.

Believed only on the unix socket: its group holds the proxy's user and nobody else.  The role's nginx takes these
headers away from everybody but the proxies that are named, and a proxy of one's own must do the same.
"""

from __future__ import annotations

import re
import socket
from typing import Any

from flowerbed.auth import MAX_NAME, profile_person
from flowerbed.identity import Person, Profile
from flowerbed.settings import Settings

#: one @, and nothing with which a list of addresses could pass for one: its last domain would count for all of them
_ADDRESS = re.compile(r"[^@\s,;:<>()\"\\]+@[^@\s,;:<>()\"\\]+")


def header_person(request: Any, settings: Settings) -> Person | None:
    """The person that the headers name; None without them, not on the socket, or when no rule fits."""
    profile = header_profile(request, settings)
    return None if profile is None else profile_person(settings, profile, "header")


def header_profile(request: Any, settings: Settings) -> Profile | None:
    """What the headers say of somebody; None when they are not believed, name nobody or contradict themselves."""
    if not on_unix_socket(request):
        return None
    names = settings.header
    given = [request.headers.get_list(name) if name else [] for name in (names.user, names.email, names.groups)]
    # twice the same header: one of them is somebody else's, groups not excepted
    if any(len(values) > 1 for values in given):
        return None
    name, email, groups = (_text(values[0]) if values else "" for values in given)
    if not is_name(name) or (email and not is_address(email)):
        return None
    parts = (part.strip(" \t") for part in (groups.split(names.separator) if names.separator else [groups]))
    return Profile(name, email, tuple(part for part in parts if part))


def is_name(text: str) -> bool:
    """Whether somebody may be called so: not empty, not endless, and nothing that a reader would not see."""
    return 0 < len(text) <= MAX_NAME and text.isprintable()


def is_address(text: str) -> bool:
    """Whether this is one e-mail address, whose domain a rule may be about."""
    return len(text) <= MAX_NAME and text.isprintable() and _ADDRESS.fullmatch(text) is not None


def on_unix_socket(request: Any) -> bool:
    """Whether the request came over the unix socket."""
    context = getattr(request.connection, "context", None)
    return bool(getattr(context, "address_family", None) == socket.AF_UNIX)


def _text(value: str) -> str:
    """A header as its sender meant it: Tornado reads Latin-1, proxies write UTF-8, old ones Latin-1."""
    try:
        return value.encode("latin-1").decode("utf-8").strip(" \t")
    except UnicodeError:
        return value.strip(" \t")
