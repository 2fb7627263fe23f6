"""What the role ``flower`` asks of its variables and of its host, beyond what a schema can say.

Both filters return sentences, one a problem, so that an operator sees all that is wrong at once. None holds a secret.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ansible.utils.display import Display

from .acme import acme_problems
from .collector import collector_problems
from .credentials import (
    broker_credential_problems,
    broker_url_problems,
    htpasswd_problems,
    user_problems,
)
from .edge import edge_problems
from .preflight import (
    flower_option_problems,
    is_true,
    rate_problems,
    systemd_count_problems,
    systemd_percent_problems,
    systemd_size_problems,
    unknown_variables,
)
from .sign_in import sign_in_problems, sign_in_warnings

Variables = Mapping[str, Any]

_BROKER_PROBLEMS = {
    "unknown-host": "the name of the broker at {at} is not known on this host: mend the name or the host's DNS.",
    "unreachable": "nothing answers at {at} ({detail}): start the broker, open the way to it, or mend the address.",
    "tls": "no TLS with the broker at {at} ({detail}): name its CA in flower_broker_use_ssl, or use a plain scheme.",
    "refused": "the broker at {at} refuses the user or the password: give those that the broker knows.",
    "password-needed": "the broker at {at} wants a password and none is given: put it into the URL.",
    "not-redis": "what answers at {at} is not Redis: mend the port or the scheme.",
    "not-amqp": "what answers at {at} does not speak AMQP: mend the port or the scheme (amqps for TLS).",
    "no-vhost": "the broker at {at} does not let this user into this virtual host: create it, or give the rights.",
}


_HISTORY_PROBLEMS = {
    "unknown-host": "the name of {at} is not known on this host: mend the name or the host's DNS.",
    "unreachable": "nothing answers at {at} ({detail}): start the database, open the way to it, or mend the address.",
    "not-postgresql": "what answers at {at} is not PostgreSQL: mend the port.",
    "tls": "no TLS with the database at {at} ({detail}): mend its certificate, or name its CA in sslrootcert.",
    "refused": "the database at {at} refuses the user or the password: give those that it knows, or mend pg_hba.conf.",
    "password-needed": "the database at {at} wants a password and none is given: put it into the URL.",
    "no-database": "the server at {at} has no database of that name: create it, or mend the end of the URL.",
    "plain": "the database at {at} offers no TLS and sslmode asks for it: turn TLS on there, or leave sslmode out.",
}

_ISSUER_PROBLEMS = {
    "unreachable": "it does not answer this host ({detail}): open the way to it, or mend the address.",
    "unknown-host": "its name is not known on this host: mend the name or the host's DNS.",
    "tls": "no TLS with it ({detail}): name its CA in flower_oidc_ca_bundle, or mend its certificate.",
    "ca-bundle": "the file in flower_oidc_ca_bundle cannot be used ({detail}): name a PEM file on the host.",
    "status": "no discovery document is there (HTTP {detail}): give the address before /.well-known/.",
    "rubbish": "what answers there is no OpenID Connect provider: give the address before /.well-known/.",
    "issuer": "the provider calls itself {detail}: write it exactly so, slash at the end included.",
    "endpoints": "its discovery document names no {detail} over HTTPS: this provider cannot be used.",
}


def _number(value: object) -> int:
    try:
        return int(str(value))
    except ValueError:
        return -1


def _contradictions(var: Variables) -> list[str]:
    tls, proxy, certificate, key = (
        str(var[name]) for name in ("flower_tls", "flower_proxy", "flower_tls_certificate", "flower_tls_private_key")
    )
    both = "flower_tls_certificate and flower_tls_private_key"
    names = [str(var["flower_server_name"]), *map(str, var["flower_server_aliases"])]
    prefix = str(var["flower_url_prefix"]).strip("/")
    rules = [
        (
            tls == "provided" and not (certificate and key),
            f"{both}: flower_tls: provided needs both, as PEM text or as a path on the host.",
        ),
        (
            tls != "provided" and bool(certificate or key),
            f"{both}: they are not used with flower_tls: {tls}: set flower_tls: provided.",
        ),
        (
            bool(certificate and key) and certificate.startswith("/") != key.startswith("/"),
            f"{both}: one is a path and the other is not: give both as paths or both as PEM text.",
        ),
        (
            proxy == "none" and tls == "provided",
            "flower_proxy: with none there is no nginx to serve flower_tls_certificate: set flower_proxy: nginx.",
        ),
        (
            tls != "none" and _number(var["flower_http_port"]) == _number(var["flower_https_port"]),
            "flower_http_port: it is the same as flower_https_port: give each a port of its own.",
        ),
        (
            not var["flower_app"] and bool(var["flower_app_dir"]),
            "flower_app_dir: it is of no use without flower_app: name the application as package.module:app.",
        ),
        (
            bool(var["flower_app"]) and not re.fullmatch(r"[A-Za-z_][\w.]*(:[A-Za-z_][\w.]*)?", str(var["flower_app"])),
            "flower_app: it is not a Celery application: write it as package.module:app.",
        ),
        (
            bool(var["flower_app_dir"]) and not str(var["flower_app_dir"]).startswith("/"),
            "flower_app_dir: it is not an absolute path: write it as /srv/project.",
        ),
        (
            bool(var["flower_format_task"])
            and not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", str(var["flower_format_task"])),
            "flower_format_task: it is not a function: write it as package.module:function.",
        ),
        (
            not re.fullmatch(r"\d+(\.\d+)+([a-z]+\d+)?", str(var["flower_version"])),
            f"flower_version: {var['flower_version']!s:.40} is not a version: write it as 2.2.0.",
        ),
        (
            bool(prefix) and not re.fullmatch(r"[\w.~-]+(/[\w.~-]+)*", prefix, re.ASCII),
            "flower_url_prefix: it is not a path: use letters, digits, dots and hyphens, such as flower.",
        ),
        (
            any(not re.fullmatch(r"(\*\.)?[A-Za-z0-9][A-Za-z0-9.:-]*", name) for name in names),
            "flower_server_name and flower_server_aliases: no host name has such characters: write flower.example.org.",
        ),
    ]
    return [sentence for wrong, sentence in rules if wrong]


# Variables whose number has bounds: least, greatest, and why.
_BOUNDS = {
    "flower_http_port": (1, 65535, "a port is 1 to 65535"),
    "flower_https_port": (1, 65535, "a port is 1 to 65535"),
    "flower_metrics_port": (1, 65535, "a port is 1 to 65535"),
    "flower_metrics_series_limit": (100, 1_000_000, "each series takes memory, and below 100 hardly one has a name"),
    "flower_history_days": (0, 36500, "these are days, and 0 is for ever"),
    "flower_history_rows": (0, 1 << 40, "it is a count, and 0 is any number"),
    "flower_history_lost_after": (10, 30 * 86400, "these are seconds, and a worker may be slow for some"),
    "flower_io_weight": (1, 10000, "systemd takes 1 to 10000"),
    "flower_keep_releases": (1, 1000, "at least the running release is kept, and 2 or more allow a rollback"),
    "flower_limit_nofile": (256, 1 << 30, "Flower needs some for its files, its users and its broker"),
    "flower_watchdog_sec": (10, 86400, "Flower stands still for some seconds while it saves"),
    "flower_start_timeout": (10, 86400, "a start loads the state first"),
    "flower_stop_timeout": (10, 86400, "Flower saves its state before it ends"),
    "flower_max_tasks": (1, 1 << 31, "Flower keeps at least one task"),
    "flower_max_workers": (1, 1 << 31, "Flower keeps at least one worker"),
    "flower_state_save_interval": (0, 1 << 31, "these are milliseconds"),
    "flower_purge_offline_workers": (0, 1 << 31, "these are seconds"),
    "flower_broker_reconnect_max": (1, 86400, "these are seconds"),
    "flower_session_lifetime": (60, 366 * 86400, "these are seconds"),
    "flower_login_attempts": (1, 1000, "one mistake must be allowed"),
    "flower_login_window": (1, 86400, "these are seconds"),
    "flower_login_burst": (0, 100000, "it is a count"),
    "flower_api_burst": (0, 100000, "it is a count"),
    "flower_page_burst": (0, 100000, "it is a count"),
    "flower_connections_per_address": (10, 65535, "a page of Flower's takes some connections at once"),
    "flower_gitlab_min_access_level": (5, 60, "GitLab's levels are 5 to 60, and 20 is Reporter"),
    "flower_hsts_max_age": (0, 1 << 31, "these are seconds"),
}


def variable_problems(variables: Variables, known: Sequence[str], reserved: Mapping[str, str]) -> list[str]:
    """Return what is wrong with the role's variables, as sentences.

    :param variables: every variable that begins with ``flower_``, the role's defaults included.
    :param known: the names in argument_specs.
    :param reserved: options of Flower's that ``flower_options`` may not set, each with the variable that does.
    """
    var = dict(variables)
    foreign = [str(name) for name in var.get("flower_foreign_variables", [])]
    problems = unknown_variables([name for name in var if name not in foreign], list(known))
    instance = str(var["flower_instance"])
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,22}", instance) or instance == "releases":
        problems.append(
            f"flower_instance: {instance!s:.40} cannot name a unit and a user: use up to 23 lower-case letters, digits "
            "and hyphens, a letter first, and not releases."
        )
    if var["flower_state"] == "absent":
        return problems

    broker = var.get("flower_broker_url") or ""
    problems += broker_url_problems(broker)
    brokers = [url for item in ([broker] if isinstance(broker, str) else broker) for url in str(item).split(";") if url]
    problems += broker_credential_problems(brokers)
    if var["flower_users"] or (var["flower_auth"] == "password" and not var["flower_htpasswd"]):
        problems += user_problems(
            var["flower_users"], broker_urls=brokers, allow_weak=is_true(var["flower_allow_weak_passwords"])
        )
    if not str(var["flower_htpasswd"]).startswith("/"):
        problems += htpasswd_problems(str(var["flower_htpasswd"]))
    for sentence in sign_in_warnings(var):
        Display().warning(sentence)
    problems += sign_in_problems(var) + acme_problems(var) + edge_problems(var) + collector_problems(var)
    problems += flower_option_problems(var["flower_options"], reserved=reserved)
    for prefix in ("flower_", "flower_collector_"):
        for name in (f"{prefix}memory_max", f"{prefix}memory_high"):
            problems += systemd_size_problems(var[name], name)
        problems += systemd_percent_problems(var[f"{prefix}cpu_quota"], f"{prefix}cpu_quota")
    problems += systemd_count_problems(var["flower_tasks_max"], "flower_tasks_max")
    for name in ("flower_login_rate", "flower_api_rate", "flower_page_rate"):
        problems += rate_problems(var[name], name)
    for name, (least, greatest, why) in _BOUNDS.items():
        if not least <= _number(var[name]) <= greatest:
            problems.append(f"{name}: {var[name]!s:.40} is out of range: {why}.")
    return problems + _contradictions(var)


def host_problems(look: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """Return what keeps the role from working on the host that ``look`` describes (the answer of files/look.py).

    :param expected: ``supported`` (versions by os-release ID), ``needed_bytes``, ``ports``, ``collector`` (its unit)
        and ``check_mode``. In check mode a broker that does not answer is no problem: the same play may install it.
    """
    problems = []
    system, supported = look["os"], expected["supported"]
    if system["version"] not in supported.get(system["id"], []):
        wanted = ", ".join(f"{name.capitalize()} {' or '.join(versions)}" for name, versions in supported.items())
        problems.append(
            f"This host runs {system['name'] or 'an unknown system'}; the role supports {wanted}: use one of those."
        )
    if not look["systemd"]:
        problems.append("This host does not run systemd, which keeps Flower alive and apart: boot it with systemd.")
    if list(look["python"]) < [3, 10]:
        version = ".".join(map(str, look["python"]))
        problems.append(f"flower_python: it is Python {version} and Flower needs 3.10: name a later interpreter.")
    own = {"flower_metrics_port": expected["collector"]}
    problems += [
        f"{name}: port {port} is in use by {look['listeners'][str(port)]}: stop that, or choose another port."
        for name, port in expected["ports"].items()
        if look["listeners"].get(str(port), own.get(name, "nginx")) != own.get(name, "nginx")
    ]
    problems += [
        f"flower_server_name: {site} already serves this name on this port: choose another name or port."
        for site in look["conflicts"]
    ]
    # Ansible before 2.19 makes texts of templated numbers.
    needed_bytes = int(expected["needed_bytes"])
    if look["free_bytes"] < needed_bytes:
        free, needed = (round(number / 1e6) for number in (look["free_bytes"], needed_bytes))
        problems.append(f"A release needs {needed} MB below /opt/flower and {free} MB are free: make room there.")
    issuer = look["issuer"]
    # In check mode the way to a provider may be opened by the same play.
    if issuer["problem"] and not (expected["check_mode"] and issuer["problem"] in ("unreachable", "unknown-host")):
        problems.append("flower_oidc_issuer: " + _ISSUER_PROBLEMS[issuer["problem"]].format(**issuer))
    history = look["history"]
    if history["problem"] and not (expected["check_mode"] and history["problem"] in ("unreachable", "unknown-host")):
        problems.append("flower_history_url: " + _HISTORY_PROBLEMS[history["problem"]].format(**history))
    answers = look["brokers"]
    broken = [answer for answer in answers if answer["problem"]]
    if expected["check_mode"]:
        broken = [answer for answer in broken if answer["problem"] not in ("unreachable", "unknown-host")]
    # With a list for failover one broker that answers is enough; one that refuses the password never is.
    refused = [answer for answer in broken if answer["problem"] not in ("unreachable", "unknown-host")]
    fatal = broken if len(broken) == len(answers) else refused
    return problems + ["flower_broker_url: " + _BROKER_PROBLEMS[answer["problem"]].format(**answer) for answer in fatal]


class FilterModule:
    """Ansible's entry to the filters."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by their names."""
        return {"variable_problems": variable_problems, "host_problems": host_problems}
