"""Broker URLs: what broker_url writes, Kombu reads; what Kombu cannot read is said in one sentence."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from hypothesis import given
from hypothesis import strategies as st
from kombu import Connection
from kombu.utils.url import parse_url, url_to_parts

from filter_plugins.credentials import broker_credential_problems, broker_url, broker_url_parts, broker_url_problems

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
HOSTS = st.sampled_from(["localhost", "redis.example.org", "my_redis", "10.0.0.7", "::1", "2001:db8::7"])
NETWORK_PARTS = st.fixed_dictionaries(
    {"scheme": st.sampled_from(["redis", "rediss", "amqp", "amqps", "sentinel"]), "host": HOSTS},
    optional={
        "username": TEXTS,
        "password": TEXTS,
        "port": st.integers(1, 65535),
        "virtual_host": TEXTS,
        "query": st.dictionaries(TEXTS, TEXTS, max_size=3),
    },
)
SOCKET_PARTS = st.fixed_dictionaries(
    {"scheme": st.just("redis+socket"), "path": TEXTS.map(lambda text: "/run/" + text)},
    optional={"username": TEXTS, "password": TEXTS, "db": st.integers(0, 15)},
)


@given(NETWORK_PARTS)
def test_kombu_reads_every_part_back(parts: dict[str, Any]) -> None:
    read = url_to_parts(broker_url(parts))
    assert (read.scheme, read.hostname, read.port) == (parts["scheme"], parts["host"], parts.get("port"))
    assert (read.username, read.password) == (parts.get("username"), parts.get("password"))
    assert read.path == parts.get("virtual_host")
    assert read.query == parts.get("query", {})


@given(NETWORK_PARTS.filter(lambda parts: not parts.get("query")))
def test_a_kombu_connection_has_every_part(parts: dict[str, Any]) -> None:
    connection = Connection(broker_url(parts))
    assert connection.hostname == parts["host"]
    assert (connection.userid, connection.password) == (parts.get("username"), parts.get("password"))
    assert connection.alt == []


@given(SOCKET_PARTS)
def test_kombu_reads_a_unix_socket_back(parts: dict[str, Any]) -> None:
    connection = Connection(broker_url(parts))
    assert connection.transport_cls == "redis"
    # As kombu.transport.redis.Channel._connparams goes on.
    read = url_to_parts(connection.hostname)
    assert (read.scheme, "/" + read.path, read.username) == ("socket", parts["path"], parts.get("username"))
    assert read.password == parts.get("password")
    assert read.query == ({"virtual_host": str(parts["db"])} if "db" in parts else {})


@given(NETWORK_PARTS | SOCKET_PARTS)
def test_the_parts_are_read_back_by_the_other_filter(parts: dict[str, Any]) -> None:
    read = broker_url_parts(broker_url(parts))
    expected = {"virtual_host": str(parts["db"])} if "db" in parts else {}
    expected |= {key: value for key, value in parts.items() if key != "db"}
    assert {key: read[key] for key in expected} == expected


@given(NETWORK_PARTS | SOCKET_PARTS)
def test_parts_of_a_url_make_the_same_url_again(parts: dict[str, Any]) -> None:
    url = broker_url(parts)
    assert broker_url(broker_url_parts(url)) == url


@given(TEXTS, TEXTS)
def test_no_login_that_is_quoted_is_a_problem(username: str, password: str) -> None:
    parts = {"scheme": "redis", "username": username, "password": password, "host": "h", "db": 0}
    assert broker_url_problems(broker_url(parts)) == []


@pytest.mark.parametrize(
    "url",
    [
        "amqp://guest:guest@localhost:5672//",
        "amqps://user:p%40ss@rabbit.example.org/vhost",
        "redis://localhost",
        "redis://localhost:6379/0",
        "rediss://:pw@redis.example.org:6380/1?ssl_cert_reqs=CERT_REQUIRED",
        "redis://[::1]:6379/0",
        "sentinel://a:26379;sentinel://b:26379",
        ["redis://a/0", "redis://b/0"],
        "redis+socket:///run/redis/redis.sock?virtual_host=2",
        "redis+socket:///run/redis@1.sock",
    ],
)
def test_a_right_url_is_no_problem(url: Any) -> None:
    assert broker_url_problems(url) == []


EXAMPLE = "write it as redis://user:password@host:6379/0."


@pytest.mark.parametrize("url", [None, "", "  ", [], [""], "changeme", "<broker url>", "your_broker_url_here"])
def test_no_url_is_said_to_be_not_set(url: Any) -> None:
    assert broker_url_problems(url) == [f"flower_broker_url is not set: {EXAMPLE}"]


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (
            "http://h",
            "flower_broker_url: the scheme 'http' is not one of redis, rediss, amqp, amqps, sentinel, redis+socket: ",
        ),
        ("unix:///run/redis.sock", "write it as redis+socket:///run/redis/redis.sock."),
        ("hush@h:6379", "has no scheme"),
        ("redis://:hush@h:port/0", "the port is not a number"),
        ("redis://user:hush", "the port is not a number"),
        ("redis://:hush@h:99999/0", "the port is not between 1 and 65535"),
        ("redis://:hush@:6379/0", "the host is missing"),
        ("redis:///0", "the host is missing"),
        ("redis://:hu@sh@h/0", "an unquoted '@' before the last '@': write it as %40"),
        ("redis://:hu/sh@h/0", "an unquoted '/' before the last '@': write it as %2F"),
        ("redis://:hu#sh@h/0", "an unquoted '#' before the last '@': write it as %23"),
        ("redis://:hu?sh@h/0", "an unquoted '?' before the last '@': write it as %3F"),
        ("redis://:hu[sh@h/0", "an unquoted '[' before the last '@': write it as %5B"),
        ("redis://:hu%sh@h/0", "write a literal % as %25"),
        ("redis://:hu sh@h/0", "write a space as %20"),
        ("redis://:hush\n@h/0", "a line break"),
        ("redis://:hüsh@h/0", "not ASCII"),
        ("redis://:hush@h/zero", "a Redis database is a number"),
        ("redis://[::1/0", "cannot be read as a URL"),
        ("rediss://:hush@h/0?ssl_cert_reqs=maybe", "ssl_cert_reqs is not one of"),
        ("redis+socket://run/redis.sock", "three slashes"),
        (7, "flower_broker_url is a number and not text"),
    ],
)
def test_a_wrong_url_is_one_sentence_without_the_secret(url: Any, says: str) -> None:
    problems = broker_url_problems(url)
    assert len(problems) == 1
    assert says in problems[0]
    assert problems[0].startswith("flower_broker_url")
    assert "hush" not in problems[0] and "hu" not in problems[0].split()


@given(st.text())
def test_any_text_is_judged_without_an_exception(text: str) -> None:
    for sentence in broker_url_problems("redis://" + text) + broker_url_problems(text):
        assert sentence.startswith("flower_broker_url") and "\n" not in sentence


@given(st.text("a:/?#[]@%;+&= é\n"))
def test_a_url_without_a_problem_is_one_that_kombu_reads(text: str) -> None:
    url = "redis://" + text
    if not broker_url_problems(url):
        for piece in url.split(";"):
            parse_url(piece)
        Connection(url)


def test_a_semicolon_in_a_password_is_explained() -> None:
    assert any("write it as %3B" in sentence for sentence in broker_url_problems("redis://:hu;sh@h/0"))


def test_a_problem_in_a_list_says_which_url() -> None:
    assert broker_url_problems(["redis://a/0", "http://b"])[0].startswith("flower_broker_url (URL 2): the scheme")


def test_a_unix_socket_in_a_list_is_refused_since_kombu_cannot_switch_to_it() -> None:
    assert "cannot be one of several" in broker_url_problems(["redis://a/0", "redis+socket:///run/r.sock"])[0]


def test_the_sentence_names_the_variable_that_was_given() -> None:
    assert broker_url_problems(None, "flower_result_backend")[0].startswith("flower_result_backend is not set")


@pytest.mark.parametrize(
    "parts",
    [
        "redis://h",
        {"scheme": "http", "host": "h"},
        {"scheme": "redis"},
        {"scheme": "redis", "host": "h:6379"},
        {"scheme": "redis", "host": "h/0"},
        {"scheme": "redis", "host": "h", "port": "x"},
        {"scheme": "redis", "host": "h", "port": 65536},
        {"scheme": "redis", "host": "h", "pasword": "x"},
        {"scheme": "redis+socket", "path": "run/r.sock"},
        {"scheme": "redis+socket", "path": "/run/r.sock", "host": "h"},
    ],
)
def test_parts_that_make_no_url_are_refused(parts: Any) -> None:
    with pytest.raises(AnsibleFilterError, match=r"^broker_url: "):
        broker_url(parts)


@pytest.mark.parametrize("url", ["amqp://guest:guest@rabbit//", "amqp://rabbit//", "amqps://guest:guest@10.0.0.1/v"])
def test_guest_away_from_localhost_is_refused(url: str) -> None:
    assert "signs in as guest:guest at a host that is not localhost" in broker_credential_problems(url)[0]


@pytest.mark.parametrize(
    "url", ["amqp://guest:guest@localhost//", "amqp://guest:guest@127.0.0.1//", "amqp://[::1]//", "redis://h/0", "x"]
)
def test_guest_at_localhost_is_let_through(url: str) -> None:
    assert broker_credential_problems(url) == []


@pytest.mark.parametrize("password", ["changeme", "your_password_here", "CHANGE-ME", "password", "p%40ssw0rd", "xxxxx"])
def test_a_placeholder_for_the_brokers_password_is_refused(password: str) -> None:
    assert "holds a placeholder" in broker_credential_problems([f"redis://:{password}@localhost/0"])[0]
