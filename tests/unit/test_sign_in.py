"""What the role refuses of the variables that say how people sign in: one sentence each, and never the secret."""

from __future__ import annotations

from typing import Any

import pytest

from filter_plugins.sign_in import sign_in_problems, sign_in_warnings
from tests.unit.test_role_problems import GOOD

SECRET = "qT7-hidden-client-word"
ALL = [{"role": "viewer", "domains": ["example.org"]}, {"role": "operator", "users": ["ada@example.org"]}]
SERVICE = {"flower_users": [], "flower_oauth2_key": "flower", "flower_oauth2_secret": SECRET, "flower_access": ALL}
OIDC = {**SERVICE, "flower_auth": "oidc", "flower_oidc_issuer": "https://id.example.org/realms/main"}
GITHUB = {**SERVICE, "flower_auth": "github"}
GOOGLE = {**SERVICE, "flower_auth": "google"}
GITLAB = {**SERVICE, "flower_auth": "gitlab"}
OKTA = {**SERVICE, "flower_auth": "okta", "flower_okta_base_url": "https://example.okta.com/oauth2/default"}
HEADER = {"flower_auth": "header", "flower_users": [], "flower_access": ALL, "flower_header_proxies": ["10.0.0.2"]}
CUSTOM = {
    "flower_auth": "custom",
    "flower_auth_provider": "ours.sign_in.Login",
    "flower_users": [],
    "flower_access": ALL,
}


def problems(*changes: dict[str, Any]) -> list[str]:
    variables = dict(GOOD)
    for change in changes:
        variables.update(change)
    return sign_in_problems(variables)


def rule(**what: Any) -> dict[str, Any]:
    return {"flower_access": [{"role": "viewer", **what}]}


@pytest.mark.parametrize(
    "good",
    [
        {},
        OIDC,
        GITHUB,
        GOOGLE,
        GITLAB,
        OKTA,
        HEADER,
        CUSTOM,
        {**CUSTOM, "flower_oauth2_key": "flower", "flower_oauth2_secret": SECRET},
        {**OIDC, **rule(users=["*"])},
        {**OIDC, **rule(claims={"realm_access.roles": ["celery"]})},
        {**GITHUB, **rule(groups=["acme", "acme/ops"])},
        {**GITHUB, **rule(users=["*"], groups=["acme"])},
        {**GITLAB, **rule(groups=["acme/platform/ops"])},
        {**GITLAB, **rule(users=["*"]), "flower_gitlab_domain": "git.example.org"},
        {**HEADER, **rule(users=["ada"])},
        {**OIDC, "flower_users": [{"name": "robot", "password": "a long enough pass phrase"}]},
        {**OIDC, "flower_oauth2_redirect_uri": "https://flower.example.org/login"},
        {
            **OIDC,
            "flower_url_prefix": "flower",
            "flower_oauth2_redirect_uri": "https://flower.example.org/flower/login",
        },
        {**OIDC, "flower_server_aliases": ["f.org"], "flower_oauth2_redirect_uri": "https://f.org/login"},
        {**OIDC, "flower_tls": "none", "flower_public_url": "https://flower.example.org/"},
        {**OIDC, "flower_proxy": "none", "flower_public_url": "https://flower.example.org/"},
        {"flower_redact_patterns": [r"\b4\d{15}\b"], "flower_redact_arguments": {"billing.*": [0, 2]}},
    ],
)
def test_what_can_work_is_let_by(good: dict[str, Any]) -> None:
    assert problems(good) == []


@pytest.mark.parametrize(
    ("base", "change", "says"),
    [
        ({}, {"flower_auth": "none"}, "flower_users: nobody signs in"),
        (
            {},
            {"flower_auth": "none", "flower_users": [], "flower_htpasswd": "a:$apr1$x"},
            "flower_htpasswd: nobody signs",
        ),
        ({}, {"flower_access": ALL}, "flower_access: with flower_auth: password"),
        ({}, {"flower_oauth2_key": "x"}, "flower_oauth2_key: it is of no use"),
        (HEADER, {"flower_oauth2_secret": SECRET}, "flower_oauth2_secret: it is of no use"),
        (CUSTOM, {"flower_tls": "none"}, "flower_tls: single sign-on over plain HTTP"),
        ({}, {"flower_oidc_issuer": "https://id.example.org"}, "flower_oidc_issuer: it is of no use"),
        ({}, {"flower_header_proxies": ["10.0.0.1"]}, "flower_header_proxies: it is of no use"),
        ({}, {"flower_github_domain": "https://git.example.org/"}, "flower_github_domain: it is not a host name"),
        (OIDC, {"flower_oauth2_key": ""}, "flower_oauth2_key: flower_auth: oidc needs"),
        (OIDC, {"flower_oauth2_secret": ""}, "flower_oauth2_secret: flower_auth: oidc needs"),
        (OIDC, {"flower_oauth2_secret": "changeme"}, "flower_oauth2_secret: it is a placeholder"),
        (OIDC, {"flower_oidc_issuer": ""}, "flower_oidc_issuer: flower_auth: oidc needs"),
        (OIDC, {"flower_oidc_issuer": "http://id.example.org"}, "flower_oidc_issuer: it is not an HTTPS address"),
        (OIDC, {"flower_oidc_issuer": "https://"}, "flower_oidc_issuer: it is not an HTTPS address"),
        (OIDC, {"flower_oidc_issuer": "https://i.org/.well-known/openid-configuration"}, "more than the issuer"),
        (OIDC, {"flower_oidc_scopes": ["email"]}, "flower_oidc_scopes: openid is missing"),
        (OIDC, {"flower_access": []}, "flower_access: flower_auth: oidc needs a rule"),
        (OIDC, rule(), "rule 1 does not say whom"),
        (OIDC, rule(users=[]), "rule 1 does not say whom"),
        (OIDC, rule(users=[".*@example.org"]), "user '.*@example.org' would match nobody"),
        (OIDC, rule(users=["@example.org"]), "would match nobody"),
        (OIDC, rule(users=["^ada$"]), "would match nobody"),
        (OIDC, rule(domains=["@example.org"]), "domain '@example.org' would match nobody"),
        (OIDC, rule(domains=["*.example.org"]), "would match nobody"),
        (OIDC, rule(users=["ada@example.org"], domains=["example.com"]), "both must fit"),
        (OIDC, rule(claims={"role": []}), "claim role has no list of values"),
        (OIDC, rule(claims={"role": "ops"}), "claim role has no list of values"),
        (GITHUB, rule(users=["ada"]), "GitHub tells e-mail addresses"),
        (GITHUB, rule(users=["*"]), "everybody who has an account at GitHub"),
        (GITHUB, rule(groups=["https://github.com/acme"]), "would match nobody"),
        (GITHUB, rule(groups=["acme"], claims={"a": ["b"]}), "flower_auth: github has none"),
        (GOOGLE, rule(groups=["ops"]), "Google tells no groups"),
        (GITLAB, rule(groups=["/acme"]), "write the group's full path"),
        (GITLAB, rule(users=["*"]), "everybody who has an account at GitLab"),
        (OKTA, {"flower_okta_base_url": ""}, "flower_okta_base_url: flower_auth: okta needs"),
        (CUSTOM, {"flower_auth_provider": "Login"}, "flower_auth_provider: flower_auth: custom needs"),
        (OIDC, {"flower_tls": "none"}, "flower_tls: single sign-on over plain HTTP"),
        (OIDC, {"flower_proxy": "none"}, "flower_public_url: with flower_proxy: none"),
        (OIDC, {"flower_oauth2_redirect_uri": "http://flower.example.org/login"}, "no plain HTTPS address"),
        (OIDC, {"flower_oauth2_redirect_uri": "https://other.org/login"}, "other.org is not a name of this instance"),
        (OIDC, {"flower_oauth2_redirect_uri": "https://flower.example.org/callback"}, "people sign in at /login"),
        (
            {**OIDC, "flower_url_prefix": "flower"},
            {"flower_oauth2_redirect_uri": "https://flower.example.org/login"},
            "people sign in at /flower/login",
        ),
        ({}, {"flower_redact_patterns": ["[a"]}, "flower_redact_patterns: entry 1 is no regular expression"),
        ({}, {"flower_redact_patterns": ["a*"]}, "flower_redact_patterns: entry 1 matches the empty text"),
        ({}, {"flower_redact_arguments": {"a.b": 1}}, "flower_redact_arguments: a.b needs a list"),
        ({}, {"flower_redact_arguments": {"a.b": [True]}}, "flower_redact_arguments: a.b needs a list"),
    ],
)
def test_what_cannot_work_gives_one_sentence(base: dict[str, Any], change: dict[str, Any], says: str) -> None:
    found = problems(base, change)
    assert len(found) == 1, found
    assert says in found[0]
    assert SECRET not in found[0]


@pytest.mark.parametrize(
    ("changes", "warned"),
    [
        ({}, False),
        ({"flower_users": [{"name": "a", "role": "viewer"}]}, True),
        ({"flower_users": [{"name": "a", "role": "viewer"}, {"name": "b"}]}, False),
        ({"flower_users": [], "flower_htpasswd": "a:$apr1$x", "flower_htpasswd_role": "viewer"}, True),
        ({**OIDC, **rule(users=["*"])}, True),
        ({**OIDC, **rule(users=["*"]), "flower_read_only": True}, False),
        (OIDC, False),
        ({"flower_auth": "none", "flower_users": []}, False),
    ],
)
def test_nobody_who_is_an_operator_is_a_warning(changes: dict[str, Any], warned: bool) -> None:
    assert bool(sign_in_warnings({**GOOD, **changes})) == warned
