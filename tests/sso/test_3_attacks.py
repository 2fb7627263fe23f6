"""A provider that lies, or is down, and what people are told; each refusal is for the right reason."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.sso.conftest import Audit, Door

#: what the provider does to its answers, and a word of the reason in the audit log
LIES = {
    "nonce": "nonce",
    "no_nonce": "nonce",
    "expired": "exp",
    "audience": "aud",
    "unknown_key": "key",
    "forged": "signature",
    "none": "signed with 'none'",
    "hs256_secret": "signed with 'hs256'",
    "issuer": "iss",
    "email_unverified": "not verified",
}


def test_without_a_lie_people_come_in(door: Door, audit: Audit) -> None:
    """Or the refusals below would prove nothing."""
    with door.visit() as context, door.provider.mode("resigned"):
        page = door.sign_in(context, "ada")
        expect(page.locator("#workers-table")).to_be_visible()
    assert audit.line("sign-in")["user"] == "ada@example.org"


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_refused(door: Door, audit: Audit, lie: str) -> None:
    with door.visit() as context, door.provider.mode(lie):
        page = door.sign_in(context, "ada")
        expect(page.locator("#workers-table")).to_have_count(0)
        assert "user" not in {cookie["name"] for cookie in context.cookies() if "flower" in cookie["domain"]}
    line = audit.line("sign-in refused")
    assert LIES[lie] in line["reason"].lower(), line


def test_the_provider_is_down(door: Door, audit: Audit) -> None:
    """Flower starts without it; who is in stays in; who is not is told so, and the next attempt works."""
    with door.visit() as inside, door.visit() as outside:
        signed_in = door.sign_in(inside, "ada")
        with door.provider.mode("down"):
            # So that it knows nothing of the provider from before.
            door.host.run("systemctl", "restart", "flower@main")
            signed_in.goto(f"https://{door.host.server_name}/tasks")
            expect(signed_in.locator("#tasks-table")).to_be_visible()
            page = outside.new_page()
            answer = page.goto(f"https://{door.host.server_name}/")
            assert answer is not None
            assert answer.status == 503
            expect(page.locator("#message")).to_contain_text("cannot be reached")
        assert "no answer" in audit.line("sign-in refused")["reason"]
        page = door.sign_in(outside, "vera")
        expect(page.locator("#workers-table")).to_be_visible()


def test_an_answer_to_somebody_else(door: Door, audit: Audit) -> None:
    """Nobody can sign a victim in as himself by sending him the address that the provider sent to his own browser."""
    with door.visit() as attacker, door.visit() as victim:
        asked: list[str] = []
        attacker.on("request", lambda request: asked.append(request.url))
        door.sign_in(attacker, "ada")
        (address,) = [url for url in asked if "code=" in url]
        answer = victim.new_page().goto(address)
        assert answer is not None
        assert answer.status == 400
        assert "user" not in {cookie["name"] for cookie in victim.cookies()}
    assert "this browser" in audit.line("sign-in refused")["reason"]
