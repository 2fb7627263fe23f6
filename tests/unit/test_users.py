"""Users: hashing that changes nothing the second time, and the policy on passwords."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from hypothesis import given, settings
from hypothesis import strategies as st
from passlib.hash import bcrypt, pbkdf2_sha256, sha512_crypt

from filter_plugins.credentials import HASH_SCHEMES, hashed_users, user_problems

PASSWORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=18)


@settings(max_examples=15)
@given(PASSWORDS)
def test_every_password_fits_its_hash(password: str) -> None:
    (entry,) = hashed_users([{"name": "alice", "password": password}], rounds=4)
    assert bcrypt.verify(password, entry["hash"])


@settings(max_examples=15)
@given(st.lists(st.tuples(st.text(min_size=1), PASSWORDS), max_size=3, unique_by=lambda user: user[0]))
def test_a_second_run_changes_nothing(pairs: list[tuple[str, str]]) -> None:
    users = [{"name": name, "password": password} for name, password in pairs]
    first = hashed_users(users, rounds=4)
    assert hashed_users(users, first, rounds=4) == first


def test_a_changed_password_gets_a_new_hash() -> None:
    first = hashed_users([{"name": "alice", "password": "one of many"}], rounds=4)
    (entry,) = hashed_users([{"name": "alice", "password": "another one"}], first, rounds=4)
    assert bcrypt.verify("another one", entry["hash"])


def test_the_hash_of_another_user_is_not_taken() -> None:
    first = hashed_users([{"name": "alice", "password": "the same one"}], rounds=4)
    assert hashed_users([{"name": "bob", "password": "the same one"}], first, rounds=4)[0]["hash"] != first[0]["hash"]


def test_a_stored_hash_of_another_scheme_is_kept_while_it_fits() -> None:
    stored = [{"name": "alice", "hash": sha512_crypt.using(rounds=1000).hash("some password"), "role": "operator"}]
    assert hashed_users([{"name": "alice", "password": "some password"}], stored, rounds=4) == stored


@pytest.mark.parametrize("damaged", ["", "$2b$04$short", "plain text", None, 7])
def test_a_damaged_stored_hash_is_replaced(damaged: Any) -> None:
    stored = [{"name": "alice", "hash": damaged}]
    (entry,) = hashed_users([{"name": "alice", "password": "some password"}], stored, rounds=4)
    assert bcrypt.verify("some password", entry["hash"])


def test_a_given_hash_is_passed_through() -> None:
    given_hash = bcrypt.using(rounds=4).hash("x")
    expected = [{"name": "bob", "hash": given_hash, "role": "operator"}]
    assert hashed_users([{"name": "bob", "password_hash": given_hash}]) == expected


def test_the_role_comes_along_and_does_not_touch_the_hash() -> None:
    user = {"name": "alice", "password": "some password"}
    first = hashed_users([user], rounds=4)
    assert first[0]["role"] == "operator"
    assert hashed_users([{**user, "role": "viewer"}], first, rounds=4) == [{**first[0], "role": "viewer"}]
    # as an older version of the role stored them
    assert hashed_users([user], [{"name": "alice", "hash": first[0]["hash"]}], rounds=4) == first


def test_the_order_is_that_of_the_users() -> None:
    stored = hashed_users([{"name": name, "password": "some password"} for name in "abc"], rounds=4)
    again = hashed_users([{"name": name, "password": "some password"} for name in "cab"], stored, rounds=4)
    assert [entry["name"] for entry in again] == ["c", "a", "b"]


def test_a_removed_user_is_gone() -> None:
    stored = hashed_users([{"name": "alice", "password": "some password"}], rounds=4)
    assert hashed_users([], stored) == []


def test_another_scheme_can_be_chosen() -> None:
    (entry,) = hashed_users([{"name": "a", "password": "some password"}], scheme="pbkdf2_sha256", rounds=10)
    assert pbkdf2_sha256.verify("some password", entry["hash"])


@pytest.mark.parametrize(
    "user",
    [
        {"password": "hush-hush"},
        {"name": "a"},
        {"name": "a", "password": "hush" * 19},
        {"name": "a", "password": "hush\0"},
        {"name": "a", "password": "hush-hush", "role": "admin"},
        {"name": "a", "password": "hush-hush", "role": ["viewer"]},
    ],
)
def test_a_user_that_cannot_be_hashed_is_refused_without_the_password(user: dict[str, str]) -> None:
    with pytest.raises(AnsibleFilterError, match="entry 1") as caught:
        hashed_users([user], rounds=4)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(("scheme", "rounds"), [("md5", None), ("bcrypt", 99)])
def test_an_impossible_scheme_or_cost_is_refused(scheme: str, rounds: int | None) -> None:
    with pytest.raises(AnsibleFilterError, match=r"scheme must be one of|rounds=99 is not possible"):
        hashed_users([{"name": "a", "password": "some password"}], scheme=scheme, rounds=rounds)


def test_a_controller_without_passlib_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "passlib.hash", None)
    with pytest.raises(AnsibleFilterError, match=r"`pip install libpass bcrypt`"):
        hashed_users([{"name": "a", "password": "some password"}])


def test_a_passlib_that_cannot_use_its_bcrypt_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:  # as passlib 1.7.4 does with bcrypt 5
        raise ValueError("password cannot be longer than 72 bytes, truncate manually if necessary")

    monkeypatch.setattr(bcrypt, "set_backend", broken)
    with pytest.raises(AnsibleFilterError, match=r"`pip install libpass bcrypt`"):
        hashed_users([{"name": "a", "password": "some password"}])


GOOD = {"name": "alice", "password": "Blau-7-Segel"}


def test_a_good_user_is_no_problem() -> None:
    assert user_problems([GOOD, {"name": "bob", "password_hash": bcrypt.using(rounds=4).hash("x")}]) == []
    assert user_problems([{**GOOD, "role": role, "name": role} for role in ("viewer", "operator")]) == []


@pytest.mark.parametrize("scheme", [scheme for scheme in HASH_SCHEMES if scheme != "argon2"])
def test_every_scheme_that_hashes_is_known_as_a_password_hash(scheme: str) -> None:
    rounds = {"bcrypt": 4, "sha512_crypt": 1000, "pbkdf2_sha256": 10, "scrypt": 4}[scheme]
    (entry,) = hashed_users([{"name": "a", "password": "some password"}], scheme=scheme, rounds=rounds)
    assert user_problems([{"name": "a", "password_hash": entry["hash"]}]) == []


@pytest.mark.parametrize(
    ("users", "says"),
    [
        ([], "flower_users is empty, so nobody could sign in"),
        (None, "must be a list"),
        ("alice:hush-hush-7", "must be a list"),
        (["alice:hush-hush-7"], "entry 1 is text"),
        ([{"password": "hush-hush-7"}], "entry 1 has no name"),
        ([{"name": "alice:hush-hush-7", "password": "Blau-7-Segel"}], "entry 1 has a user name with a ':'"),
        ([{"name": "al\nice", "password": "Blau-7-Segel"}], "entry 1 has a user name with a control character"),
        ([{"name": "doctor", "password": "Blau-7-Segel"}], "user 'doctor' is reserved"),
        ([GOOD, GOOD], "user 'alice' is there twice"),
        ([{"name": "alice"}], "user 'alice' has no password"),
        ([{"name": "alice", "password": ""}], "user 'alice' has no password"),
        ([{**GOOD, "password_hash": "$2b$hush"}], "has both password and password_hash"),
        ([{"name": "alice", "password_hash": "hush-hush-7"}], "has a password_hash that is not one of bcrypt"),
        ([{**GOOD, "role": "admin"}], "user 'alice' has a role that does not exist: write viewer or operator"),
        ([{**GOOD, "role": None}], "user 'alice' has a role that does not exist"),
        ([{**GOOD, "role": {"hush": 1}}], "user 'alice' has a role that does not exist"),
        ([{"name": "alice", "password": 12345678}], "is a number and not text: put it in quotes"),
        ([{"name": "alice", "password": "hush-hush-\n"}], "with a line break or a control character"),
        ([{"name": "alice", "password": "hush-hush" * 9}], "more than 72 bytes"),
        ([{"name": "alice", "password": "hush-7"}], "of 6 characters: use at least 8"),
        ([{"name": "alicealice", "password": "AliceAlice"}], "a password that is the user name"),
        ([{"name": "alice", "password": "changeme"}], "has a placeholder"),
        ([{"name": "alice", "password": "your_password_here"}], "has a placeholder"),
    ],
)
def test_a_wrong_user_is_one_sentence_without_the_password(users: Any, says: str) -> None:
    problems = user_problems(users)
    assert len(problems) == 1
    assert says in problems[0]
    assert problems[0].startswith("flower_users")
    assert "hush" not in problems[0]


@pytest.mark.parametrize(
    "password",
    [
        "password",
        "Password123",
        "P@ssw0rd",
        "changeme!",
        "change-me-please",
        "<password>",
        "admin123",
        "xxxxxxxxxx",
        "replace_with_a_secret",
        "insert-password-here",
        "12345678",
        "letmein1",
        "my-secret",
        "YOUR-SECRET",
        "passw0rd1",
    ],
)
def test_a_placeholder_is_refused(password: str) -> None:
    assert "placeholder" in user_problems([{"name": "alice", "password": password}])[0]


@pytest.mark.parametrize(
    "password", ["correct horse battery", "kX93-pqLm", "Passwordless-travel-4", "adminton-court-9"]
)
def test_a_real_password_is_no_placeholder(password: str) -> None:
    assert user_problems([{"name": "alice", "password": password}]) == []


def test_the_brokers_password_is_refused() -> None:
    problems = user_problems([GOOD], broker_urls=["redis://:Blau-7-Segel@h/0"])
    assert problems == ["flower_users: user 'alice' has the broker's password: choose another one for signing in."]


@pytest.mark.parametrize("password", ["x", "changeme", "alice"])
def test_a_weak_password_can_be_allowed(password: str) -> None:
    assert user_problems([{"name": "alice", "password": password}], allow_weak=True) == []


def test_what_cannot_work_is_never_allowed() -> None:
    assert user_problems([{"name": "a:b", "password": "x"}], allow_weak=True)
