"""A certificate whose files are gone, and a play that was killed while it asked for a new one."""

from __future__ import annotations

from typing import Any

from tests.certificate.conftest import FILES, Site
from tests.plays import kill_play_at, run_play


def test_a_killed_play_is_mended_by_the_next(host: Site, letsencrypt: dict[str, Any]) -> None:
    before = host.served().serial_number
    host.run("rm", "-r", "/etc/letsencrypt/live/flower-main", f"{FILES}/certificate.pem", f"{FILES}/private_key.pem")
    kill_play_at("Ask the authority", host, "site.yml", letsencrypt)
    assert host.run("nginx", "-t", check=False) == "", "nginx would start again"
    run_play("site.yml", letsencrypt).well()
    assert host.served().serial_number != before
    assert host.get("/login").status == 200
    assert "challenge" not in host.run("ls", "/etc/nginx/sites-enabled")
    assert host.shell("ls /etc/letsencrypt/renewal").split() == ["flower-main.conf"]
