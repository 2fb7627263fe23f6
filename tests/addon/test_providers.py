"""Signing in with Flower's own services and with a handler of one's own; the companies are in foreign_services.py."""

from __future__ import annotations

import hashlib
import hmac
import http.cookies
import json
import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import flower
import pytest
from addon_support import BROWSER, Flower, Redis, Response, wait_for
from foreign_services import AUTHORIZE, TOKEN, Services
from passlib.hash import sha512_crypt

from flowerbed.install import imported
from flowerbed.settings import Credentials, Settings, SettingsError
from flowerbed.web.providers import prepare

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "custom_sign_in"
PREFIX = "/flower"
BACK = f"https://flower.test{PREFIX}/login"
KINDS = ("github", "gitlab", "okta", "google")
#: little patience, and what only Google needs: its addresses are constants of Tornado's and ours
CONFIG = """
import logging as _logging
# Flower hides Tornado's access log, but not from those who debug
_logging.getLogger("tornado.access").addHandler(_logging.StreamHandler())
import flowerbed.web.providers as _providers
import flowerbed.web.service as _service
_service.TIMEOUT, _service.MAX_ANSWER, _service.MAX_PAGES = 1.5, 20_000, 3
_google = _providers.GoogleLoginHandler
_google._OAUTH_AUTHORIZE_URL = "https://{domain}/o/oauth2/v2/auth"
_google._OAUTH_ACCESS_TOKEN_URL = "https://{domain}/oauth2/v4/token"
_google.user_url = "https://{domain}/userinfo/v2/me"
"""
#: where each company says who somebody is
PROFILE = {
    "github": "/api/v3/user/emails",
    "gitlab": "/api/v4/user",
    "okta": "/oauth2/default/v1/userinfo",
    "google": "/userinfo/v2/me",
}


@dataclass
class Browser:
    """Cookies and a way through redirects, as one browser has them."""

    flower: Flower
    cookies: dict[tuple[str, str], str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def get(self, path: str, headers: dict[str, str] | None = None) -> Response:
        """One page of Flower's; `path` begins with the prefix."""
        assert path.startswith(self.flower.prefix), path
        answer = self.flower.request(
            "GET", path.removeprefix(self.flower.prefix), {**BROWSER, **(headers or {})}, cookies=self.sent(path)
        )
        self.take(answer)
        return answer

    def post(self, path: str) -> Response:
        """A change, with the page's token."""
        self.get(PREFIX + "/tasks")
        cookies = self.sent(PREFIX + path)
        return self.flower.request(
            "POST", path, {"X-Xsrftoken": cookies.get("_xsrf", ""), "Sec-Fetch-Site": "same-origin"}, cookies=cookies
        )

    def sent(self, path: str) -> dict[str, str]:
        where = urlsplit(path).path
        return {
            name: value
            for (name, place), value in self.cookies.items()
            if place in ("/", where) or where.startswith(place + "/")
        }

    def take(self, answer: Response) -> None:
        for line in answer.headers.get_all("Set-Cookie") or []:
            self.lines.append(line)
            for name, morsel in http.cookies.SimpleCookie(line).items():
                if morsel.value:
                    self.cookies[name, morsel["path"]] = morsel.value
                else:
                    self.cookies.pop((name, morsel["path"]), None)

    def leave(self, page: str = "/") -> str:
        """Asks for a page and goes to the login: where the browser is sent to."""
        answer = self.get(PREFIX + page)
        assert answer.status == 302, answer.text
        answer = self.get(answer.headers["Location"])
        assert answer.status == 302, answer.text
        return answer.headers["Location"]

    def sign_in(self, services: Services, page: str = "/") -> Response:
        """The whole way, up to the answer to the return."""
        back = services.authorize(self.leave(page))
        assert back.startswith(BACK + "?")
        return self.get(back.removeprefix("https://flower.test"))


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    companies = Services(tmp_path_factory.mktemp("services"))
    yield companies
    companies.close()


@pytest.fixture(autouse=True)
def well(services: Services) -> None:
    """Each test begins with companies that are well, and that know Ada."""
    services.failures.clear()
    services.asked.clear()
    services.seen.clear()
    services.answers.clear()
    services.answers.update(
        {
            "/api/v3/user/emails": [mail("ada@acme.test", primary=True)],
            "/api/v3/user/orgs": [],
            "/api/v3/user/teams": [],
            "/api/v4/user": {"email": "ada@acme.test", "confirmed_at": "2026-01-01T00:00:00Z"},
            "/api/v4/groups": {},
            "/oauth2/default/v1/userinfo": {"sub": "1", "email": "ada@acme.test", "email_verified": True},
            "/userinfo/v2/me": {"id": "1", "email": "ada@acme.test", "verified_email": True, "hd": "acme.test"},
        }
    )


def mail(address: str, *, verified: bool = True, primary: bool = False) -> dict[str, Any]:
    return {"email": address, "verified": verified, "primary": primary, "visibility": None}


ACCESS: list[dict[str, Any]] = [
    {"role": "operator", "users": ["Ada@acme.test"]},
    {"role": "viewer", "domains": ["acme.test", "other.test"]},
]
IN_GROUPS: list[dict[str, Any]] = [
    *ACCESS,
    {"role": "operator", "groups": ["acme/ops", "acme/platform/ops"]},
    {"role": "viewer", "groups": ["acme"]},
]
RULES = {"github": IN_GROUPS, "gitlab": IN_GROUPS, "okta": IN_GROUPS, "google": ACCESS}


class Starter:
    """Starts a Flower for each kind of sign-in once."""

    def __init__(self, flower_process: Callable[..., Flower], services: Services, redis: Redis) -> None:
        self.flower_process, self.services = flower_process, services
        self.started: dict[str, Flower] = {}
        self.alice, self.bob = secrets.token_urlsafe(12), secrets.token_urlsafe(12)
        users = [
            {"name": "alice", "hash": sha512_crypt.using(rounds=5000).hash(self.alice), "role": "operator"},
            {"name": "bob", "hash": sha512_crypt.using(rounds=5000).hash(self.bob), "role": "viewer"},
        ]
        self.credentials = {
            "cookie_secret": secrets.token_hex(32),
            "client_secret": services.client_secret,
            "users": users,
            "celery": {"broker_url": redis.url},
        }

    def settings(self, kind: str, access: list[dict[str, Any]]) -> dict[str, Any]:
        domain = self.services.domain
        return {
            "auth": kind,
            "url_prefix": PREFIX,
            "access": access,
            "client_id": self.services.client_id,
            "redirect_uri": BACK,
            "provider": {
                "github_domain": domain,
                "gitlab_domain": domain,
                "gitlab_min_access_level": 30,
                "okta_base_url": f"https://{domain}/oauth2/default",
            },
        }

    def __call__(self, kind: str) -> Flower:
        if kind not in self.started:
            self.started[kind] = self.start(self.settings(kind, RULES[kind]))
        return self.started[kind]

    def start(self, settings: dict[str, Any], path: Path | None = None, wait: bool = True) -> Flower:
        # the wrong addresses: what Flower's classes read at import must not count
        stray = {"FLOWER_GITHUB_OAUTH_DOMAIN": "evil.test", "FLOWER_OAUTH2_OKTA_BASE_URL": "https://evil.test"}
        environment = {"SSL_CERT_FILE": str(self.services.pem), **stray}
        if path is not None:
            files = Path(__file__).resolve().parents[2] / "roles" / "flower" / "files"
            environment["PYTHONPATH"] = f"{files}:{path}"
        config = CONFIG.format(domain=self.services.domain)
        return self.flower_process(
            settings, self.credentials, config=config, environment=environment, unix_socket=True, wait=wait
        )


@pytest.fixture(scope="module")
def started(flower_process: Callable[..., Flower], services: Services, redis_server: Redis) -> Starter:
    return Starter(flower_process, services, redis_server)


def audit_lines(site: Flower) -> list[dict[str, Any]]:
    return [json.loads(line) for line in re.findall(r"audit (\{.*\})", site.log)]


def last_audit_line(site: Flower, event: str) -> dict[str, Any]:
    """The newest line, which is written when the answer has gone already."""

    def found() -> dict[str, Any] | None:
        lines = audit_lines(site)
        return lines[-1] if lines and lines[-1]["event"] == event else None

    line: dict[str, Any] = wait_for(found, f"a line of audit: {event}", 5)
    return line


def sentence(answer: Response) -> str:
    found = re.search(r'id="message"[^>]*>([^<]*)<', answer.text)
    assert found, answer.text
    return found[1]


def change(browser: Browser) -> int:
    return browser.post("/api/task/revoke/no-such-task").status


@pytest.mark.parametrize("kind", KINDS)
def test_the_way_in(started: Starter, services: Services, kind: str) -> None:
    browser = Browser(started(kind))
    place = urlsplit(browser.leave("/tasks?state=FAILURE"))
    assert (place.scheme, place.netloc, place.path) == ("https", services.domain, AUTHORIZE[KINDS.index(kind)])
    query = {name: values[0] for name, values in parse_qs(place.query).items()}
    scopes = {"github": "user:email read:org", "gitlab": "read_api", "okta": "openid email groups"}
    assert query.pop("state")
    assert query == {
        "response_type": "code",
        "client_id": services.client_id,
        "redirect_uri": BACK,
        "scope": scopes.get(kind, "profile email"),
    }
    answer = browser.sign_in(services, "/tasks?state=FAILURE")
    # where they wanted to go, and no way back to the login
    assert (answer.status, answer.headers["Location"]) == (302, PREFIX + "/tasks?state=FAILURE")
    assert browser.get(answer.headers["Location"]).status == 200
    assert browser.get(PREFIX + "/login").headers["Location"] == PREFIX + "/"
    line = answer.cookie("user") or ""
    assert all(part in line for part in ("HttpOnly", "SameSite=Lax", f"Path={PREFIX};", "Secure", "Max-Age=43200"))
    states = [line for line in browser.lines if re.match(r'oauth_state_[\w-]{8}="?2\|', line)]
    assert len(states) == 2
    assert all("Secure" in line and "HttpOnly" in line and f"Path={PREFIX};" in line for line in states)
    assert change(browser) == 200
    changed = last_audit_line(started(kind), "change")
    assert (changed["user"], changed["role"], changed["via"]) == ("ada@acme.test", "operator", "session")
    signed = [line for line in audit_lines(started(kind)) if line["event"] == "sign-in"][-1]
    assert (signed["user"], signed["role"], signed["via"]) == ("ada@acme.test", "operator", kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_viewer_may_look_and_no_more(started: Starter, services: Services, kind: str) -> None:
    answers = services.answers
    answers["/api/v3/user/emails"] = [mail("grace@other.test", primary=True)]
    for path in ("/api/v4/user", "/oauth2/default/v1/userinfo", "/userinfo/v2/me"):
        answers[path] |= {"email": "grace@other.test", "hd": "Other.test"}
    browser = Browser(started(kind))
    assert browser.sign_in(services).status == 302
    assert browser.get(PREFIX + "/tasks").status == 200
    assert change(browser) == 403


@pytest.mark.parametrize("kind", KINDS)
def test_a_stranger_is_told_so_once(started: Starter, services: Services, kind: str) -> None:
    answers = services.answers
    answers["/api/v3/user/emails"] = [mail("eve@evil.test", primary=True), mail("ada@acme.test", verified=False)]
    for path in ("/api/v4/user", "/oauth2/default/v1/userinfo", "/userinfo/v2/me"):
        answers[path] |= {"email": "eve@evil.test"}
    browser = Browser(started(kind))
    answer = browser.sign_in(services)
    assert answer.status == 403
    assert re.match(r"eve@evil\.test may not use this Flower\. Ask its operator for access", sentence(answer))
    assert f'href="{PREFIX}/login"' in answer.text and answer.headers["Cache-Control"] == "no-store"
    assert not browser.sent(PREFIX + "/").get("user")
    line = last_audit_line(started(kind), "sign-in refused")
    assert line["user"] == "eve@evil.test" and line["via"] == kind
    assert line["reason"] == "no rule of access fits"


@pytest.mark.parametrize("kind", KINDS)
def test_the_way_back_is_for_the_browser_that_left_and_once(started: Starter, services: Services, kind: str) -> None:
    browser, other = Browser(started(kind)), Browser(started(kind))
    back = services.authorize(browser.leave()).removeprefix("https://flower.test")
    other.leave()
    before = len(services.tokens)
    # somebody else's browser, one that never left, a wrong state and none
    for visitor, address in (
        (other, back),
        (Browser(started(kind)), back),
        (browser, re.sub("state=[^&]*", "state=", back)),
        (browser, back.partition("&state")[0]),
    ):
        answer = visitor.get(address)
        assert answer.status == 403 and "begun in another window" in sentence(answer)
        assert answer.cookie("user") is None
    assert browser.get(back).status == 302
    assert not [name for name, _ in browser.cookies if name.startswith("oauth_state")]
    # the same address again: signed in already, so simply home
    again = browser.get(back)
    assert (again.status, again.headers["Location"]) == (302, PREFIX + "/")
    assert Browser(started(kind)).get(back).status == 403
    assert len(services.tokens) == before + 1


def test_several_tabs_at_once(started: Starter, services: Services) -> None:
    browser = Browser(started("github"))
    pages = ("/tasks", "/broker", "/")
    backs = [services.authorize(browser.leave(page)).removeprefix("https://flower.test") for page in pages]
    for page, back in zip(pages, backs, strict=True):
        answer = browser.get(back)
        assert (answer.status, answer.headers["Location"]) == (302, PREFIX + page)
    assert not [name for name, _ in browser.cookies if name.startswith("oauth_state")]


@pytest.mark.parametrize("kind", KINDS)
def test_somebody_who_said_no_there(started: Starter, kind: str) -> None:
    browser = Browser(started(kind))
    state = parse_qs(urlsplit(browser.leave()).query)["state"][0]
    answer = browser.get(f"{PREFIX}/login?" + urlencode({"error": "access_denied", "state": state}))
    assert answer.status == 403
    assert sentence(answer).endswith("did not sign you in: access_denied.")
    # and without a state nobody can be made to write into the audit
    before = len(audit_lines(started(kind)))
    answer = browser.get(f"{PREFIX}/login?error=access_denied&error_description=%3Cb%3E")
    assert answer.status == 403 and "another window" in sentence(answer) and "<b>" not in answer.text
    assert len(audit_lines(started(kind))) == before
    state = parse_qs(urlsplit(browser.leave()).query)["state"][0]
    answer = browser.get(f"{PREFIX}/login?" + urlencode({"error": "<script>x", "state": state}))
    assert sentence(answer).endswith("did not sign you in: an error.") and "<script>x" not in answer.text


BAD: dict[str, Any] = {
    "500": (500, b"<html>"),
    "401": (401, b"{}"),
    "a redirect": (302, b""),
    "no JSON": (200, b"<html>"),
    "no text": (200, b"\xff\xfe"),
    "a list": (200, b"[]"),
    "a number": (200, b"7"),
    "an empty object": (200, b"{}"),
    "an error": (200, b'{"error": "bad_verification_code"}'),
    "too much": (200, b'{"x": "' + b"x" * 30_000 + b'"}'),
    "no answer": None,
}


@pytest.mark.parametrize("failure", BAD)
@pytest.mark.parametrize("place", ["token", "profile"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_company_that_is_not_well(started: Starter, services: Services, kind: str, place: str, failure: str) -> None:
    path = TOKEN[KINDS.index(kind)] if place == "token" else PROFILE[kind]
    services.failures[path] = BAD[failure]
    browser = Browser(started(kind))
    answer = browser.sign_in(services)
    nobody = ("a list",) if kind == "github" else ("an empty object", "an error")
    if place == "profile" and failure in nobody:
        assert answer.status == 403 and "this Flower knows people by it" in sentence(answer)
    else:
        assert answer.status == 502, answer.text
        assert "gave no usable answer" in sentence(answer)
    assert answer.cookie("user") is None
    assert last_audit_line(started(kind), "sign-in refused")["via"] == kind
    assert "Traceback" not in answer.text + started(kind).log
    # a token goes to no other address
    assert "/elsewhere" not in services.seen


@pytest.mark.parametrize("path", [TOKEN[0], "/api/v3/user/emails"])
def test_a_company_that_is_slow(started: Starter, services: Services, path: str) -> None:
    services.failures[path] = "slow"
    answer = Browser(started("github")).sign_in(services)
    assert answer.status == 502 and "Try again in a minute" in sentence(answer)
    assert audit_lines(started("github"))[-1]["reason"] == "GitHub: no answer"


def groups_sign_in(started: Starter, services: Services, kind: str) -> Browser:
    """Eve, whom only her groups can let in."""
    services.answers["/api/v3/user/emails"] = [mail("eve@evil.test", primary=True)]
    services.answers["/api/v4/user"] |= {"email": "eve@evil.test"}
    services.answers["/oauth2/default/v1/userinfo"] |= {"email": "eve@evil.test"}
    browser = Browser(started(kind))
    browser.sign_in(services)
    return browser


def role(browser: Browser) -> str | None:
    if browser.get(PREFIX + "/tasks").status != 200:
        return None
    return "operator" if change(browser) == 200 else "viewer"


def test_github_organisations_and_teams(started: Starter, services: Services) -> None:
    orgs = [{"login": f"org{number}"} for number in range(150)]
    services.answers["/api/v3/user/orgs"] = [*orgs, {"login": "Acme"}]
    assert role(groups_sign_in(started, services, "github")) == "viewer"
    teams = [{"slug": "ops", "organization": {"login": f"org{number}"}} for number in range(250)]
    services.answers["/api/v3/user/teams"] = [*teams, {"slug": "ops", "organization": {"login": "acme"}}]
    assert role(groups_sign_in(started, services, "github")) == "operator"
    # a team of that name elsewhere, and an organisation that is called like a team, are others
    services.answers["/api/v3/user/orgs"] = [{"login": "ops"}]
    services.answers["/api/v3/user/teams"] = teams
    assert role(groups_sign_in(started, services, "github")) is None
    # only so many pages, each of a hundred
    services.answers["/api/v3/user/orgs"] = [*orgs, *orgs, *orgs, {"login": "acme"}]
    assert role(groups_sign_in(started, services, "github")) is None
    assert "GitHub names more groups than the first 300" in started("github").log
    services.failures["/api/v3/user/teams"] = (200, b'[{"slug": "ops"}]')
    assert role(groups_sign_in(started, services, "github")) is None


def test_github_addresses(started: Starter, services: Services) -> None:
    # the address with the highest role counts, and an unverified one never
    addresses = [mail("x@other.test", primary=True), mail("ada@acme.test", verified=False)]
    services.answers["/api/v3/user/emails"] = addresses
    browser = Browser(started("github"))
    browser.sign_in(services)
    assert role(browser) == "viewer"
    services.answers["/api/v3/user/emails"] = [mail("ada@acme.test"), mail("x@other.test", primary=True)]
    browser = Browser(started("github"))
    browser.sign_in(services)
    assert role(browser) == "operator"
    # addresses that look like many are none
    services.answers["/api/v3/user/emails"] = [mail("eve@evil.test,x@acme.test"), mail("<a@b>@acme.test")]
    answer = Browser(started("github")).sign_in(services)
    assert answer.status == 403 and "has no verified e-mail address of yours" in sentence(answer)


def test_gitlab_groups(started: Starter, services: Services) -> None:
    # 30 is asked for
    services.answers["/api/v4/groups"] = {"acme": 20, "Acme/platform/ops": 30}
    assert role(groups_sign_in(started, services, "gitlab")) == "operator"
    services.answers["/api/v4/groups"] = {"acme": 40, "acme/platform/ops": 20}
    assert role(groups_sign_in(started, services, "gitlab")) == "viewer"
    services.answers["/api/v4/groups"] = {"acme": 20, **{f"g{number}": 50 for number in range(120)}}
    assert role(groups_sign_in(started, services, "gitlab")) is None


def test_okta_groups(started: Starter, services: Services) -> None:
    services.answers["/oauth2/default/v1/userinfo"]["groups"] = ["Everyone", "acme"]
    assert role(groups_sign_in(started, services, "okta")) == "viewer"
    services.answers["/oauth2/default/v1/userinfo"]["groups"] = ["ACME"]
    assert role(groups_sign_in(started, services, "okta")) is None


@pytest.mark.parametrize(
    ("kind", "flag"), [("okta", "email_verified"), ("google", "verified_email"), ("gitlab", "confirmed_at")]
)
def test_an_address_that_is_not_verified(started: Starter, services: Services, kind: str, flag: str) -> None:
    for value in (False, None, "" if kind == "gitlab" else "true"):
        services.answers[PROFILE[kind]][flag] = value
        answer = Browser(started(kind)).sign_in(services)
        assert answer.status == 403
        assert "has not verified your e-mail address ada@acme.test" in sentence(answer)


@pytest.mark.parametrize("kind", KINDS)
def test_scripts_use_accounts_with_a_password(started: Starter, kind: str) -> None:
    site = started(kind)
    path = "/api/task/revoke/no-such-task"
    for name, password, changed in (("alice", started.alice, 200), ("bob", started.bob, 403)):
        assert site.request("GET", "/api/workers", basic=(name, password)).status == 200
        assert site.request("POST", path, basic=(name, password)).status == changed
        cross = {"Sec-Fetch-Site": "cross-site"}
        assert site.request("POST", path, cross, basic=(name, password)).status == 403
    assert site.request("GET", "/api/workers", basic=("alice", started.bob)).status == 401
    assert site.request("GET", "/api/workers").status == 401
    # there is no form to guess in
    assert site.request("POST", "/login", BROWSER, form={"username": "alice", "password": started.alice}).status == 405
    found = wait_for(
        lambda: [line for line in audit_lines(site) if (line["event"], line.get("via")) == ("change", "basic")],
        "a line",
    )
    assert (found[-1]["user"], found[-1]["role"]) == ("alice", "operator")


@pytest.mark.parametrize("kind", KINDS)
def test_a_session_may_not_be_used_by_another_site(started: Starter, services: Services, kind: str) -> None:
    browser = Browser(started(kind))
    browser.sign_in(services)
    path = "/api/task/revoke/no-such-task"
    cookies = browser.sent(PREFIX + path)
    assert started(kind).request("POST", path, {"Origin": "https://evil.test"}, cookies=cookies).status == 403
    if flower.VERSION >= (2, 2):
        assert started(kind).request("POST", path, cookies=cookies).status == 403


@pytest.mark.parametrize("kind", KINDS)
def test_signing_out_does_not_sign_in_again(started: Starter, services: Services, kind: str) -> None:
    browser = Browser(started(kind))
    browser.sign_in(services)
    answer = browser.get(PREFIX + "/logout")
    assert answer.status == 200
    assert "user" not in browser.sent(PREFIX + "/")


@pytest.mark.parametrize("kind", KINDS)
def test_next_stays_here(started: Starter, services: Services, kind: str) -> None:
    for target in ("//evil.test", "https://evil.test", "/\\evil.test", "/" + "x" * 5000, PREFIX + "/login?next=/"):
        browser = Browser(started(kind))
        place = browser.get(f"{PREFIX}/login?" + urlencode({"next": target})).headers["Location"]
        answer = browser.get(services.authorize(place).removeprefix("https://flower.test"))
        assert (answer.status, answer.headers["Location"]) == (302, PREFIX + "/")


def test_nothing_secret_is_in_the_logs(started: Starter, services: Services) -> None:
    for kind in KINDS:
        assert Browser(started(kind)).sign_in(services).status == 302
    secrets_ = [*services.secret, started.alice, started.bob]
    for kind, site in started.started.items():
        assert "/login" in site.log, kind
        assert [text for text in secrets_ if text in site.log] == [], kind
        assert not re.search(r"login\?\S*(code|state)=", site.log), kind


@pytest.mark.parametrize(
    ("kind", "rule", "text"),
    [
        ("okta", {"claims": {"a": ["b"]}}, "rule 1 names claims, of which auth 'okta' says nothing."),
        ("google", {"groups": ["a"]}, "rule 1 names groups, of which auth 'google' says nothing."),
        ("github", {"claims": {"a": ["b"]}}, "rule 1 names claims, of which auth 'github' says nothing."),
    ],
)
def test_rules_that_fit_nobody_are_refused(kind: str, rule: dict[str, Any], text: str) -> None:
    settings = Settings(auth=kind, access=[{"role": "viewer", **rule}])
    with pytest.raises(SettingsError, match=f"^access: {text}$"):
        prepare({}, settings, Credentials())


def test_a_domain_that_google_does_not_vouch_for(started: Starter, services: Services) -> None:
    # a Google account with an address of another.test: its owner may have left there long ago
    google = started("google")
    for domain in ({}, {"hd": None}, {"hd": "evil.test"}, {"hd": ""}):
        services.answers["/userinfo/v2/me"] = {"email": "grace@acme.test", "verified_email": True, **domain}
        assert Browser(google).sign_in(services).status == 403
        # somebody who is named is meant as they are
        services.answers["/userinfo/v2/me"]["email"] = "ada@acme.test"
        assert Browser(google).sign_in(services).status == 302


def test_what_is_asked_without_groups(started: Starter, services: Services) -> None:
    github = started.start(started.settings("github", ACCESS))
    assert role_in(github, services) == "operator"
    assert services.asked[-1]["scope"] == "user:email"
    assert not [path for path in services.seen if "orgs" in path or "teams" in path]


def role_in(site: Flower, services: Services) -> str | None:
    browser = Browser(site)
    browser.sign_in(services)
    return role(browser)


class TestCustom:
    """A handler of the user's own: the example in the documentation."""

    @pytest.fixture(scope="module", name="site")
    @staticmethod
    def custom_site(started: Starter) -> Flower:
        access = [
            {"role": "operator", "groups": ["ops"]},
            {"role": "viewer", "domains": ["acme.test"]},
            {"role": "viewer", "users": ["grace"]},
        ]
        settings = {**started.settings("custom", access), "client_id": None, "redirect_uri": None}
        settings["provider"] = {"handler": "custom_sign_in.PortalLoginHandler"}
        return started.start(settings, EXAMPLE)

    def ticket(self, started: Starter, browser: Browser, user: str, groups: str = "") -> str:
        """What the portal answers."""
        place = urlsplit(browser.leave("/tasks"))
        assert place.netloc == "portal.acme.example"
        state = parse_qs(place.query)["state"][0]
        signed = urlencode({"state": state, "user": user, "groups": groups})
        key = started.services.client_secret.encode()
        ticket = hmac.new(key, signed.encode(), hashlib.sha256).hexdigest()
        started.services.secret.append(ticket)
        return f"{PREFIX}/login?{signed}&ticket={ticket}"

    def test_roles(self, started: Starter, site: Flower) -> None:
        for user, groups, wanted in (
            ("ada@acme.test", "", "viewer"),
            ("ada@acme.test", "staff,ops", "operator"),
            ("GRACE", "", "viewer"),
        ):
            browser = Browser(site)
            answer = browser.get(self.ticket(started, browser, user, groups))
            assert answer.status == 302 and answer.headers["Location"].rstrip("/") == PREFIX
            line = answer.cookie("user") or ""
            assert f"Path={PREFIX};" in line and "HttpOnly" in line and "Secure" in line and "Max-Age=43200" in line
            assert role(browser) == wanted
        signed = [line for line in audit_lines(site) if line["event"] == "sign-in"]
        assert [(line["user"], line["via"]) for line in signed[-1:]] == [("GRACE", "custom")]

    @pytest.mark.parametrize("user", ["eve@evil.test", "eve@evil.test,x@acme.test", "@acme.test", "x" * 300])
    def test_whom_no_rule_fits(self, started: Starter, site: Flower, user: str) -> None:
        browser = Browser(site)
        answer = browser.get(self.ticket(started, browser, user))
        assert answer.status == 403
        assert "user" not in browser.sent(PREFIX + "/")
        assert sentence(answer)
        assert audit_lines(site)[-1]["event"] == "sign-in refused"

    def test_a_forged_ticket(self, started: Starter, site: Flower) -> None:
        browser = Browser(site)
        good = self.ticket(started, browser, "ada@acme.test")
        assert browser.get(good.replace("ada", "root")).status == 403
        # a ticket is good for the browser that asked for it, and once
        assert browser.get(good).status == 403
        good = self.ticket(started, browser, "ada@acme.test")
        assert Browser(site).get(good).status == 403
        assert browser.get(good).status == 302
        # Flower's own kind of cookie is no session
        assert site.request("GET", "/api/workers", cookies={"user": "ada@acme.test"}).status == 401

    def test_the_portals_cookie_is_secure(self, site: Flower) -> None:
        browser = Browser(site)
        browser.leave()
        line = next(line for line in browser.lines if line.startswith("portal_state="))
        assert "Secure" in line and "HttpOnly" in line and "SameSite=Lax" in line

    def test_nothing_secret_is_in_the_log(self, started: Starter, site: Flower) -> None:
        browser = Browser(site)
        assert browser.get(self.ticket(started, browser, "ada@acme.test")).status == 302
        assert "/flower/login" in site.log
        assert [text for text in started.services.secret if text in site.log] == []

    @pytest.mark.skipif(flower.VERSION < (2, 2), reason="before 2.2 Flower's own handler knows no enterprise server")
    def test_a_handler_that_inherits_from_flowers(self, started: Starter, services: Services, tmp_path: Path) -> None:
        text = "from flower.views.auth import GithubLoginHandler\nclass Mine(GithubLoginHandler):\n    pass\n"
        (tmp_path / "mine.py").write_text(text)
        settings = started.settings("custom", ACCESS)
        settings["provider"]["handler"] = "mine.Mine"
        site = started.start(settings, tmp_path)
        assert role_in(site, services) == "operator"
        services.answers["/api/v3/user/emails"] = [mail("grace@other.test")]
        assert role_in(site, services) == "viewer"
        services.answers["/api/v3/user/emails"] = [mail("eve@evil.test")]
        browser = Browser(site)
        assert browser.sign_in(services).status == 403
        assert "user" not in browser.sent(PREFIX + "/")
        services.failures[TOKEN[0]] = (200, b"{}")
        assert Browser(site).sign_in(services).status == 500
        assert [text for text in services.secret if text in site.log] == []

    @pytest.mark.parametrize(
        ("handler", "text"),
        [
            ("no_such_package.Handler", "ModuleNotFoundError"),
            ("flower.views.auth.Nobody", "AttributeError"),
            ("broken.Handler", "RuntimeError: not today"),
        ],
    )
    def test_a_handler_that_cannot_be_imported(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, handler: str, text: str
    ) -> None:
        (tmp_path / "broken.py").write_text("raise RuntimeError('not today')\n")
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(SettingsError, match=text):
            imported(handler)

    def test_a_handler_that_is_none(self, started: Starter) -> None:
        settings = started.settings("custom", ACCESS)
        settings["provider"] = {"handler": "custom_sign_in.PORTAL"}
        site = started.start(settings, EXAMPLE, wait=False)
        assert site.process.wait(timeout=20) == 78, site.log
        assert "Traceback" not in site.log
        said = site.log.strip().splitlines()[-1]
        assert said == "flowerbed: custom_sign_in.PORTAL must be a subclass of flower.views.BaseHandler."
