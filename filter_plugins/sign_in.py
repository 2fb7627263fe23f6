"""What the role asks of the variables that say how people sign in and who may come in.

Each sentence names the variable, what is wrong and what would be right; none holds a secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from .preflight import is_true

Variables = Mapping[str, Any]

_SERVICES = ("google", "github", "gitlab", "okta", "oidc")
#: those that tell e-mail addresses and nothing else of a person
_BY_EMAIL = ("google", "github", "gitlab", "okta")
_NAMES = {"google": "Google", "github": "GitHub", "gitlab": "GitLab", "okta": "Okta", "oidc": "OpenID Connect"}
_PLACEHOLDERS = ("changeme", "change-me", "secret", "your-client-secret", "client-secret", "xxx", "todo")
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:\d{1,5})?")
_DOMAIN = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")
_DOTTED_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
_KINDS = ("users", "domains", "groups", "claims")


def sign_in_problems(variables: Variables) -> list[str]:
    """Return what is wrong with ``flower_auth`` and the variables beside it, as sentences.

    :param variables: every variable that begins with ``flower_``, the role's defaults included.
    """
    problems = [sentence for wrong, sentence in _contradictions(variables) if wrong]
    if variables["flower_auth"] in _SERVICES:
        problems += [sentence for wrong, sentence in _service(variables) if wrong]
    if variables["flower_auth"] in (*_SERVICES, "custom"):
        problems += _redirect(variables)
    if _needs_access(variables):
        problems += _access(variables)
    return problems + list(_redact(variables))


def sign_in_warnings(variables: Variables) -> list[str]:
    """Return what works but is hardly meant: at present that nobody is an operator."""
    auth = variables["flower_auth"]
    if auth == "none":
        return []
    roles = [_part(user, "role", "operator") for user in _items(variables["flower_users"])]
    roles += [_part(rule, "role", "") for rule in _items(variables["flower_access"])]
    if variables["flower_htpasswd"]:
        roles.append(variables["flower_htpasswd_role"])
    if not roles or "operator" in roles or is_true(variables["flower_read_only"]):
        return []
    where = "flower_users" if auth == "password" else "flower_access"
    return [f"{where}: everybody is a viewer, so nobody can revoke a task: give somebody the role operator."]


def _needs_access(var: Variables) -> bool:
    return var["flower_auth"] not in ("password", "none")


def _contradictions(var: Variables) -> Iterator[tuple[bool, str]]:
    auth = str(var["flower_auth"])
    for name in ("flower_users", "flower_htpasswd", "flower_access"):
        yield (
            auth == "none" and bool(var[name]),
            f"{name}: nobody signs in with flower_auth: none: leave it out, or choose another flower_auth.",
        )
    yield (
        auth == "password" and bool(var["flower_access"]),
        "flower_access: with flower_auth: password each user has a role in flower_users: leave this out.",
    )
    for name in ("flower_oauth2_key", "flower_oauth2_secret", "flower_oauth2_redirect_uri"):
        yield (
            auth not in (*_SERVICES, "custom") and bool(var[name]),
            f"{name}: it is of no use with flower_auth: {auth}: leave it out, or choose a sign-in service.",
        )
    for name, needed in (
        ("flower_oidc_issuer", "oidc"),
        ("flower_okta_base_url", "okta"),
        ("flower_auth_provider", "custom"),
        ("flower_header_proxies", "header"),
    ):
        yield (
            auth != needed and bool(var[name]),
            f"{name}: it is of no use with flower_auth: {auth}: leave it out, or set flower_auth: {needed}.",
        )
    yield (
        auth == "custom" and not _DOTTED_PATH.fullmatch(str(var["flower_auth_provider"])),
        "flower_auth_provider: flower_auth: custom needs a dotted path: write it as package.module.LoginHandler.",
    )
    for name in ("flower_github_domain", "flower_gitlab_domain"):
        yield (
            not _HOST_NAME.fullmatch(str(var[name])),
            f"{name}: it is not a host name: write it as git.example.org, without https:// and without a path.",
        )


def _service(var: Variables) -> Iterator[tuple[bool, str]]:
    auth = str(var["flower_auth"])
    secret = str(var["flower_oauth2_secret"])
    yield (
        not var["flower_oauth2_key"],
        f"flower_oauth2_key: flower_auth: {auth} needs the client id that {_NAMES[auth]} knows this Flower by.",
    )
    yield (
        not secret,
        f"flower_oauth2_secret: flower_auth: {auth} needs the client secret that belongs to flower_oauth2_key.",
    )
    yield (
        secret.lower() in _PLACEHOLDERS,
        "flower_oauth2_secret: it is a placeholder: give the client secret that the service made.",
    )
    issuer = str(var["flower_oidc_issuer"])
    parts = urlsplit(issuer)
    yield (
        auth == "oidc" and not issuer,
        "flower_oidc_issuer: flower_auth: oidc needs the provider's issuer, as https://id.example.org/realms/main.",
    )
    yield (
        auth == "oidc" and bool(issuer) and (parts.scheme != "https" or not parts.hostname),
        "flower_oidc_issuer: it is not an HTTPS address: write it as https://id.example.org/realms/main.",
    )
    yield (
        bool(parts.query or parts.fragment) or "/.well-known" in parts.path,
        "flower_oidc_issuer: it has more than the issuer in it: leave out the query and all from /.well-known on.",
    )
    yield (
        auth == "oidc" and "openid" not in var["flower_oidc_scopes"],
        "flower_oidc_scopes: openid is missing, and without it a provider does not say who somebody is: add it.",
    )
    okta = urlsplit(str(var["flower_okta_base_url"]))
    yield (
        auth == "okta" and (okta.scheme != "https" or not okta.hostname),
        "flower_okta_base_url: flower_auth: okta needs its server, as https://example.okta.com/oauth2/default.",
    )


def _redirect(var: Variables) -> Iterator[str]:
    """Whether people can be sent back: the address must be this instance's, over HTTPS, and end in login."""
    public, given = urlsplit(str(var["flower_public_url"])), str(var["flower_oauth2_redirect_uri"])
    tls = "http" if var["flower_tls"] == "none" else "https"
    if not public.netloc and var["flower_proxy"] == "none":
        if not given:
            yield "flower_public_url: with flower_proxy: none it must say where people come back to, as https://flower.example.org/."
            return
    elif (public.scheme or tls) != "https":
        yield "flower_tls: single sign-on over plain HTTP lets others in: use TLS, or set flower_public_url to HTTPS."
    if not given:
        return
    uri = urlsplit(given)
    if uri.scheme != "https" or not uri.hostname or uri.query or uri.fragment:
        yield "flower_oauth2_redirect_uri: it is no plain HTTPS address: write it as https://flower.example.org/login."
        return
    names = [str(var["flower_server_name"]), *map(str, var["flower_server_aliases"])]
    hosts = {public.hostname} if public.hostname else {name.lower() for name in names}
    prefix = str(var["flower_url_prefix"]).strip("/")
    wanted = (public.path.rstrip("/") if public.netloc else f"/{prefix}".rstrip("/")) + "/login"
    if public.netloc or var["flower_proxy"] == "nginx":
        if uri.hostname not in hosts:
            name = min(filter(None, hosts))
            yield f"flower_oauth2_redirect_uri: {uri.hostname} is not a name of this instance: use {name}."
        if uri.path != wanted:
            yield f"flower_oauth2_redirect_uri: its path is {uri.path or '/'}: people sign in at {wanted}."


def _access(var: Variables) -> list[str]:
    auth = str(var["flower_auth"])
    rules = _items(var["flower_access"])
    if not rules:
        return [f"flower_access: flower_auth: {auth} needs a rule: {{role: operator, users: [ada@example.org]}}."]
    problems: list[str] = []
    for number, rule in enumerate(rules, 1):
        label = f"flower_access: rule {number}"
        if not isinstance(rule, Mapping):
            problems.append(f"{label} is no dictionary: write it as {{role: viewer, domains: [example.org]}}.")
            continue
        if not any(rule.get(kind) for kind in _KINDS):
            problems.append(f"{label} does not say whom it is about: name users, domains, groups or claims in it.")
            continue
        problems += [f"{label}: {sentence}" for sentence in _rule(rule, auth, var)]
    return problems


def _rule(rule: Mapping[str, Any], auth: str, var: Variables) -> Iterator[str]:
    """What keeps a rule from ever fitting anybody, or makes it fit the whole world."""
    users, domains, groups = ([str(item) for item in _items(rule.get(kind))] for kind in _KINDS[:3])
    claims = rule.get("claims") or {}
    public = auth in ("google", "github") or (auth == "gitlab" and var["flower_gitlab_domain"] == "gitlab.com")
    for user in users:
        if user == "*":
            if public and not (domains or groups):
                yield f"'*' would let in everybody who has an account at {_NAMES[auth]}: name users, domains or groups."
        elif re.search(r"[*^$|\\\s]", user) or user.startswith("@"):
            yield f"user {user!r} would match nobody, since names are compared whole: put a domain into domains."
        elif auth in _BY_EMAIL and "@" not in user:
            yield f"user {user!r} would match nobody, since {_NAMES[auth]} tells e-mail addresses: write the address."
    for domain in domains:
        if not _DOMAIN.fullmatch(domain):
            yield f"domain {domain!r} would match nobody: write what stands behind the @, as example.org."
    # An address and a domain in one rule must both fit.
    outside = [user for user in users if "@" in user and user.lower().rpartition("@")[2] not in map(str.lower, domains)]
    if domains and "*" not in users and users and len(outside) == len(users):
        yield "none of its users is of one of its domains, and both must fit, so it matches nobody: make it two rules."
    if groups and auth == "google":
        yield "Google tells no groups, so it matches nobody: name users or domains."
    for group in groups:
        if auth == "github" and not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", group):
            yield f"group {group!r} would match nobody: write an organisation as acme, or a team as acme/ops."
        if auth == "gitlab" and not re.fullmatch(r"[\w.+-]+(/[\w.+-]+)*", group):
            yield f"group {group!r} would match nobody: write the group's full path, as acme/ops."
    if claims and auth != "oidc":
        yield f"claims are OpenID Connect's, and flower_auth: {auth} has none, so it matches nobody: leave them out."
    if auth == "oidc" and isinstance(claims, Mapping):
        for name, values in claims.items():
            if not isinstance(values, Sequence) or isinstance(values, str) or not values:
                yield f"claim {name} has no list of values, so it matches nobody: write it as {{{name}: [value]}}."


def _redact(var: Variables) -> Iterator[str]:
    for number, pattern in enumerate(_items(var["flower_redact_patterns"]), 1):
        try:
            empty = re.compile(str(pattern)).search("")
        except re.error as error:
            yield f"flower_redact_patterns: entry {number} is no regular expression ({error.msg}): mend it."
            continue
        if empty:
            yield f"flower_redact_patterns: entry {number} matches the empty text: ask for a character or more."
    arguments = var["flower_redact_arguments"]
    for task, numbers in arguments.items() if isinstance(arguments, Mapping) else ():
        if not isinstance(numbers, list) or not all(type(number) is int and number >= 0 for number in numbers):
            yield f"flower_redact_arguments: {task!s:.80} needs a list of argument numbers from 0: write it as [0, 2]."


def _items(value: Any) -> list[Any]:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else []


def _part(item: Any, key: str, default: str) -> str:
    return str(item.get(key) or default) if isinstance(item, Mapping) else default


class FilterModule:
    """Ansible's entry to the filters."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by their names."""
        return {"sign_in_problems": sign_in_problems, "sign_in_warnings": sign_in_warnings}
