"""mask_secrets leaves no secret, and leaves the rest."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filter_plugins.credentials import broker_url, mask_secrets

# Marked, so that it is not by chance a part of something else.
PASSWORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).map(lambda text: f"Zq{text}7Jx")
TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(PASSWORDS)
def test_every_password_in_a_url_is_masked(password: str) -> None:
    url = broker_url({"scheme": "redis", "username": "flower", "password": password, "host": "h", "db": 0})
    assert mask_secrets(f"cannot reach {url} now") == "cannot reach redis://flower:***@h/0 now"


@given(PASSWORDS, TREES)
def test_every_given_secret_is_masked_everywhere(password: str, tree: Any) -> None:
    masked = mask_secrets([tree, {password: f"<{password}>", "deep": [{"x": password}]}], [password])
    assert password not in repr(masked) and password not in json.dumps(masked, ensure_ascii=False)


@given(TREES)
def test_masking_twice_is_masking_once(tree: Any) -> None:
    assert mask_secrets(mask_secrets(tree)) == mask_secrets(tree)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("redis://:hush@h/0", "redis://:***@h/0"),
        ("redis://u:hu@sh@h/0;redis://:hush@i/0", "redis://u:***@h/0;redis://:***@i/0"),
        ("redis://u:hu/sh@h/0", "redis://u:***@h/0"),
        ("https://token@git.example.org/x", "https://***@git.example.org/x"),
        ("redis://h/0?password=hush&db=1", "redis://h/0?password=***&db=1"),
        ("see https://h:443/simple and a@b.org", "see https://h:443/simple and a@b.org"),
        ("amqp://u:hush@h//,amqp://v:hush@i//", "amqp://u:***@h//,amqp://v:***@i//"),
    ],
)
def test_a_text_is_masked_where_it_must_be(text: str, masked: str) -> None:
    assert mask_secrets(text) == masked


@pytest.mark.parametrize(
    "key",
    [
        "password",
        "PASSWORD",
        "redis_password",
        "oauth2_secret",
        "cookie_secret",
        "token",
        "key",
        "privateKey",
        "password_hash",
        "hash",
        "basic_auth",
        "api-key",
        "credentials",
    ],
)
@pytest.mark.parametrize("value", ["hush", 12345, ["hush"], {"x": "hush"}])
def test_a_value_under_a_key_that_names_a_secret_is_masked(key: str, value: Any) -> None:
    assert mask_secrets({"a": [{key: value}]}) == {"a": [{key: "***"}]}


@pytest.mark.parametrize("key", ["keyfile", "ssl_key_file", "name", "monkey", "key_prefix_path"])
def test_a_value_under_another_key_is_left(key: str) -> None:
    assert mask_secrets({key: "x"}) == {key: "x"}


def test_an_empty_value_stays_visibly_empty() -> None:
    assert mask_secrets({"password": "", "token": None, "secret": False}) == {
        "password": "",
        "token": None,
        "secret": False,
    }


def test_an_empty_secret_masks_nothing() -> None:
    assert mask_secrets("text", [""]) == "text"


def test_a_percent_encoded_secret_is_masked() -> None:
    assert mask_secrets("x=p%40ss%2Fw", ["p@ss/w"]) == "x=***"
