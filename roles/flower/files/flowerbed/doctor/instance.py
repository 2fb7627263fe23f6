"""From the settings and credentials of an instance to what the doctor needs of them."""

from __future__ import annotations

import importlib
import os

from flowerbed.doctor.door import Door, UsageError, basic, door_of
from flowerbed.doctor.inside import Inside
from flowerbed.doctor.masking import Masker, secret_texts


class InstanceError(Exception):
    """Settings or credentials of the instance cannot be used: one sentence without any secret, and what to do."""

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(f"{reason} {hint}".rstrip())
        self.reason, self.hint = reason, hint


def inside_of(path: str | None, mask: Masker) -> Inside:
    """Settings and credentials of an instance; raises InstanceError when they cannot be read."""
    try:
        settings_module = importlib.import_module("flowerbed.settings")
        # its libraries are in Flower's release, and sessions need them
        importlib.import_module("flowerbed.auth")
    except ImportError:
        raise UsageError(
            "Without a URL the doctor must run as `python -m flowerbed doctor`, from Flower's release."
        ) from None
    try:
        settings = settings_module.load(path)
        credentials = settings_module.load_credentials(settings)
    except settings_module.SettingsError as error:
        raise InstanceError(str(error), "" if os.geteuid() == 0 else "Run the doctor as root.") from None
    mask.add(credentials.cookie_secret, credentials.client_secret, *(user.hash for user in credentials.users))
    mask.add(*secret_texts(credentials.celery), *secret_texts(credentials.options))
    from_file = path is not None or bool(os.environ.get("FLOWERBED_SETTINGS"))
    return Inside(settings, credentials, from_file, mask)


def doors(inside: Inside, past_front: bool) -> tuple[Door, Door]:
    """The front door as users have it, and Flower itself; both the same without a front door or past it."""
    settings = inside.settings
    prefix = "/" + settings.url_prefix.strip("/") if settings.url_prefix.strip("/") else ""
    everywhere = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # compared, not bound
    address = everywhere.get(settings.address, settings.address)
    direct = Door("http", "localhost" if settings.unix_socket else address, settings.port, prefix)
    direct.unix_socket = settings.unix_socket
    front = direct
    if settings.url and not past_front:
        try:
            front = door_of(settings.url, inside.mask)
        except UsageError as error:
            raise InstanceError(f"The url in the settings cannot be used. {error}") from None
        front.prefix = front.prefix or prefix
        front.cafile = settings.tls_certificate
        if settings.connect:
            host, _, port = settings.connect.rpartition(":")
            if not port.isdecimal():
                raise InstanceError("The connect in the settings must look like host:port.")
            front.connect = (host.strip("[]") or "127.0.0.1", int(port))
    # "flower" leaves sign-in to Flower's own options, which know no session of ours
    if settings.auth not in ("none", "flower"):
        for door in (front, direct):
            door.user, door.login = _session(inside)
    return front, direct


def _session(inside: Inside) -> tuple[str, dict[str, str]]:
    """A session made with the cookie secret; on a laptop, which has none, the first of FLOWER_BASIC_AUTH."""
    auth, module = importlib.import_module("flowerbed.auth"), importlib.import_module("flowerbed.settings")
    if inside.credentials.cookie_secret is None:
        if not (pairs := module.basic_auth_pairs(os.environ.get("FLOWER_BASIC_AUTH") or "")):
            raise InstanceError("The credentials hold no cookie_secret, so the doctor cannot make itself a session.")
        user, password = pairs[0]
        login = basic(user, password)
        inside.mask.add(password, login["Authorization"].removeprefix("Basic "))
        return user, login
    cookie = auth.session_cookie(inside.settings, inside.credentials)
    inside.mask.add(cookie)
    return "doctor", {"Cookie": f"{auth.COOKIE}={cookie}"}
