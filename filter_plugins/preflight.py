"""Filters that check variables before anything on a host changes.

Pure functions that run on the controller; each returns sentences that name the variable, say what is wrong and what
would be right. No problem is an empty list. A value that is null or empty is not set, and no problem here.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from itertools import pairwise
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible.module_utils.parsing.convert_bool import boolean

from .credentials import plain_text

# ---------------------------------------------------------------- Flower's options

# flower/options.py of 2.2.0 (2.1.0 has the same), then tornado/log.py of 6.6.
OPTION_TYPES = {
    "address": "text",
    "auth": "text",
    "auth_provider": "text",
    "auto_refresh": "bool",
    "basic_auth": "list of text",
    "broker_api": "text",
    "ca_certs": "text",
    "certfile": "text",
    "conf": "text",
    "cookie_secret": "text",
    "db": "text",
    "debug": "bool",
    "enable_events": "bool",
    "format_task": "function",
    "inspect_timeout": "float",
    "keyfile": "text",
    "max_tasks": "int",
    "max_workers": "int",
    "natural_time": "bool",
    "oauth2_key": "text",
    "oauth2_redirect_uri": "text",
    "oauth2_secret": "text",
    "persistent": "bool",
    "port": "int",
    "purge_offline_workers": "int",
    "read_only": "bool",
    "state_save_interval": "int",
    "task_runtime_metric_buckets": "list of float",
    "tasks_columns": "text",
    "unix_socket": "text",
    "url_prefix": "text",
    "xheaders": "bool",
    "log_file_max_size": "int",
    "log_file_num_backups": "int",
    "log_file_prefix": "text",
    "log_rotate_interval": "int",
    "log_rotate_mode": "text",
    "log_rotate_when": "text",
    "log_to_stderr": "bool",
    "logging": "text",
}
_OPTION_CHOICES = {
    "logging": ("debug", "info", "warning", "error", "none"),
    "log_rotate_mode": ("size", "time"),
}
_WANTED = {
    "text": "text in quotes",
    "bool": "true or false",
    "int": "a whole number without quotes",
    "float": "a number without quotes",
    "list of text": "a list of texts",
    "list of float": "a list of numbers, the smallest first",
}


def _suggestion(name: str, known: Iterable[str]) -> str:
    """': did you mean …?' with the nearest known name, or nothing when none is near."""
    near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.75)
    return f": did you mean {near[0]}?" if near else "."


def is_true(value: object) -> bool:
    """A boolean as Ansible reads it, since ``-e`` on a command line makes texts."""
    return bool(boolean(value, strict=False))


def _is_number(value: Any) -> bool:
    """A number that a Python float holds without loss; true and NaN are none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return float(value) == value
    except OverflowError:
        return False


def _fits(value: Any, wanted: str) -> bool:
    if wanted == "text":
        return isinstance(value, str)
    if wanted == "bool":
        return isinstance(value, bool)
    if wanted == "int":
        return isinstance(value, int) and not isinstance(value, bool)
    if wanted == "float":
        return _is_number(value) and not math.isinf(value)
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        return False
    if wanted == "list of text":
        return all(isinstance(item, str) for item in value)
    # The histogram of prometheus_client refuses unsorted and empty buckets.
    return bool(value) and all(map(_is_number, value)) and all(a < b for a, b in pairwise(value))


def flower_option_problems(
    options: Any,
    name: str = "flower_options",
    reserved: Mapping[str, str | None] | Sequence[str] = (),
) -> list[str]:
    """What is wrong with a dictionary of Flower's options: unknown names, wrong types, options the role sets itself.

    reserved: {option: variable that sets it}, or a list of options that cannot be set here. null leaves a default.
    """
    if options is None:
        return []
    if not isinstance(options, Mapping):
        return [f"{name} must be a dictionary of Flower's options, such as {{max_tasks: 10000}}."]
    owners = dict(reserved) if isinstance(reserved, Mapping) else dict.fromkeys(reserved)
    problems = []
    for key, value in options.items():
        option = str(key)
        wanted = OPTION_TYPES.get(option)
        if option in owners:
            owner = owners[option]
            use = f"use the variable {owner}" if owner else "leave it out"
            problems.append(f"{name}: {option} is set by the role: {use}.")
        elif wanted is None:
            hint = _suggestion(option.lower().replace("-", "_"), OPTION_TYPES)
            problems.append(f"{name}: {option} is not an option of Flower{hint}")
        elif wanted == "function":
            problems.append(f"{name}: {option} is a Python function and cannot be written as a value: leave it out.")
        elif value is not None and not _fits(value, wanted):
            problems.append(f"{name}: {option} must be {_WANTED[wanted]}.")
        elif value is not None and value not in _OPTION_CHOICES.get(option, (value,)):
            problems.append(f"{name}: {option} must be one of {', '.join(_OPTION_CHOICES[option])}.")
    return problems


def flower_options(options: Mapping[str, Any] | None) -> dict[str, Any]:
    """The same options with whole numbers made floats where Flower refuses an int (it wants 2000.0, not 2000)."""
    converted: dict[str, Any] = {}
    for key, value in (options or {}).items():
        wanted = OPTION_TYPES.get(str(key))
        if wanted == "float" and _is_number(value):
            value = float(value)
        elif wanted == "list of float" and _fits(value, wanted):
            value = [float(item) for item in value]
        converted[plain_text(key, "flower_options")] = value
    return converted


def unknown_variables(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """One sentence for each of these variable names that is not known, with the nearest known one."""
    known_names = set(map(str, known))
    return [
        f"{name} is not a variable of this role{_suggestion(str(name), known_names)}"
        for name in names
        if str(name) not in known_names
    ]


# ---------------------------------------------------------------- systemd and nginx values

_SIZE_UNITS = {unit: 1024**power for power, unit in enumerate(("", "K", "M", "G", "T", "P", "E"))} | {"B": 1}
_SIZE_PART = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([BKMGTPE]?)")
# No zero at the front: systemd reads 010 as octal, 8, and 08 not at all.
_PERCENT = re.compile(r"((?:0|[1-9][0-9]*)(?:\.[0-9]{1,2})?)%")
_MAX_UINT64 = 2**64 - 1
# systemd.time(7)
_TIME_UNIT = (
    "seconds|second|sec|s|minutes|minute|min|months|month|msec|ms|M|m|hours|hour|hr|h|days|day|d|weeks|week|w"
    "|years|year|y|usec|us|µs|nsec|ns"
)
_TIME = re.compile(rf"(\s*[0-9]+(\.[0-9]+)?\s*({_TIME_UNIT})?(?![A-Za-z]))+\s*")


def _given(value: Any, name: str) -> tuple[str | None, list[str]]:
    """The value as text (None: not set), and a sentence when it is neither text nor a number."""
    if value is None or (isinstance(value, str) and not value):
        return None, []
    try:
        return plain_text(value, name), []
    except AnsibleFilterError:
        return None, [f"{name} must be text or a number."]


def _shown(text: str) -> str:
    """A wrong value short enough for a sentence."""
    return repr(text if len(text) <= 40 else text[:37] + "...")


def _percent(text: str, highest: float) -> bool:
    match = _PERCENT.fullmatch(text)
    return match is not None and 0 < float(match[1]) <= highest


def size_bytes(text: str) -> float | None:
    """Bytes of a size as systemd's parse_size reads it (1.5G, or 1G 512M with falling units), or None."""
    total, position, last = 0.0, 0, math.inf
    while position < len(text):
        match = _SIZE_PART.match(text, position)
        if not match or _SIZE_UNITS[match[2]] >= last:
            return None
        last = _SIZE_UNITS[match[2]]
        total += float(match[1]) * last
        position = match.end()
        if not match[2] and position < len(text):
            return None
    return total if text else None


def systemd_size_problems(value: Any, name: str) -> list[str]:
    """Whether MemoryMax= and its like read this: bytes, 512M, 1.5G, 50%, infinity."""
    text, problems = _given(value, name)
    if text is None or text == "infinity" or _percent(text, 100):
        return problems
    size = size_bytes(text)
    if size is not None and 1 <= size < _MAX_UINT64:
        return []
    near = re.sub(r"(?i)^\s*([0-9.]+)\s*([KMGTPE])i?b?(ytes)?\s*$", lambda m: m[1] + m[2].upper(), text)
    hint = f" (did you mean {near}?)" if near != text and size_bytes(near) else ""
    wanted = "bytes, a number with K, M, G or T, a percentage, or infinity"
    return [f"{name}: {_shown(text)} is not a size{hint}: write {wanted}."]


def systemd_percent_problems(value: Any, name: str) -> list[str]:
    """Whether CPUQuota= reads this: a percentage of one CPU, over 100% for more than one."""
    text, problems = _given(value, name)
    if text is None or _percent(text, 2**31 / 100 - 1):
        return problems
    hint = f" (did you mean {text}%?)" if _percent(text + "%", 1e6) else ""
    wanted = "a percentage of one CPU, such as 50%, or 150% for one and a half"
    return [f"{name}: {_shown(text)} is not a CPU quota{hint}: write {wanted}."]


def systemd_count_problems(
    value: Any, name: str, minimum: int = 1, maximum: int | None = None, percent: bool = True, infinity: bool = True
) -> list[str]:
    """Whether TasksMax= reads this: a whole number, a percentage, infinity.

    For LimitNOFILE= say percent=False; for IOWeight= also infinity=False, maximum=10000.
    """
    text, problems = _given(value, name)
    if text is None or (infinity and text == "infinity") or (percent and _percent(text, 100)):
        return problems
    highest = _MAX_UINT64 - 1 if maximum is None else maximum
    if re.fullmatch(r"[1-9][0-9]{0,19}|0", text) and minimum <= int(text) <= highest:
        return []
    limits = f"from {minimum} to {maximum}" if maximum is not None else f"of at least {minimum}"
    kinds = [f"a whole number {limits}"] + ["a percentage"] * percent + ["infinity"] * infinity
    wanted = kinds[0] if len(kinds) == 1 else ", ".join(kinds[:-1]) + " or " + kinds[-1]
    return [f"{name}: {_shown(text)} is not a count: write {wanted}."]


def systemd_timespan_problems(value: Any, name: str) -> list[str]:
    """Whether RestartSec= and its like read this: seconds, 90s, 2min 30s, infinity."""
    text, problems = _given(value, name)
    if text is None or text == "infinity" or _TIME.fullmatch(text):
        return problems
    return [f"{name}: {_shown(text)} is not a time span: write seconds, or units such as 90s, 2min 30s, 1h."]


def rate_problems(value: Any, name: str) -> list[str]:
    """Whether nginx's limit_req_zone reads this as a rate: whole requests per second (10r/s) or minute (30r/m)."""
    text, problems = _given(value, name)
    if text is None or re.fullmatch(r"0*[1-9][0-9]{0,5}r/[sm]", text):
        return problems
    return [f"{name}: {_shown(text)} is not a rate: write whole requests per second (10r/s) or per minute (30r/m)."]


# ---------------------------------------------------------------- certificates


def _valid_from_until(certificate: Any) -> tuple[datetime, datetime]:
    if hasattr(certificate, "not_valid_after_utc"):  # cryptography 42
        return certificate.not_valid_before_utc, certificate.not_valid_after_utc
    before, after = certificate.not_valid_before, certificate.not_valid_after
    return before.replace(tzinfo=timezone.utc), after.replace(tzinfo=timezone.utc)


def _covers(name: str, dns_names: Sequence[str], addresses: Sequence[Any]) -> bool:
    """Whether a certificate with these names is for `name`, as browsers decide it (RFC 6125, RFC 9525)."""
    try:
        return ip_address(name.strip("[]")) in addresses
    except ValueError:
        pass
    try:
        wanted = name.rstrip(".").lower().encode("idna").decode()
    except UnicodeError:
        return False
    names = {dns_name.rstrip(".").lower() for dns_name in dns_names}
    parent = wanted.partition(".")[2]
    return wanted in names or (bool(parent) and f"*.{parent}" in names)


def _pem(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    return plain_text(value, "certificate_problems").encode("utf-8", "replace")


def _chain_problems(chain: Sequence[Any], name: str) -> list[str]:
    """Whether each certificate was issued by the next one; the leaf stands first."""
    for number, (certificate, issuer) in enumerate(pairwise(chain), 1):
        if certificate.issuer != issuer.subject:
            order = "write the server's own certificate first, then each issuer"
            return [f"{name}: certificate {number} of the chain was not issued by the one after it: {order}."]
    return []


def certificate_problems(
    certificate_pem: Any,
    key_pem: Any = None,
    names: Sequence[str] = (),
    days: int = 0,
    certificate_name: str = "flower_tls_certificate",
    key_name: str = "flower_tls_private_key",
) -> list[str]:
    """What is wrong with a PEM certificate (or chain, the leaf first) and its private key.

    names: host names and IP addresses that it must cover; days: it must be valid for so many more.
    Uses `cryptography`, which ansible-core depends on.
    """
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    if not certificate_pem:
        return [f"{certificate_name} is not set: give the certificate as PEM text."]
    try:
        chain = x509.load_pem_x509_certificates(_pem(certificate_pem))
    except ValueError:
        what = "holds a private key, not" if b"PRIVATE KEY-----" in _pem(certificate_pem) else "cannot be read as"
        return [f"{certificate_name} {what} a certificate: give PEM text with -----BEGIN CERTIFICATE-----."]
    leaf = chain[0]
    problems = _chain_problems(chain, certificate_name)
    begins, ends = _valid_from_until(leaf)
    now = datetime.now(timezone.utc)
    if now < begins:
        problems.append(
            f"{certificate_name} is not valid before {begins:%Y-%m-%d %H:%M} UTC: check the clock, or wait."
        )
    elif now >= ends:
        problems.append(f"{certificate_name} expired on {ends:%Y-%m-%d}: give a new one.")
    elif now + timedelta(days=int(days)) >= ends:
        problems.append(
            f"{certificate_name} expires on {ends:%Y-%m-%d}, in less than {int(days)} days: give a new one."
        )
    try:
        extension = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        dns_names, addresses = (
            extension.get_values_for_type(x509.DNSName),
            extension.get_values_for_type(x509.IPAddress),
        )
    except x509.ExtensionNotFound:  # browsers do not look at the common name
        dns_names, addresses = [], []
    covered = ", ".join([*dns_names, *map(str, addresses)]) or "no name at all"
    problems += [
        f"{certificate_name} is not for {name}, only for {covered}: give one with {name} as a subject alternative name."
        for name in map(str, names)
        if not _covers(name, dns_names, addresses)
    ]
    if not key_pem:
        return problems
    try:
        key = load_pem_private_key(_pem(key_pem), password=None)
    except TypeError:
        return [*problems, f"{key_name} is encrypted: give it without a passphrase, since nginx starts unattended."]
    except (ValueError, UnsupportedAlgorithm):  # never their text, which could quote the key
        return [*problems, f"{key_name} cannot be read: give PEM text with -----BEGIN PRIVATE KEY-----."]
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*form) != leaf.public_key().public_bytes(*form):
        elsewhere = any(key.public_key().public_bytes(*form) == c.public_key().public_bytes(*form) for c in chain[1:])
        hint = (
            "it belongs to a later certificate of the chain: write that one first"
            if elsewhere
            else "give the key with which this certificate was requested"
        )
        problems.append(f"{key_name} does not belong to {certificate_name}: {hint}.")
    return problems


class FilterModule:
    """Names of the filters for Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name of each filter and its function."""
        return {
            "certificate_problems": certificate_problems,
            "flower_option_problems": flower_option_problems,
            "flower_options": flower_options,
            "rate_problems": rate_problems,
            "systemd_count_problems": systemd_count_problems,
            "systemd_percent_problems": systemd_percent_problems,
            "systemd_size_problems": systemd_size_problems,
            "systemd_timespan_problems": systemd_timespan_problems,
            "unknown_variables": unknown_variables,
        }
