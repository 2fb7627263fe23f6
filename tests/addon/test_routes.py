"""Who gets what: for every route that Flower registers, and every method, the anonymous, the viewer and the operator.

The table is written by hand from Flower 2.2.0's urls.py.  A route that a newer Flower adds and the table lacks fails
the first test; and it is closed to viewers, which later ones show.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from addon_support import BROWSER, Flower, Redis
from flower.urls import handlers
from passlib.hash import bcrypt

from flowerbed.auth import user_cookie
from flowerbed.settings import Credentials, User

#: what the guard says; anything else comes from behind it
LOGIN, UNKNOWN, DENIED = 302, 401, 403
#: what a person behind the guard gets of Flower for the arguments below: 404 and 400 are Flower's own words
BEHIND = (200, 204, 302, 400, 404, 405, 500, 503)


@dataclass(frozen=True)
class Route:
    """A route with an argument that names nothing, and what a method may change."""

    pattern: str
    path: str
    #: methods that only read, for viewers; "open" methods need nobody
    reads: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    opened: tuple[str, ...] = ()


TABLE = [
    Route(r"/", "/", reads=("GET",)),
    Route(r"/workers", "/workers", reads=("GET",)),
    Route(r"/worker/(.+)", "/worker/nobody", reads=("GET",)),
    Route(r"/task/(.+)", "/task/none", reads=("GET",)),
    Route(r"/tasks", "/tasks", reads=("GET",)),
    Route(
        r"/tasks/datatable",
        "/tasks/datatable?draw=1&start=0&length=1&order[0][column]=0&columns[0][data]=name",
        reads=("GET", "POST"),
    ),
    Route(r"/broker", "/broker", reads=("GET",)),
    Route(r"/api/workers", "/api/workers", reads=("GET",)),
    Route(r"/api/worker/shutdown/(.+)", "/api/worker/shutdown/nobody", changes=("POST",)),
    Route(r"/api/worker/pool/restart/(.+)", "/api/worker/pool/restart/nobody", changes=("POST",)),
    Route(r"/api/worker/pool/grow/(.+)", "/api/worker/pool/grow/nobody?n=3", changes=("POST",)),
    Route(r"/api/worker/pool/shrink/(.+)", "/api/worker/pool/shrink/nobody", changes=("POST",)),
    Route(r"/api/worker/pool/autoscale/(.+)", "/api/worker/pool/autoscale/nobody?min=1&max=2", changes=("POST",)),
    Route(r"/api/worker/queue/add-consumer/(.+)", "/api/worker/queue/add-consumer/nobody?queue=q", changes=("POST",)),
    Route(
        r"/api/worker/queue/cancel-consumer/(.+)", "/api/worker/queue/cancel-consumer/nobody?queue=q", changes=("POST",)
    ),
    Route(r"/api/tasks", "/api/tasks?limit=1", reads=("GET",)),
    Route(r"/api/task/types", "/api/task/types", reads=("GET",)),
    Route(r"/api/queues/length", "/api/queues/length", reads=("GET",)),
    Route(r"/api/task/info/(.*)", "/api/task/info/none", reads=("GET",)),
    Route(r"/api/task/apply/(.+)", "/api/task/apply/none", changes=("POST",)),
    Route(r"/api/task/async-apply/(.+)", "/api/task/async-apply/none", changes=("POST",)),
    Route(r"/api/task/send-task/(.+)", "/api/task/send-task/none", changes=("POST",)),
    Route(r"/api/task/result/(.+)", "/api/task/result/none", reads=("GET",)),
    Route(r"/api/task/abort/(.+)", "/api/task/abort/none", changes=("POST",)),
    Route(r"/api/task/timeout/(.+)", "/api/task/timeout/none?workername=nobody&hard=1", changes=("POST",)),
    Route(r"/api/task/rate-limit/(.+)", "/api/task/rate-limit/none?workername=nobody&ratelimit=1", changes=("POST",)),
    Route(r"/api/task/revoke/(.+)", "/api/task/revoke/none?terminate=true", changes=("POST",)),
    Route(r"/metrics", "/metrics", opened=("GET",)),
    Route(r"/healthcheck", "/healthcheck", opened=("GET",)),
    Route(r"/static/(.*)", "/static/favicon.ico", opened=("GET", "HEAD")),
    Route(r"/login/?", "/login", opened=("GET",)),
    Route(r"/logout", "/logout", opened=("GET",)),
    Route(r".*", "/no-such-page", opened=("GET", "POST")),
]
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
SECRET = secrets.token_urlsafe(32)
VIEWER = User("vera", bcrypt.using(rounds=4).hash("v"), "viewer")
OPERATOR = User("otto", bcrypt.using(rounds=4).hash("o"), "operator")
CREDENTIALS = Credentials(SECRET, (VIEWER, OPERATOR))

# A page of a newer Flower, which nobody has looked at: both of its methods say that they were reached.
NEWER = """
import tornado.web as _web
from flower.urls import handlers as _handlers
from flower.views import BaseHandler as _Base
class _New(_Base):
    @_web.authenticated
    def get(self, *_):
        self.write("reached")
    post = get
class _Seen(_New):
    viewer_methods = ("GET",)
_handlers[-1:-1] = [_web.url(r"/newer/(.+)", _New), _web.url(r"/seen", _Seen)]
"""


@pytest.fixture(scope="module")
def flower(flower_process: Callable[..., Flower], redis_server: Redis) -> Flower:
    """A Flower with a viewer and an operator, and a page that is not in the table."""
    users = [{"name": user.name, "hash": user.hash, "role": user.role} for user in CREDENTIALS.users]
    celery = {"broker_url": redis_server.url, "result_backend": redis_server.url}
    return flower_process(
        {"auth": "password", "secure_cookies": False, "url_prefix": ""},
        {"cookie_secret": SECRET, "users": users, "celery": celery},
        config="inspect_timeout = 100.0\n" + NEWER,
    )


def ask(flower: Flower, method: str, path: str, user: User | None) -> tuple[int, str]:
    """One request as a page's script sends it: same origin, with the token; the status and the text."""
    token = ask_token(flower)
    cookies = {"_xsrf": token}
    if user is not None:
        cookies["user"] = user_cookie(CREDENTIALS, user.name)
    headers = {**BROWSER, "X-XSRFToken": token}
    form = {"_xsrf": token} if method not in ("GET", "HEAD") else None
    answer = flower.request(method, path, headers, cookies=cookies, form=form)
    return answer.status, answer.text


_tokens: dict[int, str] = {}


def ask_token(flower: Flower) -> str:
    """The XSRF token of a page; good for all requests of the module."""
    if flower.port not in _tokens:
        _tokens[flower.port] = flower.request("GET", "/login", BROWSER).cookie_value("_xsrf")
    return _tokens[flower.port]


def test_every_route_of_this_flower_is_in_the_table() -> None:
    registered = {entry[0] if isinstance(entry, tuple) else entry.regex.pattern.rstrip("$") for entry in handlers}
    ours = {r"/logout", r"/newer/(.+)", r"/seen"}
    assert registered - ours - {route.pattern for route in TABLE} == set()


def test_the_table_has_no_route_that_is_gone() -> None:
    registered = {entry[0] if isinstance(entry, tuple) else entry.regex.pattern.rstrip("$") for entry in handlers}
    assert {route.pattern for route in TABLE} - registered == set()


@pytest.mark.parametrize("route", TABLE, ids=lambda route: route.pattern)
def test_the_anonymous(flower: Flower, route: Route) -> None:
    for method in METHODS:
        status, text = ask(flower, method, route.path, None)
        if method in route.opened:
            assert status not in (LOGIN, UNKNOWN), f"{method} {route.path}: {status} {text[:200]}"
        elif route.opened:
            assert status in (401, 403, 404, 405), f"{method} {route.path}: {status}"
        else:
            assert status in (LOGIN, UNKNOWN), f"{method} {route.path}: {status} {text[:200]}"


@pytest.mark.parametrize("route", TABLE, ids=lambda route: route.pattern)
def test_the_viewer(flower: Flower, route: Route) -> None:
    for method in METHODS:
        status, text = ask(flower, method, route.path, VIEWER)
        if method in route.reads or (method == "HEAD" and "GET" in route.reads) or method in route.opened:
            assert status in BEHIND, f"{method} {route.path}: {status} {text[:200]}"
        elif route.opened:
            assert status in (401, 403, 404, 405), f"{method} {route.path}: {status}"
        else:
            assert status == DENIED, f"{method} {route.path}: {status} {text[:200]}"
            if method != "HEAD":
                assert "Viewers may look" in text


@pytest.mark.parametrize("route", TABLE, ids=lambda route: route.pattern)
def test_the_operator(flower: Flower, route: Route) -> None:
    for method in (*route.reads, *route.changes, *route.opened):
        status, text = ask(flower, method, route.path, OPERATOR)
        assert status in BEHIND, f"{method} {route.path}: {status} {text[:200]}"
        assert "Viewers may look" not in text


@pytest.mark.parametrize(("path", "method"), [("/newer/x", "GET"), ("/newer/x", "POST"), ("/seen", "POST")])
def test_what_nobody_has_looked_at_is_closed_to_viewers(flower: Flower, path: str, method: str) -> None:
    assert ask(flower, method, path, None)[0] in (LOGIN, UNKNOWN)
    status, text = ask(flower, method, path, VIEWER)
    assert (status, "reached" in text) == (DENIED, False)
    assert ask(flower, method, path, OPERATOR) == (200, "reached")


def test_a_page_of_ones_own_can_be_opened_to_viewers(flower: Flower) -> None:
    assert ask(flower, "GET", "/seen", VIEWER) == (200, "reached")


def audit_lines(flower: Flower) -> list[str]:
    """The lines of the audit log."""
    return re.findall(r"^<5>audit (\{.*\})$", flower.log, re.MULTILINE)


def test_changes_and_refusals_are_written_down(flower: Flower) -> None:
    ask(flower, "POST", "/api/task/revoke/a%0Ab?terminate=true", OPERATOR)
    ask(flower, "POST", "/api/worker/shutdown/celery@one", VIEWER)
    ask(flower, "GET", "/workers", OPERATOR)
    lines = audit_lines(flower)
    revoked = next(line for line in lines if '"a\\nb"' in line)
    assert (
        '"user": "otto", "role": "operator", "address": "127.0.0.1", "via": "session", "action": "api/task/revoke"'
        in revoked
    )
    assert '"parameters": {"terminate": "true"}' in revoked
    refused = next(line for line in lines if '"celery@one"' in line)
    assert '"event": "refused", "user": "vera", "role": "viewer"' in refused
    assert not any('"user": "otto"' in line and '"action": "workers"' in line for line in lines)


def test_read_only_holds_for_operators_too(flower_process: Callable[..., Flower], redis_server: Redis) -> None:
    users = [{"name": user.name, "hash": user.hash, "role": user.role} for user in CREDENTIALS.users]
    closed = flower_process(
        {"auth": "password", "secure_cookies": False, "read_only": True},
        {"cookie_secret": SECRET, "users": users, "celery": {"broker_url": redis_server.url}},
    )
    for route in TABLE:
        for method in route.changes:
            status, text = ask(closed, method, route.path, OPERATOR)
            assert (status, text) == (DENIED, "This Flower is read-only\n"), route.path
        for method in route.reads:
            assert ask(closed, method, route.path, OPERATOR)[0] in BEHIND, route.path


def test_a_page_that_asks_nobody_keeps_flower_from_starting(
    flower_process: Callable[..., Flower], redis_server: Redis
) -> None:
    raw = """
import tornado.web as _web
from flower.urls import handlers as _handlers
class _Raw(_web.RequestHandler):
    def get(self):
        self.write("open")
_handlers[-1:-1] = [_web.url(r"/raw", _Raw)]
"""
    users = [{"name": OPERATOR.name, "hash": OPERATOR.hash}]
    started = flower_process(
        {"auth": "password"},
        {"cookie_secret": SECRET, "users": users, "celery": {"broker_url": redis_server.url}},
        config=raw,
        wait=False,
    )
    assert started.process.wait(20) == 78
    assert "nothing guards /raw" in started.log
