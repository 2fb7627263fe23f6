"""What is masked in the texts and structures of tasks, with evil values and in linear time."""

from __future__ import annotations

import json
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from celery.utils.saferepr import saferepr
from hypothesis import given, settings
from hypothesis import strategies as st

from flowerbed.redact import DEEPEST, LONGEST_FOR_PATTERNS, MASK, SECRET_NAMES, Redactor, without_url_passwords
from flowerbed.settings import Redact, SettingsError

KEYS = ["*password*", "*token*", "api_key", "authorization"]
REDACT = Redactor(Redact(keys=KEYS, arguments={"accounts.login": [1], "pay.*": [0, 2]}))
CARDS = Redactor(Redact(patterns=[r"\b4\d{15}\b", "tok_[a-z]+"]))

TEXTS = [
    ("{'user': 'bob', 'password': 'x', 'n': 1}", "{'user': 'bob', 'password': '***', 'n': 1}"),
    ("{'User_PassWord_2': 'x'}", "{'User_PassWord_2': '***'}"),
    ("{'X-Api-Key': 'a', 'api-key': 'x'}", "{'X-Api-Key': 'a', 'api-key': '***'}"),
    ("{'a': [{'b': {'password': 'x'}}, 'c']}", "{'a': [{'b': {'password': '***'}}, 'c']}"),
    ("{'password': 17, 'n': 1}", "{'password': '***', 'n': 1}"),
    ("{'password': {'a': [1, '}'], 'b': (2,)}, 'n': 1}", "{'password': '***', 'n': 1}"),
    ("{'password': <Secret 'x y'>, 'n': 1}", "{'password': '***', 'n': 1}"),
    ("{'password': Secret(x, 'y'), 'n': 1}", "{'password': '***', 'n': 1}"),
    ("{'password': {'x', 'y'}, 'n': 1}", "{'password': '***', 'n': 1}"),
    ("Login(user='bob', password='x, y', n=1)", "Login(user='bob', password='***', n=1)"),
    ("Login(password=17, n=1)", "Login(password=***, n=1)"),
    ("{'a': Login(password=None)}", "{'a': Login(password=***)}"),
    # JSON, JSON in a string, JSON in JSON
    ('{"password":"x","n":1}', '{"password":"***","n":1}'),
    ('{"password":17,"n":1}', '{"password":"***","n":1}'),
    ("""'{"password": "x", "n": 1}'""", """'{"password": "***", "n": 1}'"""),
    (r'"{\"password\": \"x\", \"n\": 1}"', r'"{\"password\": \"***\", \"n\": 1}"'),
    (r'"{\"password\": 17, \"n\": 1}"', r'"{\"password\": \"***\", \"n\": 1}"'),
    (r'{"pass\u0077ord": "x"}', r'{"pass\u0077ord": "***"}'),
    # quotes and backslashes that Celery does not escape
    (r"{'a': 'b\', 'password': 'x', 'n': 1}", r"{'a': 'b\', 'password': '***', 'n': 1}"),
    (r"{'password': 'x\\'y', 'n': 1}", "{'password': '***', 'n': 1}"),
    ("{\"bob's password\": 'x'}", "{\"bob's password\": '***'}"),
    # more than the value where its end cannot be told
    (r"{'password': 'x\', 'user': 'bob', 'n': 1}", "{'password': '***', 'n': 1}"),
    ("{'password': b'x', 'n': 1}", "{'password': b'***'}"),
    (r"{'password': ['x\', ', y]z'], 'n': 1}", "{'password': '***'"),
    ("bad password='it's me' here", "bad password='***' here"),
    ("{'password': [1, 'x, 'n': 1}", "{'password': '***'"),
    # cut by Celery
    ("{'password': 'secr...', ...}", "{'password': '***', ...}"),
    ("{'password': 'secr", "{'password': '***'"),
    ("{'password': 'secr}", "{'password': '***'}"),
    ("{'n': 1, 'the new...': 'x...', ...}", "{'n': 1, 'the new...': '***', ...}"),
    ("{'password': , ...}", "{'password': , ...}"),
    # pairs and command lines
    ("[('Authorization', 'Bearer x'), ('a', 'b')]", "[('Authorization', '***'), ('a', 'b')]"),
    ("['mysql', '--password', 'x', 'y']", "['mysql', '--password', '***', 'y']"),
    ("['token', 'name', 'x']", "['token', 'name', 'x']"),
    ("mysql --password x --host y", "mysql --password *** --host y"),
    ("mysql --password=x y", "mysql --password=*** y"),
    # messages and source lines
    ("ValueError('Wrong password: a b')", "ValueError('Wrong password: ***')"),
    ("Authorization: Bearer x\nHost: y", "Authorization: ***\nHost: y"),
    ("GET /?token=x&page=2 200", "GET /?token=*** 200"),
    ("    config['password'] = 'x' + y", "    config['password'] = '***' + y"),
    ("host=h password=x dbname=d", "host=h password=*** dbname=d"),
    ("password = x", "password = ***"),
    # nothing to mask
    ("{'user': 'bob'}", "{'user': 'bob'}"),
    ("the password is not here", "the password is not here"),
    ("", ""),
]


@pytest.mark.parametrize(("text", "masked"), TEXTS)
def test_texts(text: str, masked: str) -> None:
    assert REDACT.text(text) == masked
    # a state file is masked again whenever it is read
    assert REDACT.text(masked) == masked


def test_a_name_that_is_but_part_of_another_value() -> None:
    assert "y" not in REDACT.text("""{"password": "x", "a": "':", "token": ["y", {"b": "y"}]}""")


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("redis://:x@h:6379/0", "redis://:***@h:6379/0"),
        ("to amqp://bob:p@ss:w/rd@h//, then", "to amqp://bob:***@h//, then"),
        ("amqp://bob@example.org:x@h", "amqp://bob@example.org:***@h"),
        ("['redis://:x@h', 'bob@example.org']", "['redis://:***@h', 'bob@example.org']"),
        ("sentinel://:x@a;sentinel://:y@b", "sentinel://:***@a;sentinel://:***@b"),
        ("https://ghp_x@example.org/a", "https://***@example.org/a"),
        ("'redis://:secr...'", "'redis://:***'"),
        ("http://h:80/a... and https://example.org/@bob", "http://h:80/a... and https://example.org/@bob"),
        ("amqp://bob@h", "amqp://bob@h"),
    ],
)
def test_urls(text: str, masked: str) -> None:
    assert without_url_passwords(text) == masked == Redactor(Redact()).text(text)
    assert without_url_passwords(masked) == masked


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("('bob', 'x')", "('bob', '***')"),
        ("['bob', 'x', 3]", "['bob', '***', 3]"),
        ("('bob', {'a': [1, 2]}, 3)", "('bob', '***', 3)"),
        ("(<User a, b>, 'x')", "(<User a, b>, '***')"),
        (r"('it\'s', 'x')", r"('it\'s', '***')"),
        ("('bob', 'secr...', ...)", "('bob', '***', ...)"),
        ("('bob',)", "('bob',)"),
        ("()", "()"),
        # items that cannot be told apart: all that follows
        (r"('bob\', 'x')", "('***')"),
        ("(User a, b, 'x')", "('***')"),
        ("(b'bob', 'x')", "('***')"),
        ("('bob', 'x", "('bob', '***'"),
        ("login of bob with x", "***"),
    ],
)
def test_positional(text: str, masked: str) -> None:
    assert REDACT.arguments("accounts.login", text) == masked
    assert REDACT.arguments("accounts.logout", text) == text
    # a name that is not known may be any
    assert REDACT.arguments(None, text) != text or text == masked


def test_structures() -> None:
    value = {
        "password": [1],
        "deep": [{"Token": "x"}, ("authorization", "x"), ["run", "--password", "x"]],
        "signature": {"task": "pay.card", "args": ["x", 2, "x"], "kwargs": {"api_key": "x"}},
        "text": '{"password": "x"}',
        "kept": [1, 2.5, None, True, "text"],
    }
    assert REDACT.value(value) == {
        "password": MASK,
        "deep": [{"Token": MASK}, ("authorization", MASK), ["run", "--password", MASK]],
        "signature": {"task": "pay.card", "args": [MASK, 2, MASK], "kwargs": {"api_key": MASK}},
        "text": '{"password": "***"}',
        "kept": [1, 2.5, None, True, "text"],
    }
    assert CARDS.value([4111111111111111, {"a tok_x": 1}]) == [MASK, {"a ***": 1}]
    deep: Any = "x"
    for _ in range(DEEPEST * 2):
        deep = [deep]
    assert "x" not in repr(REDACT.value(deep))


def test_events() -> None:
    event = {"type": "task-received", "uuid": "1", "name": "pay.card", "hostname": "tok_w1", "args": "('x', 'b', 'x')"}
    assert REDACT.event(event) == {**event, "args": "('***', 'b', '***')"}
    assert CARDS.event(event) is event  # nothing to mask is no copy
    # fields of the user's own, and an event whose name is not known
    own = REDACT.event(
        {"type": "task-progress", "uuid": "1", "token": 17, "info": {"password": "x"}, "args": "(1, 2, 3)"}
    )
    assert (own["token"], own["info"], own["args"]) == (MASK, {"password": MASK}, "('***', '***', '***')")
    # what a canvas of Celery's carries
    carried = {"type": "task-received", "name": "celery.starmap", "args": "({'task': 'pay.card'}, [['x']])"}
    assert REDACT.event(carried)["args"] == MASK
    assert REDACT.event({**carried, "args": "({'task': 'other'}, [['x']])"})["args"] != MASK

    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError

    assert REDACT.event({"type": "task-received", "name": 17, "args": "(1, 2)", "result": Broken()}) == {
        "type": "task-received",
        "name": 17,
        "args": MASK,
        "result": MASK,
    }


def test_requests_of_workers() -> None:
    request = {
        "id": "1",
        "name": "accounts.login",
        "args": ["bob", "x"],
        "kwargs": {"password": "x"},
        "time_start": 4.5,
    }
    masked = {**request, "args": ["bob", MASK], "kwargs": {"password": MASK}}
    assert REDACT.request(request) == masked
    assert REDACT.request({"eta": "now", "request": request}) == {"eta": "now", "request": masked}
    texts = {**request, "args": "('bob', 'x')", "kwargs": "{'password': 'x'}"}
    assert REDACT.request(texts) == {**request, "args": "('bob', '***')", "kwargs": "{'password': '***'}"}


def test_patterns() -> None:
    assert CARDS.text("card 4111111111111111 and 'tok_abc'") == "card *** and '***'"
    # whatever matches is masked, also across what is masked anyhow
    both = Redactor(Redact(keys=["pin"], patterns=[r"card=\d+ pin=\d+", "pi"]))
    assert both.text("card=12 pin=34 end") == "*** end"
    # a name is found although a pattern matches it
    assert "12" not in both.text("{'pin': '12'}")
    long = "a" * LONGEST_FOR_PATTERNS
    assert CARDS.text(long + "4111111111111111") == long + MASK


@pytest.mark.parametrize(
    ("redact", "words"),
    [
        (Redact(patterns=["a", "[x"]), ["flower_redact_patterns", "pattern 2", "unterminated character set"]),
        (Redact(patterns=["x*"]), ["flower_redact_patterns", "pattern 1", "empty text"]),
        (Redact(patterns=["(a+)+$"]), ["flower_redact_patterns", "pattern 1", "repeats"]),
        (Redact(patterns=[r"(\w+\s?)+:"]), ["flower_redact_patterns", "repeats"]),
        (Redact(keys=[""]), ["flower_redact_keys", "entry 1"]),
        (Redact(arguments={"a.b": [-1]}), ["flower_redact_arguments", "a.b", "from 0"]),
        (Redact(arguments={"a.b": ["1"]}), ["flower_redact_arguments", "a.b"]),  # type: ignore[list-item]
        (Redact(arguments={"a.b": 1}), ["flower_redact_arguments", "a.b"]),  # type: ignore[dict-item]
    ],
)
def test_settings_that_cannot_be_followed(redact: Redact, words: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        Redactor(redact)
    for word in words:
        assert word in str(caught.value)


def test_everyday_patterns_are_taken() -> None:
    Redactor(Redact(patterns=[r"[\w.+-]+@[\w-]+\.[\w.]+", r"\b(?:\d[ -]*?){13,16}\b", r"(?i)bearer\s+\S+", r"eyJ\S+"]))


@pytest.mark.parametrize(
    "evil",
    [
        "a-", "'", '"', "\\'", "password: x\n", "password=", "://a:", "://a:@", "password=(", "['token', 'x',",
        "('token', [", "password: ]]]]\n", " ", "\\", "'password': 'x' y,", "'password': b'", "<", "token,", "--token ",
        "{'password': [", "'password': '''", "...://a:", "password=(token=)",
    ],
)  # fmt: skip
def test_time_is_linear(evil: str) -> None:
    def seconds(length: int) -> float:
        text = (evil * length)[:length] + " password"
        best = 9e9
        for _ in range(3):
            started = time.process_time()
            REDACT.text(text)
            REDACT.arguments("accounts.login", text)
            best = min(best, time.process_time() - started)
        return best

    # four times the text; quadratic would be 16 times the time
    assert seconds(120_000) < 0.02 + 9 * seconds(30_000)


def test_values_within_values_are_linear_too() -> None:
    def seconds(depth: int) -> float:
        text = "password=(" * depth + "Z" + ")" * depth + " end"
        started = time.process_time()
        assert "Z" not in REDACT.text(text)
        return time.process_time() - started

    assert seconds(40_000) < 0.05 + 9 * seconds(10_000)


# ---------------------------------------------------------------- anything at all

#: every secret is full of Z, and nothing else has one
PLAIN = st.text(st.characters(exclude_characters="Z", exclude_categories=["Cs"]), max_size=12)
EVIL = st.text(st.sampled_from("ab'\"\\,:={}[]() \n.@/*é"), max_size=8)
SECRET = st.lists(EVIL, min_size=1, max_size=4).map(lambda parts: "Z" + "Z".join(parts) + "Z")
NAMES = st.sampled_from(["password", "db_password", "TOKEN", "user token 2", "api-key", "bob's password"])


@dataclass
class Login:
    user: Any
    password: Any
    items: list[Any] = field(default_factory=list)


@st.composite
def holders(draw: st.DrawFn) -> Any:
    """Something that holds secrets under telling names among other things, at some depth."""
    other = st.one_of(PLAIN, EVIL, st.integers(), st.none(), st.lists(st.one_of(EVIL, st.booleans()), max_size=2))
    secret = st.one_of(SECRET, SECRET.map(lambda text: [text, {"a": text}]), st.just(["Z", 1]))
    value: dict[Any, Any] = {}
    for _ in range(draw(st.integers(0, 2))):
        value[draw(st.one_of(PLAIN, EVIL))] = draw(other)
    value[draw(NAMES)] = draw(secret)
    for _ in range(draw(st.integers(0, 2))):
        value[draw(st.one_of(PLAIN, EVIL))] = draw(other)
    if draw(st.booleans()):
        value[draw(NAMES)] = draw(secret)
    wrap: Callable[[Any], Any] = draw(
        st.sampled_from(
            [
                lambda inner: inner,
                lambda inner: [1, inner, "a"],
                lambda inner: {"a": inner, "b": "it's"},
                lambda inner: (inner,),
                OrderedDict,
            ]
        )
    )
    return wrap(value)


RENDERINGS: list[Callable[[Any], str]] = [
    repr,
    saferepr,
    lambda value: saferepr(value, 60),
    lambda value: saferepr(value, 1024),
    json.dumps,
    lambda value: json.dumps(value, indent=2),
    lambda value: json.dumps(value, separators=(",", ":"), ensure_ascii=False),
    lambda value: repr(json.dumps(value)),
    lambda value: saferepr({"body": json.dumps(value)}),
    lambda value: json.dumps({"body": json.dumps(value), "n": 1}),
    lambda value: repr(ValueError(json.dumps(value))),
    lambda value: repr(Login("bob", "x", [value])),
    lambda value: repr({"login": Login("bob", value)}),
]


@settings(max_examples=250, deadline=None)
@given(holders(), st.sampled_from(RENDERINGS), st.booleans())
def test_no_secret_is_left_in_a_text(holder: Any, rendering: Callable[[Any], str], is_cut: bool) -> None:
    text = rendering(holder)
    if is_cut:
        text = text[: len(text) * 2 // 3] + "..."
    masked = REDACT.text(text)
    assert "Z" not in masked, (text, masked)
    assert REDACT.event({"type": "task-received", "name": "a", "kwargs": text, "result": text}).get("kwargs") == masked


@settings(max_examples=100, deadline=None)
@given(holders())
def test_no_secret_is_left_in_a_structure(holder: Any) -> None:
    assert "Z" not in repr(REDACT.value(holder))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(PLAIN, EVIL, st.integers(), st.lists(EVIL, max_size=2)), min_size=1, max_size=1), SECRET)
def test_no_secret_is_left_in_positional_arguments(before: list[Any], secret: str) -> None:
    arguments = (*before, secret, "after")
    for text in (repr(arguments), saferepr(arguments), saferepr(arguments, 1024), saferepr(arguments, 30)):
        assert "Z" not in REDACT.arguments("accounts.login", text), text
    assert "Z" not in repr(REDACT.arguments("accounts.login", list(arguments)))


GARBAGE = [*"ab'\"\\,:={}[]()<> \n.@/*-Z", "password", "token", "://", "b'"]


@settings(max_examples=250, deadline=None)
@given(st.lists(st.sampled_from(GARBAGE), max_size=60).map("".join))
def test_garbage_never_raises(text: str) -> None:
    for redactor in (REDACT, CARDS, Redactor(Redact(keys=["*"])), Redactor(Redact(), SECRET_NAMES)):
        assert isinstance(redactor.text(text), str)
    assert isinstance(REDACT.arguments("accounts.login", text), str)
    if not any(name in text.casefold() for name in ("password", "token")) and "://" not in text:
        assert REDACT.text(text) == text


def test_a_random_secret_in_every_rendering() -> None:
    secret = secrets.token_urlsafe(24)
    holder = {"user": "bob", "password": secret, "after": [1]}
    for rendering in RENDERINGS:
        text = rendering(holder)
        assert secret in text or text.endswith("...}")
        assert secret not in REDACT.text(text)
        assert REDACT.text(text).startswith(text[:6])
