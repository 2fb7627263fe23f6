"""Puts the broker of the credentials on the Celery application that Flower is going to use."""

from __future__ import annotations

import os
import socket
import ssl
from typing import Any
from urllib.parse import parse_qsl, urlsplit

_BROKER_KEYS = ("broker_url", "broker_read_url", "broker_write_url")
_VERIFY = {
    "CERT_REQUIRED": ssl.CERT_REQUIRED,
    "CERT_OPTIONAL": ssl.CERT_OPTIONAL,
    "CERT_NONE": ssl.CERT_NONE,
    "required": ssl.CERT_REQUIRED,
    "optional": ssl.CERT_OPTIONAL,
    "none": ssl.CERT_NONE,
}


def configure(app: Any, celery: dict[str, Any]) -> None:
    """Sets broker, result backend, transport options and TLS; without a broker_url the application's own stay."""
    changes = celery_settings(celery)
    # reading loads the application's own configuration first: what is set before that could be taken for it
    own_url = app.conf.broker_url
    if "broker_url" in changes:
        for name in _BROKER_KEYS:
            # Celery prefers these to its configuration
            os.environ.pop(f"CELERY_{name.upper()}", None)
    if "result_backend" in changes:
        os.environ.pop("CELERY_RESULT_BACKEND", None)
    urls = as_list(changes.get("broker_url") or own_url)
    options = dict(changes.get("broker_transport_options") or app.conf.broker_transport_options or {})
    changes["broker_transport_options"] = {**keepalive(urls), **options}
    app.conf.update(changes)


def celery_settings(celery: dict[str, Any]) -> dict[str, Any]:
    """Celery's settings from the credentials' JSON; TLS verifies certificates unless they say otherwise."""
    settings = {key: value for key, value in celery.items() if value not in (None, "", [], {})}
    url = settings.get("broker_url")
    if isinstance(settings.get("broker_use_ssl"), dict):
        settings["broker_use_ssl"] = tls_constants(settings["broker_use_ssl"])
    elif url and "broker_use_ssl" not in settings and (tls := default_tls(as_list(url))):
        settings["broker_use_ssl"] = tls
    if url:
        # an application may have set these two apart
        settings["broker_read_url"] = settings["broker_write_url"] = url
    backend = settings.get("result_backend")
    if isinstance(backend, str) and backend.startswith("rediss:") and "ssl_cert_reqs" not in backend:
        settings["result_backend"] = backend + ("&" if "?" in backend else "?") + "ssl_cert_reqs=CERT_REQUIRED"
    return settings


def default_tls(urls: list[str]) -> dict[str, Any] | None:
    """TLS that verifies against the system's authorities, for URLs that ask for TLS and say nothing more.

    kombu 5.7 opens rediss:// without TLS when nothing else asks for it, and amqps:// without a look at the name.
    """
    first = urlsplit(urls[0])
    if first.scheme == "rediss":
        # Flower's broker page reads only this, so what the URL says about TLS is said here too
        said = {key: value for key, value in parse_qsl(first.query) if key.startswith("ssl_")}
        tls = tls_constants({"ssl_cert_reqs": ssl.CERT_REQUIRED, **said})
        if "ssl_check_hostname" in tls:
            tls["ssl_check_hostname"] = str(tls["ssl_check_hostname"]).lower() != "false"
        return tls
    if first.scheme == "amqps":
        # kombu fills in the name once, so it would be wrong for the second host of a list
        return {"cert_reqs": ssl.CERT_REQUIRED, **({"server_hostname": None} if len(urls) == 1 else {})}
    return None


def tls_constants(options: dict[str, Any]) -> dict[str, Any]:
    """The same options with `CERT_REQUIRED` and the like, which JSON has only as text, as Python's constants."""
    return {
        key: _VERIFY.get(value, value) if key.endswith("cert_reqs") and isinstance(value, str) else value
        for key, value in options.items()
    }


def keepalive(urls: list[str]) -> dict[str, Any]:
    """Transport options that notice within two minutes when a Redis host went away without a word."""
    if not urls or any(urlsplit(url).scheme not in ("redis", "rediss") for url in urls):
        return {}
    probes = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}
    options = {getattr(socket, name): value for name, value in probes.items() if hasattr(socket, name)}
    return {"socket_keepalive": True, "socket_keepalive_options": options}


def as_list(urls: Any) -> list[str]:
    """The URLs of a broker setting: one, a list, or several with semicolons between them."""
    if isinstance(urls, str):
        return [url for url in urls.split(";") if url]
    return [str(url) for url in urls or ()]
