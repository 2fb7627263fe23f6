"""One play brings a host with single sign-on; what cannot work is refused before; a second play changes nothing."""

from __future__ import annotations

from typing import Any

from tests.hosts import Host
from tests.idp.provider import IdentityProvider
from tests.sso.conftest import Apply


def test_an_issuer_that_answers_rubbish_is_refused(
    apply: Apply, variables: dict[str, Any], provider: IdentityProvider, host: Host
) -> None:
    with provider.mode("discovery_html"):
        play = apply(variables)
    assert play.code != 0
    assert "flower_oidc_issuer: what answers there is no OpenID Connect provider" in play.message
    assert play.recap["changed"] == 0
    assert host.shell("ls -d /etc/flower /opt/flower 2>/dev/null || true") == ""


def test_an_issuer_with_another_name_is_refused(apply: Apply, variables: dict[str, Any]) -> None:
    play = apply({**variables, "flower_oidc_issuer": variables["flower_oidc_issuer"] + "/"})
    assert play.code != 0
    assert f"calls itself {variables['flower_oidc_issuer']}:" in play.message


def test_an_issuer_that_is_not_trusted_is_refused(apply: Apply, variables: dict[str, Any]) -> None:
    play = apply({**variables, "flower_oidc_ca_bundle": ""})
    assert play.code != 0
    assert "name its CA in flower_oidc_ca_bundle" in play.message


def test_a_check_on_the_empty_host(apply: Apply, variables: dict[str, Any]) -> None:
    apply(variables, "--check").well()


def test_one_play(apply: Apply, variables: dict[str, Any]) -> None:
    apply(variables).well()


def test_a_second_play_changes_nothing(apply: Apply, variables: dict[str, Any]) -> None:
    assert apply(variables).well().changed_tasks == []
    assert apply(variables, "--check").well().changed_tasks == []


def test_the_doctor_is_content(host: Host) -> None:
    said = host.run(
        "/opt/flower/main/current/bin/python", "-m", "flowerbed", "doctor",
        "--settings", "/etc/flower/main/flowerbed.json", "--wait", "60",
    )  # fmt: skip
    assert "FAIL" not in said
    assert "ok    auth" in said
