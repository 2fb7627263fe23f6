"""No client secret, token or cookie is where somebody else could see it."""

from __future__ import annotations

from pathlib import Path

from tests.hosts import Host
from tests.idp.provider import IdentityProvider
from tests.sso.conftest import Door
from tests.verify.sweep import secrets_of_host, sweep_files, sweep_processes_and_journal, sweep_text


def test_the_sweep(
    host: Host, door: Door, provider: IdentityProvider, secrets: dict[str, str], client_secret: str, play_log: Path
) -> None:
    issued = {f"token {number}": token for number, token in enumerate(provider.issued())}
    assert len(issued) > 20, "codes, access tokens and ID tokens of the sign-ins before"
    assert len(door.cookies) >= 1
    known = {**secrets, **secrets_of_host(host), **issued, **door.cookies, "client_secret": client_secret}
    assert sweep_processes_and_journal(host, known)["found"] == []
    files = sweep_files(host, known)
    assert files["found"] == []
    assert isinstance(files["looked"], int)
    assert files["looked"] > 5000
    assert sweep_text(play_log, known) == []
    assert "EXEC" in play_log.read_text(encoding="utf-8", errors="replace"), "the plays must have run with -vvv"
    nginx = host.shell("cat /var/log/nginx/*")
    assert "/login" in nginx
    assert [name for name, value in known.items() if value in nginx] == []
