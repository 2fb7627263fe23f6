"""One reading of the settings and credentials, for every process of the add-on.

Two files: `flowerbed.json` (no secrets, readable to all) and `flower.json` (all secrets, root only, handed over by
systemd's LoadCredential=).  Without a settings file everything comes from the environment, for a laptop.

A `SettingsError` is one clear sentence that names the file or variable and never holds a secret.
"""

# ruff: noqa: PLC0415  # late imports: Flower and Celery act when imported, and not every command needs them
from __future__ import annotations

import json
import os
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from flowerbed.identity import OPERATOR, ROLES, Rule

_Section = TypeVar("_Section")
SETTINGS_VARIABLE = "FLOWERBED_SETTINGS"
CREDENTIALS_FILE = "flower.json"
#: Flower's own sign-in services, and a class of the user's own
PROVIDERS = ("google", "github", "gitlab", "okta", "custom")
AUTH_CHOICES = ("password", *PROVIDERS, "oidc", "header", "none", "flower")
_CREDENTIAL_KEYS = ("cookie_secret", "users", "client_secret", "history_url", "celery", "options")
_CELERY_KEYS = ("broker_url", "result_backend", "broker_transport_options", "broker_use_ssl")


class SettingsError(ValueError):
    """Settings or credentials cannot be used; the text is one sentence without any secret."""


@dataclass(frozen=True)
class User:
    """A person who may sign in; `hash` is a password hash of passlib's."""

    name: str
    hash: str = field(repr=False)
    role: str = OPERATOR


@dataclass(frozen=True)
class Oidc:
    """An OpenID Connect provider; claims are those of the ID token, else of the userinfo endpoint."""

    issuer: str = ""
    scopes: list[str] = field(default_factory=lambda: ["openid", "profile", "email"])
    username_claim: str = "email"
    groups_claim: str = "groups"
    #: refuse an address that the provider does not call verified
    require_verified_email: bool = True
    #: PEM file of the authorities to trust for the provider, beside nothing else; None means the system's
    ca_bundle: str | None = None
    #: sign out at the provider too, where it offers that
    logout: bool = True


@dataclass(frozen=True)
class Provider:
    """What Flower's own sign-in services read beside key and secret; Flower takes these from the environment."""

    #: dotted path of the handler, for auth "custom"
    handler: str = ""
    github_domain: str = "github.com"
    gitlab_domain: str = "gitlab.com"
    #: least access level in a GitLab group for it to count (20 is Reporter, https://docs.gitlab.com/api/members/)
    gitlab_min_access_level: int = 20
    okta_base_url: str = ""


@dataclass(frozen=True)
class Header:
    """Headers in which a proxy says who somebody is; believed on the unix socket only."""

    user: str = "Remote-User"
    email: str = "Remote-Email"
    groups: str = "Remote-Groups"
    #: between two groups
    separator: str = ","


@dataclass(frozen=True)
class Redact:
    """What of tasks' arguments, results and errors is masked before anything of Flower's sees it."""

    #: names of keyword arguments and dictionary keys, as globs without regard to case
    keys: list[str] = field(default_factory=list)
    #: regular expressions; whatever they match is masked
    patterns: list[str] = field(default_factory=list)
    #: task name (a glob) -> numbers of positional arguments, from 0
    arguments: dict[str, list[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Collector:
    """The process that counts events; see metrics/observe.py for what it counts."""

    #: whether this instance has one; `python -m flowerbed collector` runs without asking
    enabled: bool = False
    address: str = "127.0.0.1"
    port: int = 8000
    #: ask workers for events, for those that were started without -E
    enable_events: bool = True
    #: queues that are looked at even before an event names them
    queues: list[str] = field(default_factory=list)
    #: task names (globs) that have series of their own; others are counted as `other`
    tasks_allow: list[str] = field(default_factory=lambda: ["*"])
    tasks_deny: list[str] = field(default_factory=list)
    worker_label: bool = False
    series_limit: int = 20_000
    #: upper bounds of histograms in seconds, and others for tasks by glob
    buckets: list[float] = field(
        default_factory=lambda: [0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14400, 86400]
    )
    task_buckets: dict[str, list[float]] = field(default_factory=dict)
    #: "celery-exporter" gives that exporter's names beside ours
    compat: str = ""


@dataclass(frozen=True)
class History:
    """What is remembered of tasks, and for how long; 0 is without a limit."""

    #: of the database, without a password; with one it belongs into the credentials.  None keeps no history
    url: str | None = None
    days: int = 30
    rows: int = 0
    #: bytes
    size: int = 0
    #: seconds without a word from a worker after which its started tasks are called lost
    lost_after: int = 300
    #: the most characters kept of each text; 0 keeps none of it
    text_lengths: dict[str, int] = field(
        default_factory=lambda: {"args": 1024, "kwargs": 1024, "result": 1024, "exception": 1024, "traceback": 16384}
    )


@dataclass(frozen=True)
class Settings:
    """The settings of one instance; the fields are the keys of flowerbed.json."""

    instance: str = "main"
    #: Flower's own configuration; None means the package's own (laptop)
    flowerconfig: str | None = None
    #: the user's Celery application, `proj.celery:app`, and the directory it is imported from
    app: str | None = None
    app_dir: str | None = None
    #: password: our login; none: open, said aloud; flower: left to Flower's own options (OAuth from the environment);
    #: the others: a sign-in service or a proxy says who somebody is, and `access` what they may do
    auth: str = "password"
    unix_socket: str | None = None
    address: str = "127.0.0.1"
    port: int = 5555
    url_prefix: str = ""
    #: the front door as users see it, and where the doctor connects for it (host:port)
    url: str | None = None
    connect: str | None = None
    #: PEM file to trust for the front door when it is self-signed
    tls_certificate: str | None = None
    secure_cookies: bool = True
    session_seconds: int = 43200
    verify_cache_seconds: int = 300
    login_attempts: int = 5
    login_window_seconds: int = 300
    broker_reconnect_max_seconds: int = 30
    #: nobody may change anything
    read_only: bool = False
    #: rules of identity.Rule, for people without a password of ours
    access: list[dict[str, Any]] = field(default_factory=list)
    #: how this Flower is known to the sign-in service, and where that sends people back to
    client_id: str | None = None
    redirect_uri: str | None = None
    oidc: Oidc = field(default_factory=Oidc)
    provider: Provider = field(default_factory=Provider)
    header: Header = field(default_factory=Header)
    redact: Redact = field(default_factory=Redact)
    collector: Collector = field(default_factory=Collector)
    history: History = field(default_factory=History)
    #: path of the credentials; None means the environment
    credentials: str | None = None


@dataclass(frozen=True)
class Credentials:
    """Everything secret of one instance; its repr() shows only the users' names."""

    cookie_secret: str | None = field(default=None, repr=False)
    users: tuple[User, ...] = ()
    celery: dict[str, Any] = field(default_factory=dict, repr=False)
    options: dict[str, Any] = field(default_factory=dict, repr=False)
    client_secret: str | None = field(default=None, repr=False)
    history_url: str | None = field(default=None, repr=False)


def load(path: str | os.PathLike[str] | None = None) -> Settings:
    """The settings in `path`, else in the file that FLOWERBED_SETTINGS names, else from the environment."""
    chosen = path if path is not None else os.environ.get(SETTINGS_VARIABLE) or None
    if chosen is None:
        return from_environment(os.environ)
    return _checked(str(chosen), _read_object(Path(chosen)))


def load_credentials(settings: Settings) -> Credentials:
    """The credentials that systemd handed over, else those at the settings' path, else from the environment."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    if directory and (handed := Path(directory) / CREDENTIALS_FILE).exists():
        path = handed
    elif settings.credentials is not None:
        path = Path(settings.credentials)
    else:
        return credentials_from_environment(os.environ)
    return _credentials(str(path), _read_object(path))


def from_environment(environ: Mapping[str, str]) -> Settings:
    """Settings of a laptop, from FLOWER_PORT, FLOWER_ADDRESS, FLOWER_URL_PREFIX, FLOWER_BASIC_AUTH and FLOWER_AUTH."""
    port = environ.get("FLOWER_PORT") or "5555"
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise SettingsError("FLOWER_PORT must be a number from 1 to 65535.")
    return Settings(
        auth=_auth_from_environment(environ),
        address=environ.get("FLOWER_ADDRESS") or "127.0.0.1",
        port=int(port),
        unix_socket=environ.get("FLOWER_UNIX_SOCKET") or None,
        url_prefix=(environ.get("FLOWER_URL_PREFIX") or "").strip("/"),
        # a laptop speaks plain HTTP: a browser would never send Secure cookies back
        secure_cookies=False,
    )


def credentials_from_environment(environ: Mapping[str, str]) -> Credentials:
    """Credentials of a laptop: CELERY_BROKER_URL and the users of FLOWER_BASIC_AUTH, hashed in memory."""
    from flowerbed.auth import hash_for_memory

    celery: dict[str, Any] = {}
    if url := environ.get("CELERY_BROKER_URL"):
        celery["broker_url"] = url
    pairs = basic_auth_pairs(environ.get("FLOWER_BASIC_AUTH") or "")
    users = tuple(User(name, hash_for_memory(password)) for name, password in pairs)
    return Credentials(cookie_secret=environ.get("FLOWER_COOKIE_SECRET") or None, users=users, celery=celery)


def basic_auth_pairs(text: str) -> list[tuple[str, str]]:
    """Splits `user:password[,user:password]` at commas and at each first colon, as Flower splits FLOWER_BASIC_AUTH."""
    pairs: list[tuple[str, str]] = []
    for number, item in enumerate(text.split(",") if text else [], start=1):
        name, colon, password = item.strip().partition(":")
        if not (name and colon and password):
            raise SettingsError(f"FLOWER_BASIC_AUTH: entry {number} must be user:password (commas separate users).")
        if name in (known for known, _ in pairs):
            raise SettingsError(f"FLOWER_BASIC_AUTH: entry {number} names a user that was named before.")
        pairs.append((name, password))
    return pairs


def did_you_mean(name: str, known: typing.Iterable[str]) -> str:
    """The end of a sentence about an unknown name: `: did you mean X?`, or a full stop when no known name is near."""
    import difflib

    near = difflib.get_close_matches(name, sorted(known), n=1)
    return f": did you mean {near[0]}?" if near else "."


def _auth_from_environment(environ: Mapping[str, str]) -> str:
    basic, pattern = environ.get("FLOWER_BASIC_AUTH"), environ.get("FLOWER_AUTH")
    if basic and pattern:
        raise SettingsError("FLOWER_BASIC_AUTH and FLOWER_AUTH are both set: choose one way to sign in.")
    if basic:
        return "password"
    if pattern:
        if not environ.get("FLOWER_AUTH_PROVIDER"):
            raise SettingsError("FLOWER_AUTH is set but FLOWER_AUTH_PROVIDER, the sign-in service, is not.")
        return "flower"
    # an OAuth key without FLOWER_AUTH would silently give an open Flower
    if environ.get("FLOWER_OAUTH2_KEY") or environ.get("FLOWER_OAUTH2_SECRET"):
        raise SettingsError("FLOWER_OAUTH2_KEY is set but FLOWER_AUTH, which says who may sign in, is not.")
    return "none"


def _read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; never quotes the file's text, which may be secret."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror or 'unknown error'}.") from None
    except json.JSONDecodeError as error:
        raise SettingsError(f"{path} is not JSON: line {error.lineno}, column {error.colno}.") from None
    except ValueError:
        raise SettingsError(f"{path} is not UTF-8 text.") from None
    if not isinstance(data, dict):
        raise SettingsError(f"{path} must hold a JSON object.")
    return data


def _checked(where: str, data: dict[str, Any]) -> Settings:
    """Settings of the right types and ranges."""
    settings = _section(where, "", Settings, data)
    if settings.auth not in AUTH_CHOICES:
        raise SettingsError(f"{where}: auth must be one of {', '.join(AUTH_CHOICES)}.")
    if not 0 < settings.port < 65536:
        raise SettingsError(f"{where}: port must be from 1 to 65535.")
    for key in ("session_seconds", "login_attempts", "login_window_seconds", "broker_reconnect_max_seconds"):
        if getattr(settings, key) < 1:
            raise SettingsError(f"{where}: {key} must be 1 or more.")
    if settings.verify_cache_seconds < 0:
        raise SettingsError(f"{where}: verify_cache_seconds must be 0 or more.")
    rules(settings, where)
    return settings


def rules(settings: Settings, where: str = "The settings") -> list[Rule]:
    """The rules of `access`; raises SettingsError for what is no rule."""
    found = []
    for number, item in enumerate(settings.access, start=1):
        if not isinstance(item, dict) or item.get("role") not in ROLES:
            raise SettingsError(f"{where}: access: rule {number} must have a role, {' or '.join(ROLES)}.")
        if unknown := sorted(set(item) - {rule.name for rule in fields(Rule)}):
            known = [rule.name for rule in fields(Rule)]
            raise SettingsError(
                f"{where}: access: rule {number}: {unknown[0]} is unknown{did_you_mean(unknown[0], known)}"
            )
        claims = item.get("claims", {})
        lists = [item.get(kind, []) for kind in ("users", "domains", "groups")]
        if not isinstance(claims, dict) or not all(isinstance(values, list) for values in (*lists, *claims.values())):
            raise SettingsError(f"{where}: access: rule {number}: users, domains, groups and each claim must be lists.")
        users, domains, groups = (tuple(map(str, values)) for values in lists)
        if not (users or domains or groups or claims):
            raise SettingsError(
                f"{where}: access: rule {number} says of whom it is not: name users, domains or groups."
            )
        asked = {str(name): tuple(map(str, values)) for name, values in claims.items()}
        found.append(Rule(item["role"], users, domains, groups, asked))
    return found


def _section(where: str, path: str, kind: type[_Section], data: Any) -> _Section:
    """A dataclass from a JSON object, with every value of the type that the field has."""
    hints = typing.get_type_hints(kind)
    if not isinstance(data, dict):
        raise SettingsError(f"{where}: {path.rstrip('.')} must be an object.")
    values = {}
    for key, value in data.items():
        if key not in hints:
            raise SettingsError(f"{where}: {path}{key} is not a setting of flowerbed{did_you_mean(key, hints)}")
        if is_dataclass(hints[key]):
            values[key] = _section(where, f"{path}{key}.", hints[key], value)
            continue
        allowed = _classes(hints[key])
        if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
            names = " or ".join("null" if kind is types.NoneType else kind.__name__ for kind in allowed)
            raise SettingsError(f"{where}: {path}{key} must be {names}, not {type(value).__name__}.")
        values[key] = value
    return kind(**values)


def _classes(hint: Any) -> tuple[type, ...]:
    """The classes of an annotation: `int | None` is two, `list[str]` is list."""
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return tuple(typing.get_origin(kind) or kind for kind in kinds)


def _credentials(where: str, data: dict[str, Any]) -> Credentials:
    """Credentials of the right shape; errors name keys, never values."""
    for key in data:
        if key not in _CREDENTIAL_KEYS:
            raise SettingsError(f"{where}: {key!r} is not one of {', '.join(_CREDENTIAL_KEYS)}.")
    secret = data.get("cookie_secret")
    if secret is not None and not (isinstance(secret, str) and secret):
        raise SettingsError(f"{where}: cookie_secret must be a text that is not empty.")
    client_secret = data.get("client_secret")
    if client_secret is not None and not (isinstance(client_secret, str) and client_secret):
        raise SettingsError(f"{where}: client_secret must be a text that is not empty.")
    for key in ("celery", "options"):
        if not isinstance(data.get(key, {}), dict):
            raise SettingsError(f"{where}: {key} must be an object.")
    celery = dict(data.get("celery", {}))
    for key in celery:
        if key not in _CELERY_KEYS:
            raise SettingsError(f"{where}: celery.{key} is not one of {', '.join(_CELERY_KEYS)}.")
    users = _users(where, data.get("users", []))
    return Credentials(secret, users, celery, dict(data.get("options", {})), client_secret, data.get("history_url"))


def _users(where: str, items: Any) -> tuple[User, ...]:
    if not isinstance(items, list):
        raise SettingsError(f"{where}: users must be a list.")
    users: list[User] = []
    for number, item in enumerate(items, start=1):
        name, hashed = (item.get("name"), item.get("hash")) if isinstance(item, dict) else (None, None)
        if not (isinstance(name, str) and name and isinstance(hashed, str) and hashed):
            raise SettingsError(f"{where}: user number {number} must have a name and a hash.")
        if ":" in name or any(user.name == name for user in users):
            raise SettingsError(f"{where}: user number {number} has a name that holds a colon or is there twice.")
        role = item.get("role", OPERATOR)
        if role not in ROLES:
            raise SettingsError(f"{where}: user number {number} must have the role {' or '.join(ROLES)}.")
        users.append(User(name, hashed, role))
    return tuple(users)
