"""From a bare host to a certificate in one play, and no change after it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.certificate.conftest import Site
from tests.certificate.pebble import names_in
from tests.certificate.testssl import Examination
from tests.plays import run_play


def test_a_check_of_a_bare_host_changes_nothing(host: Site, letsencrypt: dict[str, Any]) -> None:
    run_play("site.yml", letsencrypt, "--check").well()
    assert host.shell("ls -d /etc/flower /etc/letsencrypt /etc/nginx 2>/dev/null || true") == ""


def test_one_play_from_a_bare_host(host: Site, letsencrypt: dict[str, Any]) -> None:
    assert "nginx" not in host.run("dpkg-query", "-W", "-f", "${Package}\\n").split()
    run_play("site.yml", letsencrypt).well()
    assert host.get("/login").status == 200
    assert names_in(host.served()) == {host.server_name}
    assert host.get_plain("/tasks").status == 301
    assert host.get_plain("/.well-known/acme-challenge/none").status == 404
    assert host.run("systemctl", "is-enabled", "certbot.timer").strip() == "enabled"
    assert host.run("systemctl", "is-active", "certbot.timer").strip() == "active"


def test_nothing_is_left_of_the_way_to_it(host: Site) -> None:
    assert "challenge" not in host.run("ls", "/etc/nginx/sites-enabled")
    assert host.run("find", "/var/lib/flower-acme-main", "-type", "f") == ""


@pytest.mark.usefixtures("examination")
def test_again_changes_nothing(host: Site, letsencrypt: dict[str, Any]) -> None:
    with host.serves_the_same():
        assert run_play("site.yml", letsencrypt).well().changed_tasks == []
        assert run_play("site.yml", letsencrypt, "--check").well().changed_tasks == []


def test_testssl_finds_nothing_above_low(examination: Examination) -> None:
    """It worked beside the test before, which changes nothing: a reload of nginx would be in its way."""
    assert examination.grave() == []
