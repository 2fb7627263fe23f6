"""Puts the add-on into an unmodified Flower, from the last line of its flowerconfig.py.

Flower executes that file before it builds its application, so what is changed here is what it will use.  Whatever
concerns signing in fails hard: Flower does not start.  The rest fails soft, with a warning.
"""

# ruff: noqa: PLC0415  # late imports: Flower and Celery act when imported, and not every command needs them
from __future__ import annotations

import dataclasses
import importlib
import ipaddress
import logging
import secrets
import ssl
import sys
from typing import Any

from flowerbed.settings import PROVIDERS, Credentials, Settings, SettingsError, load, load_credentials

#: exit code for settings that cannot work, EX_CONFIG of sysexits.h: starting again would not help
EXIT_CONFIG = 78
#: Flower's `auth` only has to be set: who is signed in is decided by our get_current_user
AUTH_PATTERN = "flowerbed"
#: what answers /login, by auth
LOGIN_HANDLERS = {
    "password": "flowerbed.web.login.LoginHandler",
    "oidc": "flowerbed.web.oidc.LoginHandler",
    "google": "flowerbed.web.providers.GoogleLoginHandler",
    "github": "flowerbed.web.providers.GithubLoginHandler",
    "gitlab": "flowerbed.web.providers.GitLabLoginHandler",
    "okta": "flowerbed.web.providers.OktaLoginHandler",
    "header": "flowerbed.web.header.LoginHandler",
}
AUTH_OPTIONS = ("auth", "auth_provider", "basic_auth")

logger = logging.getLogger(__name__)
_loaded: tuple[Settings, Credentials] | None = None


def use(settings: Settings, credentials: Credentials) -> None:
    """Hands `install` what was already read."""
    global _loaded  # noqa: PLW0603 - Flower calls install() with nothing but its own globals
    _loaded = (settings, credentials)


def install(config: dict[str, Any]) -> None:
    """Installs the add-on; `config` is the flowerconfig.py's globals(), whose names become Flower's options."""
    try:
        settings, credentials = _loaded or _load()
        check(settings, credentials)
        _install(config, settings, credentials)
    except SettingsError as error:
        print(f"flowerbed: {error}", file=sys.stderr)
        raise SystemExit(EXIT_CONFIG) from None


def _load() -> tuple[Settings, Credentials]:
    settings = load()
    return settings, load_credentials(settings)


def check(settings: Settings, credentials: Credentials) -> None:
    """Raises SettingsError when nobody could sign in."""
    from flowerbed.auth import unreadable_users

    if names := unreadable_users(credentials.users):
        raise SettingsError(f"The password hash of user {names[0]!r} is of no kind that can be read here.")
    if settings.auth == "password" and not credentials.users:
        raise SettingsError('There are no users: add some, or say auth "none" for a Flower that is open to all.')
    if settings.auth in LOGIN_HANDLERS.keys() - {"password"} or settings.auth == "custom":
        _check_service(settings, credentials)


def _check_service(settings: Settings, credentials: Credentials) -> None:
    """What a sign-in service needs, and rules that say who may come in."""
    if not settings.access:
        raise SettingsError(f"access: with auth {settings.auth!r} it must say who may come in, and there is no rule.")
    if settings.auth == "header" and not settings.unix_socket:
        raise SettingsError('unix_socket: auth "header" believes headers on a unix socket only, and there is none.')
    if settings.auth == "custom" and "." not in settings.provider.handler:
        raise SettingsError('provider.handler: auth "custom" needs a dotted path, such as package.module.LoginHandler.')
    if settings.auth in ("header", "custom"):
        return
    if not (settings.client_id and credentials.client_secret and settings.redirect_uri):
        raise SettingsError(
            f"auth {settings.auth!r} needs client_id, redirect_uri, and client_secret in the credentials."
        )
    if settings.auth == "oidc" and settings.oidc.ca_bundle:
        try:
            ssl.create_default_context(cafile=settings.oidc.ca_bundle)
        except OSError:
            raise SettingsError(
                f"oidc.ca_bundle: {settings.oidc.ca_bundle} cannot be read as PEM certificates by this user."
            ) from None
    if settings.auth == "oidc" and not settings.oidc.issuer.startswith("https://"):
        raise SettingsError("oidc.issuer: it must begin with https://, since it says who people are.")
    if settings.auth == "okta" and not settings.provider.okta_base_url.startswith("https://"):
        raise SettingsError(
            "provider.okta_base_url: it must begin with https://, such as https://x.okta.com/oauth2/default."
        )


def _install(config: dict[str, Any], settings: Settings, credentials: Credentials) -> None:
    from flowerbed import broker, notify, reconnect
    from flowerbed.web import redacting

    redacting.redact_flower(settings.redact)
    _secret_options(config, credentials)
    _listen(config, settings)
    broker.configure(celery_app(), credentials.celery)
    _sign_in(config, settings, credentials)
    _history(settings, credentials)
    notify.notify_systemd()
    reconnect.cap_reconnect(settings.broker_reconnect_max_seconds)


def celery_app() -> Any:
    """The Celery application that `celery flower` will hand to Flower: the user's, or Celery's default one."""
    import click
    from celery import current_app

    context = click.get_current_context(silent=True)
    return getattr(getattr(context, "obj", None), "app", None) or current_app._get_current_object()


def _secret_options(config: dict[str, Any], credentials: Credentials) -> None:
    from flowerbed.options import problem, table

    known = table()
    for name, value in credentials.options.items():
        if text := problem(name, value, known):
            raise SettingsError(f"The credentials' options: {text}")
        config[name] = value


def _listen(config: dict[str, Any], settings: Settings) -> None:
    """Socket, address, port and prefix: one place says them, flowerbed.json."""
    values = {
        "unix_socket": settings.unix_socket or "",
        "address": settings.address,
        "port": settings.port,
        "url_prefix": settings.url_prefix.strip("/"),
    }
    for name, value in values.items():
        said = config.get(name)
        if isinstance(said, str) and name == "url_prefix":
            said = said.strip("/")
        if said not in (None, "") and said != value:
            raise SettingsError(f"flowerconfig.py sets {name} otherwise than the settings do; leave it out there.")
        config[name] = value


def _sign_in(config: dict[str, Any], settings: Settings, credentials: Credentials) -> None:
    from flower.urls import settings as application_settings
    from tornado.options import options

    application_settings["xsrf_cookie_kwargs"] = {"samesite": "Lax", "secure": settings.secure_cookies}
    said = [name for name in AUTH_OPTIONS if config.get(name)]
    if settings.auth == "flower":
        if not said and not options.auth and not options.basic_auth:
            raise SettingsError('auth is "flower", but no auth option of Flower\'s own is set: it would be open.')
        if credentials.cookie_secret:
            config["cookie_secret"] = credentials.cookie_secret
        _secure_cookies(settings)
        return
    if said:
        raise SettingsError(f'{said[0]} is set for Flower itself, but that needs auth "flower" in the settings.')
    config.update(auth="", auth_provider=None, basic_auth=[])
    if settings.auth == "none":
        if not settings.unix_socket and not is_loopback(settings.address):
            logger.warning("No sign-in: Flower is open to all who reach %s port %s.", settings.address, settings.port)
        return
    if not credentials.cookie_secret:
        # sessions then end with this process
        credentials = dataclasses.replace(credentials, cookie_secret=secrets.token_urlsafe(48))
    from flowerbed.web import guard

    handler = LOGIN_HANDLERS.get(settings.auth) or settings.provider.handler
    config.update(auth=AUTH_PATTERN, auth_provider=handler, cookie_secret=credentials.cookie_secret)
    _guard(settings, credentials, handler)
    if settings.auth in PROVIDERS:
        from flowerbed.web import providers

        providers.prepare(config, settings, credentials)
    application_settings[guard.LOGIN_CLASS] = imported(handler)


def _history(settings: Settings, credentials: Credentials) -> None:
    """Flower's pages of tasks on the history, where there is a collector that keeps one."""
    url = credentials.history_url or settings.history.url
    if not (settings.collector.enabled and url):
        return
    from flower.urls import handlers
    from flower.urls import settings as application_settings

    try:
        from flowerbed.web import tasks

        tasks.put_in_front(url, settings, handlers, application_settings)
    except (AttributeError, ImportError) as error:
        logger.warning("This Flower's pages cannot show the history: %s.", error)


def imported(path: str) -> Any:
    """The class at a dotted path; whatever its import does wrong is one sentence."""
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except Exception as error:  # noqa: BLE001 - a package of the user's own may raise anything
        raise SettingsError(
            f"{path}, which signs people in, cannot be imported: {type(error).__name__}: {error}."
        ) from None


def _guard(settings: Settings, credentials: Credentials, handler: str) -> None:
    from flower.app import Flower
    from flower.urls import handlers
    from flower.urls import settings as application_settings
    from tornado.web import url

    from flowerbed.auth import SignIn
    from flowerbed.web import guard
    from flowerbed.web.login import LogoutHandler

    try:
        guard.guard_flower()
    except AttributeError as error:
        raise SettingsError(f"This Flower cannot be closed by the add-on: {error}.") from None
    application_settings[guard.SIGN_IN] = SignIn(settings, credentials)
    # before Flower's own, which knows no prefix; with a name of its own, or it would take over Flower's links
    handlers[0:0] = [url(r"/logout", LogoutHandler, name="flowerbed_logout")]
    # Flower before 2.1 binds its port in start()
    binds = "start_http_server" if hasattr(Flower, "start_http_server") else "start"
    flowers_bind = getattr(Flower, binds)

    def bind(app: Any) -> Any:
        # a line after install() in flowerconfig.py may have undone it
        if not (guard.is_guarded() and app.options.auth == AUTH_PATTERN and app.options.auth_provider == handler):
            print("flowerbed: auth was changed after the add-on was installed; Flower is not started.", file=sys.stderr)
            raise SystemExit(EXIT_CONFIG)
        if strangers := guard.unguarded(handlers):
            print(f"flowerbed: nothing guards {strangers[0]}; Flower is not started.", file=sys.stderr)
            raise SystemExit(EXIT_CONFIG)
        return flowers_bind(app)

    setattr(Flower, binds, bind)


def _secure_cookies(settings: Settings) -> None:
    """Makes the cookies of Flower's own sign-in Secure."""
    from flower.views import BaseHandler

    if not settings.secure_cookies:
        return
    flowers_set_cookie = BaseHandler.set_secure_cookie

    def set_secure_cookie(handler: Any, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("secure", True)
        flowers_set_cookie(handler, *args, **kwargs)

    BaseHandler.set_secure_cookie = set_secure_cookie


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
