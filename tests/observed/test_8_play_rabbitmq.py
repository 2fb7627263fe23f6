"""A play with a wrong password for the history's database."""

from __future__ import annotations

import secrets

from tests.observed.observed import Observed
from tests.plays import run_play

CREDENTIALS = "/etc/flower/main/credentials/collector.json"


def test_a_wrong_password_of_the_database(observed: Observed) -> None:
    """The play fails with one sentence that does not hold it, and what worked works again."""
    observed.wait_ready()
    wrong = secrets.token_urlsafe(12)
    url = f"postgresql://flower:{wrong}@localhost/flower"
    play = run_play("site.yml", {"flower_history_url": url}, "--limit", observed.name)
    assert play.code != 0
    assert "refuses our user or password: look at flower_history_url" in play.message
    assert wrong not in play.output
    observed.wait_ready()
    assert wrong not in observed.host.run("cat", CREDENTIALS)
    assert run_play("site.yml", {}, "--limit", observed.name).well().changed_tasks == []
