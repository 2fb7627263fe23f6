"""Somebody's name in headers that a proxy sets, such as oauth2-proxy or Authelia.

Believed only on the unix socket: its group holds the proxy's user and nobody else.  The role's nginx takes these
headers away from everybody but the proxies that are named, and a proxy of one's own must do the same.
"""

from __future__ import annotations

import socket
from typing import Any

from flowerbed.auth import profile_person
from flowerbed.identity import Person, Profile
from flowerbed.settings import Settings


def header_person(request: Any, settings: Settings) -> Person | None:
    """The person that the headers name; None without them, not on the socket, or when no rule fits."""
    if not on_unix_socket(request):
        return None
    names = settings.header
    given = [request.headers.get_list(name) for name in (names.user, names.email, names.groups)]
    # twice the same header: one of them is somebody else's
    if any(len(values) > 1 for values in given[:2]) or not given[0] or not (name := given[0][0].strip()):
        return None
    email = given[1][0].strip() if given[1] else name if "@" in name else ""
    groups = (group.strip() for value in given[2] for group in value.split(names.separator))
    return profile_person(settings, Profile(name, email, tuple(group for group in groups if group)), "header")


def on_unix_socket(request: Any) -> bool:
    """Whether the request came over the unix socket."""
    context = getattr(request.connection, "context", None)
    return bool(getattr(context, "address_family", None) == socket.AF_UNIX)
