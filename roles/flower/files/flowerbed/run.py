"""Becomes Flower: calls Celery's command line in this process, so no secret is in its arguments or environment."""

# ruff: noqa: PLC0415  # late imports: Flower and Celery act when imported, and not every command needs them
from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from flowerbed.install import check, use
from flowerbed.settings import PROVIDERS, Settings, SettingsError, load, load_credentials

#: what the add-on has read itself, and Flower would read otherwise
_TAKEN = ("BASIC_AUTH", "COOKIE_SECRET", "PORT", "ADDRESS", "UNIX_SOCKET", "URL_PREFIX")
#: options of celery's own command line that it takes from names anybody may have set
_CELERY_VARIABLES = ("APP", "BROKER_URL", "RESULT_BACKEND", "LOADER", "CONFIG_MODULE")
LAPTOP_MAX_TASKS = "10000"


def run(settings_path: str | None) -> int:
    """Runs Flower until it ends; raises SettingsError before anything has started."""
    settings = load(settings_path)
    credentials = load_credentials(settings)
    check(settings, credentials)
    use(settings, credentials)
    config = settings.flowerconfig or str(Path(__file__).with_name("laptop") / "flowerconfig.py")
    if not os.access(config, os.R_OK):
        raise SettingsError(f"{config}, Flower's configuration, cannot be read.")
    if settings.credentials is None:
        _laptop_environment()
    else:
        _server_environment()
        _provider_environment(settings)
    _import_path(settings)
    sys.argv = ["celery", *(["-A", settings.app] if settings.app else []), "flower", f"--conf={config}"]
    celery: Callable[[], int] = _celery_main()
    return celery() or 0


def _celery_main() -> Callable[[], int]:
    from celery.bin.celery import main

    return main  # type: ignore[no-any-return,unused-ignore]


def _import_path(settings: Settings) -> None:
    """The user's directory first; and on a server never the working directory, which `python -m` puts there."""
    if settings.credentials is not None:
        here = os.path.realpath(Path.cwd())
        sys.path[:] = [entry for entry in sys.path if entry and os.path.realpath(entry) != here]
    if settings.app_dir:
        sys.path.insert(0, settings.app_dir)


def _server_environment() -> None:
    """A stray variable must not change what the settings say."""
    for name in (*_CELERY_VARIABLES, *(f"FLOWER_{name}" for name in _TAKEN)):
        os.environ.pop(name, None)


def _provider_environment(settings: Settings) -> None:
    """What Flower's sign-in services read when imported, for a handler of one's own that inherits from one of them."""
    if settings.auth not in PROVIDERS:
        return
    provider = settings.provider
    os.environ |= {
        "FLOWER_GITHUB_OAUTH_DOMAIN": provider.github_domain,
        "FLOWER_GITLAB_OAUTH_DOMAIN": provider.gitlab_domain,
        "FLOWER_GITLAB_MIN_ACCESS_LEVEL": str(provider.gitlab_min_access_level),
        "FLOWER_OAUTH2_OKTA_BASE_URL": provider.okta_base_url,
    }
    # who may come in is said by our rules
    os.environ.pop("FLOWER_GITLAB_AUTH_ALLOWED_GROUPS", None)


def _laptop_environment() -> None:
    """Flower reads FLOWER_* itself; what would crash it, or what we have read, is not left there."""
    from flowerbed.options import table, wrong_type

    known = table()
    os.environ["FLOWER_MAX_TASKS"] = os.environ.get("FLOWER_MAX_TASKS") or LAPTOP_MAX_TASKS
    for name in [name for name in os.environ if name.startswith("FLOWER_")]:
        option = name.removeprefix("FLOWER_").lower()
        if option.upper() in _TAKEN or (option in known and not os.environ[name]):
            del os.environ[name]
        elif option in known and (problem := wrong_type(name, os.environ[name], known[option])):
            raise SettingsError(problem)
