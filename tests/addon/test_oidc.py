"""Signing in to a real Flower through a real, certified OpenID Connect provider, which can be told to lie."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from addon_support import Flower, Redis, free_port
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jwt
from joserfc.jwk import JWKRegistry, RSAKey
from joserfc.jws import JWSRegistry
from oidc_support import Browser, Page, audit_lines, new_audit_line, new_provider, query

from flowerbed.id_token import ALGORITHMS, TokenError, access_token_hash, public_keys, verified_claims
from flowerbed.oidc import Attempt, Client, SignInError, claim_at
from flowerbed.settings import Credentials, Oidc, Settings
from tests.idp.provider import IdentityProvider

ACCOUNTS: dict[str, dict[str, Any]] = {
    "vera": {"email": "vera@example.org", "email_verified": True, "groups": ["flower-viewers", "others"]},
    "olga": {"email": "olga@example.org", "email_verified": True, "groups": ["flower-operators"]},
    "erik": {"email": "Erik@Example.org", "email_verified": True},
    "dora": {"email": "dora@partner.example", "email_verified": True, "groups": []},
    "clara": {"email": "clara@example.org", "email_verified": True, "department": "sre"},
    "nils": {"email": "nils@example.org", "email_verified": True, "groups": ["others"]},
    "uwe": {"email": "uwe@partner.example", "email_verified": False},
    "kim": {"preferred_username": "kim", "realm_access": {"roles": ["flower-admin"]}},
}
ACCESS: list[dict[str, Any]] = [
    {"role": "viewer", "groups": ["flower-viewers"]},
    {"role": "operator", "groups": ["flower-operators"]},
    {"role": "operator", "users": ["erik@example.org"]},
    {"role": "viewer", "domains": ["partner.example"]},
    {"role": "operator", "claims": {"department": ["sre"]}},
]
#: what provider.mjs does -> status, and the reason in the audit log
ATTACKS = {
    "nonce": (502, "nonce is not the one of this sign-in"),
    "no_nonce": (502, "nonce is not the one of this sign-in"),
    "expired": (502, "the ID token is refused: The token is expired"),
    "from_the_future": (502, "the ID token is refused: The token was issued in the future"),
    "not_yet": (502, "the ID token is refused: The token is not yet valid"),
    "audience": (502, "the ID token is refused: Invalid claim: 'aud'"),
    "two_audiences": (502, "for several clients"),
    "authorized_party": (502, "another client asked for it"),
    "issuer": (502, "the ID token is refused: Invalid claim: 'iss'"),
    "no_subject": (502, "the ID token is refused: Missing claim: 'sub'"),
    "access_token_hash": (502, "another access token"),
    "unknown_key": (502, "a key that the provider does not publish"),
    "forged": (502, "signature is wrong"),
    "changed": (502, "signature is wrong"),
    "none": (502, "signed with 'none'"),
    "hs256_secret": (502, "signed with 'HS256'"),
    "hs256_public_key": (502, "signed with 'HS256'"),
    "rubbish_token": (502, "not a signed token"),
    "no_token": (502, "no ID token"),
    "token_html": (502, "token: the answer is not a JSON object"),
    "token_error": (503, "token: the provider answers 500"),
    "userinfo_of_another": (502, "somebody else than the ID token"),
    "userinfo_html": (502, "userinfo: the answer is not a JSON object"),
    "email_unverified": (403, "the e-mail address is not verified"),
}
DISCOVERY_ATTACKS = {
    "discovery_html": (502, "discovery: the answer is not a JSON object"),
    "discovery_issuer": (502, "the provider calls itself"),
    "discovery_http": (502, "token_endpoint is not an https:// address"),
    "discovery_redirect": (502, "discovery: the provider answers 303|discovery: the provider answers 302"),
    "discovery_huge": (503, "no answer, or one that is too long"),
    "discovery_no_algorithms": (502, "no algorithm for ID tokens"),
    "discovery_no_secret": (502, "neither client_secret_basic nor client_secret_post"),
    "down": (503, "discovery: no answer"),
}


@dataclass
class Site:
    """A Flower, its provider, and what was seen of both."""

    flower: Flower
    provider: IdentityProvider
    certificate: Path
    credentials: dict[str, Any]
    browsers: list[Browser] = field(default_factory=list)

    def browser(self) -> Browser:
        self.browsers.append(Browser(self.certificate))
        return self.browsers[-1]

    def signed_in(self, login: str) -> Browser:
        browser = self.browser()
        page = browser.sign_in(self.flower.url + "/workers", login)
        assert (page.status, page.url) == (200, self.flower.url + "/workers"), page.message
        return browser

    def audit(self) -> list[dict[str, Any]]:
        return audit_lines(self.flower.log)

    def refused(self, login: str, browser: Browser | None = None) -> tuple[Page, dict[str, Any]]:
        """Tries to sign in; the page that comes of it and the line in the audit log."""
        before = len(self.audit())
        page = (browser or self.browser()).sign_in(self.flower.url + "/workers", login)
        return page, new_audit_line(lambda: self.flower.log, before, "sign-in refused")

    def may_change(self, browser: Browser) -> int:
        """The status of a change by a script with the browser's session; 403 is a viewer's."""
        token = secrets.token_hex(16)
        cookies = {"user": (browser.cookie("user") or "").strip('"'), "_xsrf": token}
        headers = {"X-XSRFToken": token}
        return self.flower.request("POST", "/api/worker/shutdown/nobody@nowhere", headers, cookies=cookies).status

    def settings(self, changes: dict[str, Any]) -> None:
        """Starts the same Flower again with some settings changed."""
        path = self.flower.directory / "flowerbed.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
        self.flower.stop()
        self.flower.start()


@dataclass
class Made:
    provider: IdentityProvider
    certificate: Path
    secret: str
    ports: dict[str, int]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """The provider, which knows two Flowers on ports that are chosen."""
    # what form-encoding must quote
    secret = secrets.token_urlsafe(24) + "%+&: ~"
    ports = {"flower": free_port(), "prefixed": free_port()}
    homes = {
        "flower": f"http://127.0.0.1:{ports['flower']}",
        "prefixed": f"http://127.0.0.1:{ports['prefixed']}/flower",
    }
    clients = [
        {
            "client_id": name,
            "client_secret": secret,
            "redirect_uris": [f"{home}/login"],
            "post_logout_redirect_uris": [f"{home}/logout"],
            "token_endpoint_auth_method": "client_secret_post" if name == "prefixed" else "client_secret_basic",
            "id_token_signed_response_alg": "ES256" if name == "prefixed" else "RS256",
        }
        for name, home in homes.items()
    ]
    directory = tmp_path_factory.mktemp("provider")
    with new_provider(directory, clients, ACCOUNTS) as provider:
        yield Made(provider, provider.certificate, secret, ports)


@pytest.fixture(autouse=True)
def honest(made: Made) -> None:
    """Each test begins with an honest provider."""
    made.provider.tell(mode="honest", accounts=ACCOUNTS)


def oidc_settings(made: Made, **changes: Any) -> dict[str, Any]:
    return {"issuer": made.provider.issuer, "ca_bundle": str(made.certificate), **changes}


@pytest.fixture(scope="module")
def site(made: Made, flower_process: Callable[..., Flower], redis_server: Redis) -> Site:
    settings = {
        "auth": "oidc",
        "secure_cookies": False,
        "access": ACCESS,
        "client_id": "flower",
        "redirect_uri": f"http://127.0.0.1:{made.ports['flower']}/login",
        "oidc": oidc_settings(made),
    }
    credentials = {
        "cookie_secret": secrets.token_hex(32),
        "client_secret": made.secret,
        "celery": {"broker_url": redis_server.url},
    }
    return Site(
        flower_process(settings, credentials, port=made.ports["flower"]), made.provider, made.certificate, credentials
    )


# ---- who gets in


@pytest.mark.parametrize(
    ("login", "role"),
    [("vera", "viewer"), ("olga", "operator"), ("erik", "operator"), ("dora", "viewer"), ("clara", "operator")],
)
def test_people_sign_in_with_the_role_that_a_rule_gives(site: Site, login: str, role: str) -> None:
    before = len(site.audit())
    browser = site.signed_in(login)
    line = new_audit_line(lambda: site.flower.log, before, "sign-in")
    assert line == {
        "event": "sign-in",
        "user": ACCOUNTS[login]["email"],
        "role": role,
        "address": "127.0.0.1",
        "via": "oidc",
    }
    # an operator comes as far as Flower's answer for an unknown worker, past the guard
    before = len(site.audit())
    assert site.may_change(browser) == (403 if role == "viewer" else 404)
    line = new_audit_line(lambda: site.flower.log, before, "refused" if role == "viewer" else "failed")
    assert line["role"] == role


def test_the_request_is_as_it_should_be(site: Site) -> None:
    browser = site.browser()
    page = browser.step(site.flower.url + "/login?next=/tasks")
    sent = query(page.headers["Location"])
    assert page.status == 302
    assert page.headers["Location"].startswith(site.provider.issuer + "/")
    assert (sent["response_type"], sent["client_id"], sent["scope"]) == ("code", "flower", "openid profile email")
    assert sent["code_challenge_method"] == "S256"
    assert len(sent["code_challenge"]) == 43
    assert sent["redirect_uri"] == site.flower.url + "/login"
    assert min(len(sent["state"]), len(sent["nonce"])) >= 32
    [cookie] = page.headers.get_all("Set-Cookie") or []
    assert {"HttpOnly", "Path=/login", "SameSite=Lax", "Max-Age=600"} <= set(cookie.split("; "))
    assert page.headers["Cache-Control"] == "no-store"


def test_somebody_whom_no_rule_fits_is_not_let_in(site: Site) -> None:
    browser = site.browser()
    page, line = site.refused("nils", browser)
    assert (page.status, line["user"], line["reason"]) == (403, "nils@example.org", "no rule of access fits")
    assert page.message.startswith("nils@example.org may not use this Flower.")
    assert browser.cookie("user") is None
    again, another = page.links()
    assert (again, query(another)) == ("/login?next=%2Fworkers", {"next": "/workers", "another": "1"})
    # the provider knows nils, so that only asking for it shows its form again
    assert browser.go(site.flower.url + again).status == 403
    form = browser.go(site.flower.url + another)
    assert "Sign in to the provider" in form.text
    page = browser.answer_provider(form, {"login": "olga"})
    assert (page.status, page.url) == (200, site.flower.url + "/workers")


def test_an_address_that_is_not_verified_counts_for_nothing(site: Site) -> None:
    page, line = site.refused("uwe")
    assert (page.status, line["reason"]) == (403, "the e-mail address is not verified")
    assert "verified" in page.message


def test_claims_may_be_in_the_id_token(site: Site) -> None:
    site.provider.tell(mode="claims_in_token")
    asked = site.provider.asked("userinfo")
    # everything that a rule needs is there for somebody with all claims
    accounts = {"ann": {**ACCOUNTS["olga"], "department": "sre"}}
    site.provider.tell(accounts=accounts)
    site.signed_in("ann")
    assert site.provider.asked("userinfo") == asked


def test_a_token_of_our_own_making_is_as_good_as_the_providers(site: Site) -> None:
    # otherwise every attack would be refused for the wrong reason
    site.provider.tell(mode="resigned")
    site.signed_in("vera")


# ---- who does not


@pytest.mark.parametrize("mode", ATTACKS)
def test_an_attack_is_refused(site: Site, mode: str) -> None:
    site.provider.tell(mode=mode)
    browser = site.browser()
    page, line = site.refused("olga", browser)
    status, reason = ATTACKS[mode]
    assert (page.status, reason in line["reason"]) == (status, True), line
    assert browser.cookie("user") is None
    assert page.message
    assert "Location" not in page.headers


@pytest.mark.parametrize("mode", DISCOVERY_ATTACKS)
def test_a_provider_that_cannot_be_used_is_said(made: Made, mode: str) -> None:
    made.provider.tell(mode=mode)
    status, reason = DISCOVERY_ATTACKS[mode]
    with pytest.raises(SignInError) as caught:
        asyncio.run(client(made).metadata())
    assert caught.value.status == status
    assert re.search(reason, caught.value.reason), caught.value.reason


def test_a_state_counts_once(site: Site) -> None:
    browser, login = site.browser(), site.flower.url + "/login"
    page = browser.go(site.flower.url + "/tasks")
    back = browser.answer_provider(page, {"login": "vera"}, until=lambda place: place.startswith(login))
    kept = {f"oidc_{query(back.url)['state']}": browser.cookie(f"oidc_{query(back.url)['state']}") or ""}
    assert browser.go(back.url).status == 200
    # the browser has forgotten it, and so has Flower whatever copy there is
    before = len(site.audit())
    assert browser.step(back.url).status == 400
    assert (
        "not one that this browser began"
        in new_audit_line(lambda: site.flower.log, before, "sign-in refused")["reason"]
    )
    before = len(site.audit())
    answer = site.flower.request("GET", back.url.removeprefix(site.flower.url), cookies=kept)
    assert answer.status == 400
    assert new_audit_line(lambda: site.flower.log, before, "sign-in refused")["reason"] == "the state was used before"


def test_a_sign_in_of_another_browser_is_refused(site: Site) -> None:
    mallory, victim, login = site.browser(), site.browser(), site.flower.url + "/login"
    page = mallory.go(site.flower.url + "/")
    back = mallory.answer_provider(page, {"login": "olga"}, until=lambda place: place.startswith(login))
    victim.go(site.flower.url + "/")
    page = victim.go(back.url)
    assert (page.status, victim.cookie("user")) == (400, None)
    assert "another browser" in page.message


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"state": "x" * 32}, "the state is not one that this browser began within ten minutes"),
        ({"state": None}, "the state is not one that this browser began within ten minutes"),
        ({"iss": "https://elsewhere.example"}, "the answer is from another provider (iss)"),
        ({"iss": None}, "the answer is from another provider (iss)"),
        ({"code": None}, "the answer holds no code"),
        ({"code": "wrong"}, "token: the provider does not take the code (invalid_grant)"),
        ({"code": ["right", "wrong"]}, "the answer holds no code"),
    ],
    ids=str,
)
def test_an_answer_that_was_changed_is_refused(site: Site, changed: dict[str, Any], reason: str) -> None:
    browser, login = site.browser(), site.flower.url + "/login"
    page = browser.go(site.flower.url + "/")
    back = browser.answer_provider(page, {"login": "olga"}, until=lambda place: place.startswith(login))
    answer = {name: value for name, value in {**query(back.url), **changed}.items() if value is not None}
    before = len(site.audit())
    page = browser.step(f"{login}?{urlencode(answer, doseq=True)}")
    assert (page.status, browser.cookie("user")) == (400, None)
    assert new_audit_line(lambda: site.flower.log, before, "sign-in refused")["reason"] == reason


def test_a_cookie_that_was_changed_is_refused(site: Site) -> None:
    browser, login = site.browser(), site.flower.url + "/login"
    page = browser.go(site.flower.url + "/")
    back = browser.answer_provider(page, {"login": "olga"}, until=lambda place: place.startswith(login))
    name = f"oidc_{query(back.url)['state']}"
    value = (browser.cookie(name) or "").strip('"')
    changed = value[:-1] + ("0" if value[-1] != "0" else "1")
    path = back.url.removeprefix(site.flower.url)
    assert site.flower.request("GET", path, cookies={name: changed}).status == 400
    # under another state's name it is no good either
    other = path.replace(query(back.url)["state"], "y" * 32)
    assert site.flower.request("GET", other, cookies={f"oidc_{'y' * 32}": value}).status == 400


def test_saying_no_at_the_provider(site: Site) -> None:
    browser = site.browser()
    page = browser.answer_provider(browser.go(site.flower.url + "/tasks"), {"cancel": "1"})
    assert page.status == 403
    assert "Location" not in page.headers
    # what was wanted is not forgotten
    assert page.links()[0] == "/login?next=%2Ftasks"


# ---- coming and going


def test_two_tabs(site: Site) -> None:
    browser = site.browser()
    first, second = browser.go(site.flower.url + "/tasks"), browser.go(site.flower.url + "/broker")
    assert browser.answer_provider(second, {"login": "vera"}).url == site.flower.url + "/broker"
    assert browser.answer_provider(first, {"login": "vera"}).url == site.flower.url + "/tasks"


def test_many_unfinished_attempts_do_not_pile_up(site: Site) -> None:
    browser = site.browser()
    for _ in range(50):
        browser.step(site.flower.url + "/login")
    left = [cookie for cookie in browser.jar if cookie.name.startswith("oidc_")]
    assert 0 < len(left) <= 20
    assert browser.sign_in(site.flower.url + "/tasks", "vera").status == 200


@pytest.mark.parametrize(
    "target", ["https://elsewhere.example/", "//elsewhere.example", "/\\elsewhere.example", "javascript:alert(1)",
               "/login", "/login?next=/login", "/" + "x" * 600]
)  # fmt: skip
def test_next_leads_nowhere_else(site: Site, target: str) -> None:
    browser = site.browser()
    page = browser.sign_in(site.flower.url + "/login?" + urlencode({"next": target}), "vera")
    assert (page.status, page.url) == (200, site.flower.url + "/")
    # the same for somebody who is signed in already
    if len(target) < 512:
        place = browser.step(site.flower.url + "/login?" + urlencode({"next": target})).headers["Location"]
        assert place == "/"


def test_next_is_kept_with_its_query(site: Site) -> None:
    assert site.browser().sign_in(site.flower.url + "/tasks?state=FAILURE", "vera").url.endswith("/tasks?state=FAILURE")


def test_logout_signs_out_at_the_provider_too(site: Site) -> None:
    browser = site.signed_in("vera")
    page = browser.go(site.flower.url + "/logout")
    assert page.url.startswith(site.provider.issuer + "/session/end?")
    sent = query(page.url)
    assert (sent["client_id"], sent["post_logout_redirect_uri"]) == ("flower", site.flower.url + "/logout")
    assert browser.cookie("user") is None
    hidden = re.search(r'name="xsrf" value="([^"]+)"', page.text)
    assert hidden
    page = browser.go(site.provider.issuer + "/session/end/confirm", {"xsrf": hidden[1], "logout": "yes"})
    assert page.url.startswith(site.flower.url + "/logout?")
    assert page.status == 200
    # Flower 2.1 has no page for it, and gets ours
    assert re.search("logged out|signed out", page.text)
    # nothing signs in again by itself, and the provider asks who it is
    assert browser.cookie("user") is None
    assert "Sign in to the provider" in browser.go(site.flower.url + "/").text


def test_logout_without_a_session_goes_nowhere(site: Site) -> None:
    page = site.browser().step(site.flower.url + "/logout")
    assert page.status == 200
    assert re.search("logged out|signed out", page.text)


def test_scripts_are_told_401_and_never_sent_to_the_provider(site: Site) -> None:
    answer = site.flower.request("GET", "/api/workers")
    assert (answer.status, answer.headers["Location"]) == (401, None)
    assert site.flower.request("POST", "/login").status == 405


# ---- the provider is away


def test_a_provider_that_is_down_disturbs_nobody_who_is_in(site: Site) -> None:
    inside, login = site.signed_in("olga"), site.flower.url + "/login"
    coming = site.browser()
    page = coming.go(site.flower.url + "/tasks")
    back = coming.answer_provider(page, {"login": "vera"}, until=lambda place: place.startswith(login))
    site.provider.tell(mode="down")
    assert inside.go(site.flower.url + "/workers").status == 200
    before = len(site.audit())
    page = coming.step(back.url)
    assert (page.status, page.headers["Retry-After"]) == (503, "30")
    assert "cannot be reached" in page.message
    assert new_audit_line(lambda: site.flower.log, before, "sign-in refused")["reason"].startswith("token: no answer")
    assert inside.go(site.flower.url + "/logout", until=lambda place: place.startswith("https")).status == 302
    site.provider.tell(mode="honest")
    assert coming.sign_in(site.flower.url + page.links()[0], "vera").url == site.flower.url + "/tasks"


def test_the_doctor_needs_no_provider(site: Site) -> None:
    site.provider.tell(mode="down")
    settings = str(site.flower.directory / "flowerbed.json")
    command = [sys.executable, "-m", "flowerbed", "doctor", "--settings", settings, "--only", "ui,auth,tasks,metrics"]
    report = subprocess.run(command, env=site.flower.environment, capture_output=True, text=True, timeout=60)
    assert report.returncode == 0, report.stdout
    assert "a forged session is refused, the right one let in" in report.stdout
    assert "the task history answers" in report.stdout


def test_flower_starts_without_its_provider(site: Site) -> None:
    site.provider.tell(mode="down")
    site.settings({})
    browser = site.browser()
    for _ in range(2):
        page = browser.go(site.flower.url + "/tasks")
        assert (page.status, browser.hops[-1]) == (503, site.flower.url + "/login?next=%2Ftasks")
    site.provider.tell(mode="honest")
    assert browser.sign_in(site.flower.url + page.links()[0], "vera").url == site.flower.url + "/tasks"


def test_a_session_follows_the_rules_as_they_are_now(site: Site) -> None:
    vera, olga = site.signed_in("vera"), site.signed_in("olga")
    assert site.may_change(olga) == 404
    try:
        site.settings({"access": [{"role": "viewer", "groups": ["flower-operators"]}]})
        assert site.may_change(olga) == 403
        assert olga.step(site.flower.url + "/workers").status == 200
        assert vera.step(site.flower.url + "/workers").status == 302
        # once there and back, to a page that stays
        assert vera.go(site.flower.url + "/workers").status == 403
        # another client of the provider, and nobody is signed in any more
        site.settings({"access": ACCESS, "client_id": "another", "secure_cookies": True})
        assert olga.step(site.flower.url + "/workers").status == 302
        [cookie] = site.flower.request("GET", "/login").headers.get_all("Set-Cookie") or []
        assert {"Secure", "HttpOnly", "SameSite=Lax", "Path=/login"} <= set(cookie.split("; "))
    finally:
        site.settings({"access": ACCESS, "client_id": "flower", "secure_cookies": False})
    assert site.may_change(olga) == 404


# ---- other settings


@pytest.fixture(scope="module")
def prefixed(made: Made, flower_process: Callable[..., Flower], redis_server: Redis) -> Site:
    """Under a prefix; names and roles by other claims; a provider that takes the secret in the form only."""
    settings = {
        "auth": "oidc",
        "secure_cookies": False,
        "url_prefix": "/flower",
        "access": [{"role": "operator", "groups": ["flower-admin"]}],
        "client_id": "prefixed",
        "redirect_uri": f"http://127.0.0.1:{made.ports['prefixed']}/flower/login",
        "oidc": oidc_settings(
            made, username_claim="preferred_username", groups_claim="realm_access.roles", logout=False
        ),
    }
    credentials = {
        "cookie_secret": secrets.token_hex(32),
        "client_secret": made.secret,
        "celery": {"broker_url": redis_server.url},
    }
    return Site(
        flower_process(settings, credentials, port=made.ports["prefixed"]), made.provider, made.certificate, credentials
    )


def test_nested_claims_under_a_prefix_with_the_secret_in_the_form(prefixed: Site) -> None:
    prefixed.provider.tell(mode="discovery_only_post")
    before = len(prefixed.audit())
    browser = prefixed.signed_in("kim")
    line = new_audit_line(lambda: prefixed.flower.log, before, "sign-in")
    assert (line["user"], line["role"]) == ("kim", "operator")
    assert {cookie.path for cookie in browser.jar if cookie.name == "user"} == {"/flower"}
    # no sign-out at the provider is wanted here
    page = browser.go(prefixed.flower.url + "/logout")
    assert (page.status, browser.cookie("user")) == (200, None)
    page = browser.step(prefixed.flower.url + "/")
    assert page.headers["Location"].startswith("/flower/login?")


def test_a_name_that_is_missing_is_said(prefixed: Site) -> None:
    prefixed.provider.tell(mode="discovery_only_post")
    page, line = prefixed.refused("olga")
    assert (page.status, "preferred_username" in page.message) == (403, True)
    assert "preferred_username" in line["reason"]


# ---- the client, without a Flower around it


def client(made: Made, **changes: Any) -> Client:
    settings = Settings(
        auth="oidc",
        access=ACCESS,
        client_id="flower",
        redirect_uri="http://127.0.0.1/login",
        oidc=Oidc(**oidc_settings(made, **changes)),
    )
    return Client(settings, Credentials(client_secret=made.secret))


def test_discovery_is_asked_once_an_hour_whoever_asks(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask() -> None:
        asked, us = made.provider.asked("discovery"), client(made)
        await asyncio.gather(*(us.metadata() for _ in range(10)))
        await us.metadata()
        assert made.provider.asked("discovery") == asked + 1
        later = time.monotonic() + 3601
        monkeypatch.setattr("flowerbed.oidc.time.monotonic", lambda: later)
        await us.metadata()
        assert made.provider.asked("discovery") == asked + 2

    asyncio.run(ask())


def test_an_unknown_key_has_the_keys_asked_for_once_a_minute(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask() -> None:
        us = client(made)
        metadata = await us.metadata()
        asked = made.provider.asked("jwks")
        for _ in range(3):
            await us._public_keys(metadata, unknown=True)
        assert made.provider.asked("jwks") == asked + 1
        later = time.monotonic() + 61
        monkeypatch.setattr("flowerbed.oidc.time.monotonic", lambda: later)
        for _ in range(3):
            await us._public_keys(metadata, unknown=True)
        await us._public_keys(metadata)
        assert made.provider.asked("jwks") == asked + 2

    asyncio.run(ask())


@pytest.mark.parametrize("mode", ["honest", "discovery_only_post"])
def test_the_wrong_secret_is_said(made: Made, mode: str) -> None:
    made.provider.tell(mode=mode)
    us = client(dataclasses.replace(made, secret=secrets.token_hex(16)))
    with pytest.raises(SignInError, match=r"refuses this Flower's request \(invalid_client\)") as caught:
        asyncio.run(us.profile(Attempt.begin("/"), "code"))
    assert caught.value.status == 502


def test_a_provider_with_a_certificate_of_nobodys_is_not_spoken_to(made: Made) -> None:
    with pytest.raises(SignInError, match="the certificate is not trusted") as caught:
        asyncio.run(client(made, ca_bundle=None).metadata())
    assert caught.value.status == 503


def test_a_bundle_that_is_not_there_is_said(made: Made, tmp_path: Path) -> None:
    with pytest.raises(SignInError, match=r"oidc\.ca_bundle"):
        asyncio.run(client(made, ca_bundle=str(tmp_path / "none.pem")).metadata())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_that_counts(algorithm: str) -> None:
    kinds: dict[str, tuple[str, Any]] = {"ES256": ("EC", "P-256"), "ES384": ("EC", "P-384"), "ES512": ("EC", "P-521")}
    kind, size = kinds.get(algorithm, ("OKP", "Ed25519") if algorithm.startswith("Ed") else ("RSA", 2048))
    keys = [JWKRegistry.generate_key(kind, size) for _ in range(2)]
    now = int(time.time())
    claims = {"iss": "https://i.example", "sub": "s", "aud": ["c"], "exp": now + 60, "iat": now, "nonce": "n",
              "at_hash": access_token_hash("token", algorithm)}  # fmt: skip
    document = {"keys": [{**key.as_dict(private=False), "kid": key.thumbprint()} for key in keys]}
    header = {"alg": algorithm, "kid": keys[1].thumbprint(), "x5t": "an unknown header is no harm"}

    def verify(token: str, document: dict[str, Any]) -> dict[str, Any]:
        return verified_claims(
            token, public_keys(document), [algorithm], issuer="https://i.example", client_id="c", nonce="n",
            access_token="token",
        )  # fmt: skip

    registry = JWSRegistry(algorithms=[algorithm], strict_check_header=False)
    token = jwt.encode(header, claims, keys[1], registry=registry)
    assert verify(token, document) == claims
    # without a name only a single key will do
    nameless = jwt.encode({"alg": algorithm}, claims, keys[1], registry=registry)
    with pytest.raises(TokenError, match="does not say which"):
        verify(nameless, document)
    assert verify(nameless, {"keys": [{"kty": "oct", "k": "eHh4"}, {"kty": "RSA"}, document["keys"][1]]}) == claims
    with pytest.raises(TokenError, match="no public key"):
        verify(token, {"keys": [{"kty": "oct", "k": "eHh4"}, {**document["keys"][1], "use": "enc"}, "rubbish"]})


@pytest.mark.filterwarnings("ignore:Key size")
def test_a_short_key_does_not_count() -> None:
    key = rsa.generate_private_key(65537, 1024).public_key()
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(TokenError, match="no public key"):
        public_keys({"keys": [RSAKey.import_key(pem).as_dict()]})


def test_dotted_claims() -> None:
    claims = {"a": {"b": {"c": 1}, "d.e": 2}, "https://x.example/roles": ["r"], "f.g": 3, "f": {"g": 4}, "h": "text"}
    found = {
        path: claim_at(claims, path) for path in ("a.b.c", "a.d.e", "https://x.example/roles", "f.g", "h.i", "a.x")
    }
    assert list(found.values()) == [1, 2, ["r"], 3, None, None]


def test_the_verifier_is_not_to_be_had_from_what_others_see() -> None:
    one, other = Attempt.begin("/"), Attempt.begin("/")
    assert len({one.state, one.nonce, one.verifier, one.challenge, other.state, other.nonce, other.verifier}) == 7
    assert 43 <= len(one.verifier) <= 128


# ---- last: what all of this left in the log


def test_no_secret_is_in_the_log(site: Site, prefixed: Site) -> None:
    for place in (site, prefixed):
        log = place.flower.log
        seen = {value for browser in place.browsers for hop in browser.hops for name, value in query(hop).items()
                if name in ("code", "state", "nonce", "code_challenge") and len(value) > 12}  # fmt: skip
        cookies = {str(cookie.value) for browser in place.browsers for cookie in browser.jar}
        hidden = seen | cookies | {place.credentials["cookie_secret"], place.credentials["client_secret"]}
        assert len(hidden) > 10
        assert [value for value in hidden if value and value in log] == []
        # the beginning of every signed token
        assert "eyJ" not in log
        assert "Traceback" not in log
        assert "GET /login" in log or "sign-in" in log
