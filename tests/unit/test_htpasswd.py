"""Existing htpasswd files: what is taken as it is, and what is refused without being shown."""

from __future__ import annotations

import subprocess

import pytest
from ansible.errors import AnsibleFilterError
from hypothesis import given
from hypothesis import strategies as st
from passlib.hash import apr_md5_crypt, bcrypt, sha256_crypt, sha512_crypt

from filter_plugins.credentials import READ_SCHEMES, hashed_users, htpasswd_problems, htpasswd_users, user_problems
from flowerbed.auth import SCHEMES, verify
from flowerbed.settings import User

WORD = "some password"
ARGON2 = "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHRzb21lc2FsdA$YSBmYWtlIGhhc2ggb2YgMzIgYnl0ZXMgaW4gYWxs"
HASHES = {
    "2y": bcrypt.using(rounds=4, ident="2y").hash(WORD),
    "2b": bcrypt.using(rounds=4, ident="2b").hash(WORD),
    "2a": bcrypt.using(rounds=4, ident="2a").hash(WORD),
    "6": sha512_crypt.using(rounds=5000).hash(WORD),
    "6 with rounds": sha512_crypt.using(rounds=1000).hash(WORD),
    "5": sha256_crypt.using(rounds=5000).hash(WORD),
    "apr1": apr_md5_crypt.hash(WORD),
}


@pytest.mark.parametrize("kind", HASHES)
def test_a_good_hash_goes_all_the_way_to_a_sign_in(kind: str) -> None:
    text = f"alice:{HASHES[kind]}\n"
    assert htpasswd_problems(text) == []
    users = htpasswd_users(text)
    assert users == [{"name": "alice", "password_hash": HASHES[kind], "role": "viewer"}]
    assert user_problems(users) == []
    (stored,) = hashed_users(users)
    assert stored == {"name": "alice", "hash": HASHES[kind], "role": "viewer"}
    assert verify([User(**stored)], "alice", WORD)
    assert not verify([User(**stored)], "alice", WORD + "x")


@pytest.mark.parametrize("kind", ["-apr1", "-5", "-6"])
def test_what_openssl_makes_is_taken(kind: str) -> None:
    made = subprocess.run(
        ["openssl", "passwd", kind, "-stdin"], input=WORD, capture_output=True, text=True, check=True
    ).stdout.strip()
    (user,) = htpasswd_users(f"alice:{made}")
    assert verify([User("alice", user["password_hash"])], "alice", WORD)


def test_argon2_is_taken() -> None:
    assert htpasswd_users(f"alice:{ARGON2}", "operator")[0] == {
        "name": "alice",
        "password_hash": ARGON2,
        "role": "operator",
    }


def test_the_add_on_reads_whatever_is_taken() -> None:
    assert set(READ_SCHEMES) <= set(SCHEMES)


def test_a_file_as_people_have_it() -> None:
    apr1, bcrypt_2y = HASHES["apr1"], HASHES["2y"]
    text = f"\ufeff# the office\r\n\r\nzoë:{apr1}\r\n  bob:{bcrypt_2y}:a comment \r\n#old:{{SHA}}x\r\nmary ann:{apr1}"
    assert htpasswd_problems(text) == []
    users = htpasswd_users(text)
    assert [(user["name"], user["password_hash"]) for user in users] == [
        ("zoë", apr1),
        ("bob", bcrypt_2y),
        ("mary ann", apr1),
    ]


def test_no_file_is_no_problem() -> None:
    for nothing in ("", None):
        assert htpasswd_problems(nothing) == []
        assert htpasswd_users(nothing) == []


GOOD = HASHES["apr1"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("alice:{SHA}hushhushhushhushhush=", "line 1 has a SHA-1 hash, which is guessed billions of times a second"),
        ("alice:{SSHA}hushhushhush", "line 1 has a SHA-1 hash"),
        ("alice:hushHUSH/12.4", "line 1 has a hash of the old crypt(), or a plain password"),
        ("alice:hush hush", "line 1 has a password as plain text"),
        ("alice:{PLAIN}hush", "line 1 has a password as plain text"),
        ("alice:$y$j9T$hushhush$hushhush", "line 1 has a yescrypt hash, which the sign-in cannot read"),
        ("alice:$1$hushhush$hushhushhushhushhushhu", "line 1 has an MD5 hash"),
        ("alice:$2y$12$hushhush", "line 1 has a hash of a kind that the sign-in cannot read, or a damaged one"),
        ("alice:!hush", "line 1 has a hash of a kind that the sign-in cannot read, or a damaged one"),
        ("alice:", "line 1 has no password hash"),
        ("# comment\n\nhushhush", "line 3 is not of the form NAME:HASH"),
        (f":{GOOD}", "line 1 is not of the form NAME:HASH"),
        (f"alice:{GOOD}\nbob:{GOOD}\nalice:{GOOD}", "line 3 has the same user name as line 1"),
        (f"doctor:{GOOD}", "line 1 has a user name that is reserved for the health check"),
        (f"al\tice:{GOOD}", "line 1 has a user name with a control character"),
        (f"alice :{GOOD}", "line 1 has a user name with a control character or a blank at its end"),
        ("# nobody\n", "holds no user: give lines of the form NAME:HASH"),
        ("/etc/nginx/hush", "line 1 is not of the form NAME:HASH"),
    ],
)
def test_a_bad_line_is_one_sentence_without_name_and_hash(text: str, says: str) -> None:
    (problem,) = htpasswd_problems(text)
    assert problem.startswith("flower_htpasswd") and says in problem
    assert not any(word in problem for word in ("hush", "HUSH", "alice", GOOD))
    with pytest.raises(AnsibleFilterError) as caught:
        htpasswd_users(text)
    assert says in str(caught.value)


def test_a_bad_hash_is_told_how_to_make_a_good_one() -> None:
    (problem,) = htpasswd_problems("alice:{SHA}x", "my_file")
    assert problem.startswith("my_file: line 1 ")
    assert problem.endswith("make the line anew with `htpasswd -nB -C 12 NAME`.")


def test_all_bad_lines_are_named_at_once() -> None:
    problems = htpasswd_problems(f"a:plain\nb:{GOOD}\nc:{{SHA}}x\nd\n")
    assert [problem.split(" ")[2] for problem in problems] == ["1", "3", "4"]


@pytest.mark.parametrize("text", [{"alice": "hush"}, ["alice:hush"], 7, True])
def test_something_else_is_one_sentence(text: object) -> None:
    (problem,) = htpasswd_problems(text)
    assert problem.startswith("flower_htpasswd must be the text of an htpasswd file") and "hush" not in problem


def test_a_role_that_does_not_exist() -> None:
    with pytest.raises(AnsibleFilterError, match="role must be viewer or operator"):
        htpasswd_users(f"alice:{GOOD}", "admin")


@given(st.text())
def test_any_text_gives_users_or_sentences_and_no_other_error(text: str) -> None:
    if htpasswd_problems(text):
        with pytest.raises(AnsibleFilterError):
            htpasswd_users(text)
    elif text:
        assert user_problems(htpasswd_users(text)) == []


@pytest.mark.parametrize(
    "stored",
    [
        "$2y$31$" + "a" * 53,
        "$6$rounds=999999999$salt$" + "a" * 86,
        "$5$rounds=2000001$salt$" + "a" * 43,
        "$pbkdf2-sha256$5000001$c2FsdA$" + "a" * 43,
        "$scrypt$ln=21,r=8,p=1$c2FsdA$YWJj",
        "$argon2id$v=19$m=65536,t=101,p=4$c29tZXNhbHQ$YWJj",
    ],
)
def test_a_hash_that_would_block_everybody_is_refused(stored: str) -> None:
    assert ["takes too long" in problem for problem in htpasswd_problems(f"alice:{stored}")] == [True]
    assert ["takes too long" in problem for problem in user_problems([{"name": "a", "password_hash": stored}])] == [
        True
    ]
