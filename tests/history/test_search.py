"""The syntax of searches: Flower's own, word for word, and what we add to it."""

from __future__ import annotations

import random
import string
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import pytest
from flower.utils import search as flower
from hypothesis import given
from hypothesis import strategies as st

from flowerbed.history.search import And, Or, Search, SearchError, Term, parse
from tests.history.test_query import holds

NOW = 1_000_000_000.0
PIECES = ['"', "\\", "(", ")", " ", " ", "abc", "defg", "AND", "OR", "NOT", "state:", "args:", "Worker:", "-", "a", ":"]


def theirs(text: str) -> Any:
    try:
        return plain(flower.parse_query(text))
    except flower.QuerySyntaxError:
        return "refused"


def ours(text: str) -> Any:
    try:
        return plain(parse(text, NOW).text)
    except SearchError as error:
        assert str(error).endswith(".")
        return "refused"


def plain(expression: Any) -> Any:
    if expression is None or isinstance(expression, flower.MatchAll):
        return None
    if hasattr(expression, "value"):
        value = expression.value
        return expression.field, value.upper() if expression.field == "state" else value
    return (type(expression).__name__, *map(plain, expression.children))


@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
def test_what_flower_understands_is_understood_alike(text: str) -> None:
    assert ours(text) == theirs(text)


def test_what_flower_understands_of_many_words() -> None:
    chance = random.Random(1)
    understood = 0
    for _ in range(20_000):
        text = "".join(chance.choice(PIECES) for _ in range(chance.randrange(1, 12)))
        assert ours(text) == theirs(text), text
        understood += ours(text) != "refused"
    assert understood > 3000


@given(st.text(max_size=300))
def test_anything_is_a_search_or_a_sentence(text: str) -> None:
    ours(text)


@pytest.mark.parametrize(
    "text",
    ["x" * 2049, "word " * 129, "(" * 6 + "word" + ")" * 6, "ab", "name:ab", "since:", "state:", "a\0bc", "\ud800abc"],
)
def test_what_is_too_much_or_too_little(text: str) -> None:
    with pytest.raises(SearchError):
        parse(text, NOW)


def test_the_keys_that_are_ours() -> None:
    assert parse("queue:bulk exception:Key id:4711 UUID:0815", NOW).text == And(
        (Term("queue", "bulk"), Term("exception", "Key"), Term("id", "4711"), Term("id", "0815"))
    )
    assert parse("nothing:known", NOW).text == Term(None, "nothing:known")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("since:90s", NOW - 90),
        ("since:30m", NOW - 1800),
        ("since:1.5h", NOW - 5400),
        ("since:7d", NOW - 7 * 86400),
        ("SINCE:2w", NOW - 14 * 86400),
        ("since:2001-09-09T01:46:40Z", NOW),
        ("since:2001-09-09T03:46:40+02:00", NOW),
        ('since:"2001-09-09 01:46:40+00:00"', NOW),
        ("since:2001-09-09", datetime(2001, 9, 9).timestamp()),  # noqa: DTZ001 - by the clock of this host
        ("(since:30m)", NOW - 1800),
    ],
)
def test_times(text: str, seconds: float) -> None:
    assert parse(text, NOW) == Search(received_from=seconds)
    assert parse(text.replace("since", "until").replace("SINCE", "UNTIL"), NOW) == Search(received_until=seconds)
    both = parse(f"abc {text} (def OR ghi)", NOW)
    assert both.received_from == seconds
    assert both.text == And((Term(None, "abc"), Or((Term(None, "def"), Term(None, "ghi")))))


@pytest.mark.parametrize(
    "text", ["since:yesterday", "since:5", "since:99999-01-01", "until:-2h", "since:2h OR abc", "abc OR (def until:1h)"]
)
def test_times_that_are_none(text: str) -> None:
    with pytest.raises(SearchError):
        parse(text, NOW)


# ------------------------------------------------------------------ kwargs:key=value


@given(
    st.dictionaries(
        st.sampled_from(["key", "other", "k"]),
        st.one_of(st.integers(-99, 99), st.booleans(), st.text(string.ascii_letters + " '", max_size=4)),
    ),
    st.sampled_from(["key", "KEY", "other", "k", "ey"]),
    st.one_of(st.integers(-99, 99).map(str), st.sampled_from(["true", "a", "it's"])),
)
def test_an_argument_is_found_as_flower_does(given_: dict[str, Any], name: str, value: str) -> None:
    """But for None, which Flower takes for an empty text."""
    task = SimpleNamespace(kwargs=repr(given_))
    search = parse(f'"kwargs:{name}={value}"', NOW).text
    assert search is not None
    pairs = flower._kwargs_pairs(repr(given_))
    assert holds(search, task) == (f"{name}={value}".casefold() in pairs)  # type: ignore[arg-type]
