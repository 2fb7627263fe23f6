"""Fixtures of the tests of single sign-on: one host, and a certified provider that runs beside the tests."""

from __future__ import annotations

import json
import secrets as random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from tests.authority import Authority
from tests.browser.chromium import chromium, person
from tests.hosts import Host, host_names, scenario_secrets, wait_for
from tests.idp.provider import IdentityProvider, free_port
from tests.plays import Play, run_play

# Without a scenario there is no host to look at; molecule/shared/verify.yml asserts that there is one.
collect_ignore_glob = [] if host_names() else ["test_*.py"]

PROVIDER_NAME = "id.test"
CA_BUNDLE = "/etc/ssl/id-test.pem"
SECONDS = 1000.0  # milliseconds
ACCOUNTS: dict[str, dict[str, Any]] = {
    "ada": {"email": "ada@example.org", "email_verified": True, "groups": ["celery-operators", "staff"]},
    "vera": {"email": "vera@example.org", "email_verified": True, "groups": ["staff"]},
    "mallory": {"email": "mallory@elsewhere.example", "email_verified": True, "groups": []},
}


@dataclass
class Audit:
    """What the audit log in the host's journal says."""

    host: Host
    seen: int = 0

    def line(self, event: str, seconds: float = 20) -> dict[str, Any]:
        """The newest line of a kind that nobody has read before."""

        def look() -> dict[str, Any] | None:
            fresh = [line for line in self.lines()[self.seen :] if line["event"] == event]
            return fresh[-1] if fresh else None

        found: dict[str, Any] = wait_for(f"an audit line {event!r}", look, seconds, every=0.2)
        self.seen = len(self.lines())
        return found

    def lines(self) -> list[dict[str, Any]]:
        """All of it, the newest last."""
        journal = self.host.run("journalctl", "-u", "flower@main", "--no-pager", "-o", "json")
        messages = [str(json.loads(line)["MESSAGE"]) for line in journal.splitlines()]
        return [json.loads(message.removeprefix("audit ")) for message in messages if message.startswith("audit {")]


@dataclass
class Door:
    """The front door as people use it: each visit is a person with cookies of their own."""

    host: Host
    provider: IdentityProvider
    gateway: str
    browser: Browser
    cookies: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def visit(self) -> Iterator[BrowserContext]:
        """Somebody who was never here."""
        with person(self.browser) as context:
            context.set_default_timeout(20 * SECONDS)
            yield context

    def sign_in(self, context: BrowserContext, login: str, path: str = "/") -> Page:
        """Go to a page, be sent to the provider, and come back."""
        page = context.new_page()
        page.goto(f"https://{self.host.server_name}{path}")
        page.get_by_label("User name").fill(login)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(f"https://{self.host.server_name}/**")
        # Tornado's signed values end in their signature; what stands before it is no secret (a time, a length).
        ours = [
            cookie for cookie in context.cookies() if cookie["domain"] == self.host.server_name and cookie["httpOnly"]
        ]
        self.cookies.update({cookie["name"]: cookie["value"].rpartition("|")[2] for cookie in ours})
        return page


class Apply(Protocol):
    """Applies site.yml to the host with these variables over the scenario's."""

    def __call__(self, variables: dict[str, Any], *options: str) -> Play: ...


@pytest.fixture(scope="session")
def host() -> Host:
    """The one host of the scenario."""
    (name,) = host_names()
    return Host(name)


@pytest.fixture(scope="session")
def gateway(host: Host) -> str:
    """The address of this machine as the host sees it."""
    return host.shell("ip -4 route show default | cut -d' ' -f3").strip()


@pytest.fixture(scope="session")
def client_secret() -> str:
    """What the provider and the host know; of characters that break careless quoting of forms and headers."""
    return random.token_urlsafe(16) + "+/ %:&=" + random.token_urlsafe(16)


@pytest.fixture(scope="session")
def provider(
    host: Host, gateway: str, client_secret: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[IdentityProvider]:
    """The provider, which the host knows by name and whose CA it has a copy of."""
    authority, folder = Authority.new(), tmp_path_factory.mktemp("provider")
    certificate, key = authority.issue(PROVIDER_NAME)
    (folder / "certificate.pem").write_text(certificate)
    (folder / "key.pem").write_text(key)
    host.run("install", "-m", "0644", "/dev/stdin", CA_BUNDLE, stdin=authority.pem)
    host.shell(f"grep -q ' {PROVIDER_NAME}$' /etc/hosts || echo {gateway} {PROVIDER_NAME} >> /etc/hosts")
    client = {
        "client_id": "flower",
        "client_secret": client_secret,
        "redirect_uris": [f"https://{host.server_name}/login"],
        "post_logout_redirect_uris": [f"https://{host.server_name}/logout"],
    }
    with IdentityProvider(
        issuer=f"https://{PROVIDER_NAME}:{free_port()}",
        address=gateway,
        certificate=folder / "certificate.pem",
        key=folder / "key.pem",
        clients=[client],
        accounts=ACCOUNTS,
    ) as started:
        yield started


@pytest.fixture(scope="session")
def play_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of every play, with -vvv and --diff."""
    log = tmp_path_factory.mktemp("plays") / "play.log"
    log.touch(0o600)
    return log


@pytest.fixture(scope="session")
def apply(play_log: Path) -> Apply:
    """See Apply."""

    def run(variables: dict[str, Any], *options: str) -> Play:
        play = run_play("site.yml", variables, "-vvv", "--diff", *options)
        with play_log.open("a", encoding="utf-8") as log:
            log.write(play.output)
        return play

    return run


@pytest.fixture(scope="session")
def variables(provider: IdentityProvider, client_secret: str) -> dict[str, Any]:
    """What an operator would write into the inventory."""
    return {
        "flower_auth": "oidc",
        "flower_oidc_issuer": provider.issuer,
        "flower_oidc_ca_bundle": CA_BUNDLE,
        "flower_oauth2_key": "flower",
        "flower_oauth2_secret": client_secret,
        "flower_access": [
            {"role": "viewer", "domains": ["example.org"]},
            {"role": "operator", "groups": ["celery-operators"]},
        ],
    }


@pytest.fixture(scope="session")
def door(host: Host, provider: IdentityProvider, gateway: str) -> Iterator[Door]:
    """See Door."""
    with chromium({host.server_name: host.address, PROVIDER_NAME: gateway}) as browser:
        yield Door(host, provider, gateway, browser)


@pytest.fixture(scope="session")
def audit(host: Host) -> Audit:
    """See Audit."""
    return Audit(host)


@pytest.fixture(scope="session")
def secrets() -> dict[str, str]:
    """The random secrets of this run."""
    return scenario_secrets()
