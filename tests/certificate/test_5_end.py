"""Back to a certificate of our own, an authority for known accounts only, what others could see, and the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.certificate.conftest import FILES, Site
from tests.certificate.pebble import BOUND_MANAGEMENT, BOUND_PORT, KEY_ID, Pebble
from tests.hosts import scenario_secrets
from tests.plays import run_play
from tests.verify.sweep import secrets_of_host, sweep_files, sweep_processes_and_journal, sweep_text

TRACES = ("/etc/letsencrypt", "/etc/systemd", "/etc/nginx", "/var/lib")


def traces(host: Site) -> list[str]:
    """What bears our name where a certificate leaves its files."""
    return host.run("find", *TRACES, "-name", "*flower*", "-not", "-path", "*/accounts/*").split()


@pytest.fixture(scope="module")
def bound(letsencrypt: dict[str, Any], pebble: Pebble) -> dict[str, Any]:
    """The authority that issues to accounts which it knows."""
    return {
        **letsencrypt,
        "flower_acme_directory": pebble.directory(BOUND_PORT),
        "flower_acme_eab_kid": KEY_ID,
        "flower_acme_eab_hmac_key": pebble.hmac_key,
    }


def test_back_to_self_signed(host: Site, pebble: Pebble) -> None:
    run_play("site.yml").well()
    served = host.served()
    assert served.issuer == served.subject
    assert [path for path in traces(host) if "letsencrypt" in path or "acme" in path or "certbot" in path] == []
    assert host.run("find", "/etc/letsencrypt/accounts", "-name", "regr.json"), "the account stays"
    host.roots.append(host.run("cat", f"{FILES}/certificate.pem"))
    assert host.get("/login").status == 200


def test_a_first_certificate_that_is_refused_leaves_the_self_signed_one(host: Site, bound: dict[str, Any]) -> None:
    unbound = {**bound, "flower_acme_eab_kid": "", "flower_acme_eab_hmac_key": ""}
    with host.serves_the_same():
        play = run_play("site.yml", unbound)
    assert play.code != 0
    assert len(play.message.splitlines()) == 1
    assert "flower_acme_eab_kid" in play.message
    assert "still serves" in play.message


def test_a_bound_account(host: Site, pebble: Pebble, bound: dict[str, Any], tmp_path: Path) -> None:
    play = run_play("site.yml", bound, "-vvv", "--diff").well()
    host.roots[:] = [pebble.root(BOUND_MANAGEMENT)]
    assert host.get("/login").status == 200
    log = tmp_path / "play.log"
    log.touch(0o600)
    log.write_text(play.output, encoding="utf-8")
    secrets = {**scenario_secrets(), **secrets_of_host(host), "hmac_key": pebble.hmac_key}
    assert "certonly" in play.output, "and it shows what was run"
    assert sweep_text(log, secrets) == []
    assert sweep_processes_and_journal(host, secrets)["found"] == []
    assert sweep_files(host, secrets)["found"] == []
    kept = host.run("grep", "-rl", pebble.hmac_key, "/etc", "/var/log", "/var/lib", "/run", check=False).split()
    assert kept == ["/etc/flower/main/credentials/certbot.ini"]
    assert host.run("stat", "-c", "%a %U", *kept).strip() == "600 root"


def test_the_end(host: Site) -> None:
    run_play("uninstall.yml").well()
    assert traces(host) == []
    assert host.run("systemctl", "is-active", "nginx.service").strip() == "active"
    assert host.run("systemctl", "start", "certbot.service") == "", "other certificates are renewed as before"
