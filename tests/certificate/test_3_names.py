"""A changed list of names gets a new certificate; what fails leaves the old one serving and says why."""

from __future__ import annotations

from typing import Any

import pytest

from tests.certificate.conftest import ALIAS, Site, both_see
from tests.certificate.pebble import Pebble, names_in
from tests.plays import Play, run_play

NOWHERE = "nowhere.flower.test"


@pytest.fixture
def with_alias(letsencrypt: dict[str, Any]) -> dict[str, Any]:
    """One name more."""
    return {**letsencrypt, "flower_server_aliases": [ALIAS]}


def says(play: Play, *words: str) -> None:
    """The play failed with one line that holds these words."""
    assert play.code != 0, "the play must fail"
    assert len(play.message.splitlines()) == 1, play.message
    assert [word for word in words if word not in play.message] == [], play.message


def test_names_that_lead_elsewhere_are_refused_before_anything_is_done(
    host: Site, pebble: Pebble, with_alias: dict[str, Any]
) -> None:
    host.sees({host.server_name: host.address, ALIAS: "192.0.2.9"})
    try:
        with host.serves_the_same():
            play = run_play("site.yml", {**with_alias, "flower_server_aliases": [ALIAS, NOWHERE]})
    finally:
        both_see(host, pebble, host.server_name, ALIAS)
    elsewhere, nowhere = play.message.splitlines()
    assert f"{ALIAS} leads to 192.0.2.9 and this host has {host.address}" in elsewhere
    assert f"{NOWHERE} has no address" in nowhere
    assert play.recap["changed"] == 0


def test_a_name_that_leads_elsewhere_for_the_authority_only(
    host: Site, pebble: Pebble, with_alias: dict[str, Any]
) -> None:
    pebble.leads(ALIAS, pebble.address)
    try:
        with host.serves_the_same():
            says(run_play("site.yml", with_alias), ALIAS, "connection refused", "still serves")
            assert "challenge" not in host.run("ls", "/etc/nginx/sites-enabled")
    finally:
        pebble.leads(ALIAS, host.address)


def test_an_authority_that_is_down(host: Site, pebble: Pebble, with_alias: dict[str, Any]) -> None:
    pebble.down()
    try:
        with host.serves_the_same():
            says(run_play("site.yml", with_alias), "does not answer (Connection refused)", "still serves")
    finally:
        pebble.up()


def test_a_name_more_and_a_new_address_when_all_is_well_again(
    host: Site, pebble: Pebble, with_alias: dict[str, Any]
) -> None:
    play = run_play("site.yml", {**with_alias, "flower_acme_email": "others@flower.test"}).well()
    assert any("Tell it" in task for task in play.changed_tasks)
    assert names_in(host.served()) == {host.server_name, ALIAS}
    assert Site(host.name, ALIAS, host.roots).get("/login").status == 200


def test_a_name_less_and_deleted_files_come_back(host: Site, letsencrypt: dict[str, Any]) -> None:
    files = ("/etc/letsencrypt/renewal-hooks/deploy/flower-main", "/etc/systemd/system/certbot.service.d/flower.conf")
    host.run("rm", *files)
    run_play("site.yml", letsencrypt).well()
    assert names_in(host.served()) == {host.server_name}
    host.run("ls", *files)
    assert "REQUESTS_CA_BUNDLE" in host.show("Environment", unit="certbot.service")["Environment"]
