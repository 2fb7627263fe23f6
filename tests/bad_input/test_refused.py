"""Variables that cannot work: one sentence that names the variable, no secret, and the host is as it was."""

from __future__ import annotations

import secrets as random
from typing import Any, NamedTuple

import pytest

from tests.bad_input.conftest import Attempt, Untouched
from tests.plays import run_play

SECRET = "<secret>"


class Mistake(NamedTuple):
    """Variables over a good inventory, and words that the sentence must hold. SECRET is random in each run."""

    variables: dict[str, Any]
    says: list[str]


USER = {"name": "ada", "password": SECRET}

LETSENCRYPT = {
    "flower_tls": "letsencrypt",
    "flower_server_name": "flower.flowerbed-test.org",
    "flower_acme_email": "ops@flower.test",
    "flower_acme_agree_tos": True,
}
OIDC = {
    "flower_auth": "oidc",
    # Redis is what listens there, and waits for more.
    "flower_oidc_issuer": "https://127.0.0.1:6379",
    "flower_oauth2_key": "flower",
    "flower_oauth2_secret": SECRET,
    "flower_access": [{"role": "operator", "users": ["ada@example.org"]}],
}

MISTAKES = {
    "no broker": Mistake({"flower_broker_url": ""}, ["flower_broker_url", "not set"]),
    "broker URL with an unclosed bracket": Mistake(
        {"flower_broker_url": f"redis://:{SECRET}@[::1/0"}, ["flower_broker_url"]
    ),
    "broker URL with a port that is none": Mistake(
        {"flower_broker_url": f"redis://:{SECRET}@127.0.0.1:redis/0"}, ["flower_broker_url", "port"]
    ),
    "broker URL with a password that was not quoted": Mistake(
        {"flower_broker_url": f"redis://:{SECRET}/#@127.0.0.1:6379/0"}, ["flower_broker_url"]
    ),
    "broker URL that is none": Mistake({"flower_broker_url": SECRET}, ["flower_broker_url", "redis://"]),
    "broker URL with an unknown scheme": Mistake(
        {"flower_broker_url": f"http://:{SECRET}@127.0.0.1:6379/0"}, ["flower_broker_url", "http", "redis"]
    ),
    "one bad broker of two": Mistake(
        {"flower_broker_url": ["redis://127.0.0.1:6379/0", f"htp://:{SECRET}@127.0.0.1/0"]},
        ["flower_broker_url", "htp"],
    ),
    "guest:guest away from localhost": Mistake(
        {"flower_broker_url": "amqp://guest:guest@broker.example.org:5672//"}, ["flower_broker_url", "guest"]
    ),
    "Redis refuses the password": Mistake(
        {"flower_broker_url": f"redis://:{SECRET}@127.0.0.1:6379/0"}, ["flower_broker_url", "127.0.0.1:6379", "refuses"]
    ),
    "Redis wants a password": Mistake(
        {"flower_broker_url": "redis://127.0.0.1:6379/0"}, ["flower_broker_url", "wants a password"]
    ),
    "Redis is down": Mistake(
        {"flower_broker_url": f"redis://:{SECRET}@127.0.0.1:6399/0"}, ["flower_broker_url", "127.0.0.1:6399", "answers"]
    ),
    "the broker's name is unknown": Mistake(
        {"flower_broker_url": f"redis://:{SECRET}@redis.invalid:6379/0"}, ["flower_broker_url", "redis.invalid", "name"]
    ),
    "not a broker at all": Mistake(
        {"flower_broker_url": f"amqp://ada:{SECRET}@127.0.0.1:6379//"}, ["flower_broker_url", "AMQP"]
    ),
    "unknown option of Flower": Mistake(
        {"flower_options": {"max_taks": 500}}, ["flower_options", "max_taks", "did you mean max_tasks?"]
    ),
    "option of Flower of the wrong type": Mistake(
        {"flower_options": {"log_file_num_backups": "ten"}}, ["flower_options", "log_file_num_backups", "whole number"]
    ),
    "option of Flower that has a variable": Mistake(
        {"flower_options": {"basic_auth": [f"ada:{SECRET}"]}}, ["flower_options", "basic_auth", "flower_users"]
    ),
    "number of the wrong type": Mistake({"flower_max_tasks": "many"}, ["flower_max_tasks", "int"]),
    "users that are a text": Mistake({"flower_users": f"ada:{SECRET}"}, ["flower_users", "dict"]),
    "misspelt variable": Mistake(
        {"flower_memory_maximum": "1G"}, ["flower_memory_maximum", "did you mean flower_memory_max?"]
    ),
    "misspelt key of a user": Mistake(
        {"flower_users": [{"name": "ada", "pasword": SECRET}]}, ["flower_users", "pasword", "password"]
    ),
    "no users": Mistake({"flower_users": []}, ["flower_users", "empty", "nobody could sign in"]),
    "user name with a colon": Mistake(
        {"flower_users": [{"name": f"ada:{SECRET}", "password": SECRET}]}, ["flower_users", "':'"]
    ),
    "placeholder password": Mistake(
        {"flower_users": [{"name": "ada", "password": "your_password_here"}]}, ["flower_users", "ada", "placeholder"]
    ),
    "memory that is no size": Mistake({"flower_memory_max": "lots"}, ["flower_memory_max", "lots", "size"]),
    "users while everybody is let in": Mistake(
        {"flower_auth": "none", "flower_users": [USER]}, ["flower_auth: none", "flower_users"]
    ),
    "a certificate with nobody to serve it": Mistake(
        {
            "flower_proxy": "none",
            "flower_tls": "provided",
            "flower_tls_certificate": "/c",
            "flower_tls_private_key": "/k",
        },
        ["flower_proxy", "flower_tls_certificate"],
    ),
    "one port for two": Mistake({"flower_http_port": 8443, "flower_https_port": 8443}, ["flower_http_port", "same"]),
    "no e-mail address for Let's Encrypt": Mistake({**LETSENCRYPT, "flower_acme_email": ""}, ["flower_acme_email"]),
    "nobody has agreed to the terms": Mistake(
        {**LETSENCRYPT, "flower_acme_agree_tos": False}, ["flower_acme_agree_tos"]
    ),
    "a name that does not resolve": Mistake(
        {**LETSENCRYPT, "flower_server_name": "flower.no-such-name-0b7e.org"},
        ["flower_server_name", "flower.no-such-name-0b7e.org"],
    ),
    "a name that leads to another host": Mistake(
        {**LETSENCRYPT, "flower_server_name": "elsewhere.flowerbed-test.org"},
        ["flower_server_name", "elsewhere.flowerbed-test.org", "192.0.2.7"],
    ),
    "no client secret": Mistake({**OIDC, "flower_oauth2_secret": ""}, ["flower_oauth2_secret", "client secret"]),
    "an issuer that is not HTTPS": Mistake(
        {**OIDC, "flower_oidc_issuer": "http://id.example.org"}, ["flower_oidc_issuer", "HTTPS"]
    ),
    "an issuer that does not answer": Mistake(OIDC, ["flower_oidc_issuer", "does not answer this host"]),
    "an issuer that nobody knows": Mistake(
        {**OIDC, "flower_oidc_issuer": "https://id.invalid"}, ["flower_oidc_issuer", "name"]
    ),
    "people would be sent back to another host": Mistake(
        {**OIDC, "flower_oauth2_redirect_uri": "https://elsewhere.example.org/login"},
        ["flower_oauth2_redirect_uri", "elsewhere.example.org"],
    ),
    "people would be sent back outside of the prefix": Mistake(
        {**OIDC, "flower_url_prefix": "flower", "flower_oauth2_redirect_uri": "https://flower.test/login"},
        ["flower_oauth2_redirect_uri", "/flower/login"],
    ),
    "a pattern where a whole address is compared": Mistake(
        {**OIDC, "flower_access": [{"role": "viewer", "users": [".*@example.org"]}]},
        ["flower_access", "rule 1", "nobody", "domains"],
    ),
    "groups at a service that tells none": Mistake(
        {
            **OIDC,
            "flower_auth": "google",
            "flower_oidc_issuer": "",
            "flower_access": [{"role": "viewer", "groups": ["a"]}],
        },
        ["flower_access", "rule 1", "Google tells no groups"],
    ),
    "nobody is let in": Mistake({**OIDC, "flower_access": []}, ["flower_access", "needs a rule"]),
    "headers that are believed from nobody": Mistake(
        {"flower_auth": "header", "flower_access": [{"role": "viewer", "users": ["*"]}]}, ["flower_header_proxies"]
    ),
    "a database that is down": Mistake(
        {"flower_history_url": f"postgresql://ada:{SECRET}@127.0.0.1:9/history"},
        ["flower_history_url", "127.0.0.1:9", "nothing answers"],
    ),
    "a database that is none": Mistake(
        {"flower_history_url": f"postgresql://ada:{SECRET}@127.0.0.1:6379/history"},
        ["flower_history_url", "not PostgreSQL"],
    ),
    "a database of a kind that is not known": Mistake(
        {"flower_history_url": f"mysql://ada:{SECRET}@127.0.0.1/history"}, ["flower_history_url", "postgresql://"]
    ),
    "a network that is none": Mistake({"flower_allow": ["10.0.0.0/33"]}, ["flower_allow", "10.0.0.0/33"]),
    "PROXY protocol from anybody": Mistake({"flower_proxy_protocol": True}, ["flower_trusted_proxies"]),
    "a redaction pattern that is none": Mistake(
        {"flower_redact_patterns": ["[a"]}, ["flower_redact_patterns", "entry 1"]
    ),
}


def filled(value: Any, secret: str) -> Any:
    """The value with the test's secret in it."""
    if isinstance(value, dict):
        return {key: filled(item, secret) for key, item in value.items()}
    if isinstance(value, list):
        return [filled(item, secret) for item in value]
    return value.replace(SECRET, secret) if isinstance(value, str) else value


def without_heading(message: str) -> str:
    """The message without what Ansible's own check of types adds: a heading, and a line that the next one repeats."""
    lines = message.removeprefix("Validation of arguments failed:\n").splitlines()
    return "\n".join(line for line in lines if not any(line in other and line != other for other in lines))


@pytest.mark.parametrize("name", MISTAKES)
def test_refused(name: str, attempt: Attempt, untouched: Untouched, secret: str) -> None:
    variables, says = MISTAKES[name]
    with untouched():
        play = attempt(filled(variables, secret), hidden={"secret": secret, "placeholder": "your_password_here"})
    sentence = without_heading(play.message)
    assert len(sentence.splitlines()) == 1, sentence
    assert [word for word in says if word not in sentence] == [], sentence
    assert play.recap["failed"] == 1
    assert play.recap["changed"] == 0


def test_nobody_who_is_an_operator_is_a_warning() -> None:
    users = [{"name": "ada", "password": random.token_urlsafe(12), "role": "viewer"}]
    play = run_play("site.yml", {"flower_users": users}, "--check")
    play.well()
    assert "[WARNING]: flower_users: everybody is a viewer" in play.output.replace("\n", " ")
    assert users[0]["password"] not in play.output
