"""A play with a wrong password for the history's database."""

from __future__ import annotations

import secrets

from tests.observed.observed import Observed
from tests.plays import run_play

CREDENTIALS = "/etc/flower/main/credentials/collector.json"


def test_a_wrong_password_of_the_database(observed: Observed) -> None:
    """The play refuses it before it changes anything, in one sentence that does not hold it."""
    wrong = secrets.token_urlsafe(12)
    url = f"postgresql://flower:{wrong}@localhost/flower"
    play = run_play("site.yml", {"flower_history_url": url}, "--limit", observed.name)
    assert play.code != 0
    assert "flower_history_url: the database at localhost:5432 refuses the user or the password" in play.message
    assert wrong not in play.output
    assert play.recap["changed"] == 0


def test_a_wrong_password_that_was_not_tried_before(observed: Observed) -> None:
    """The play fails at the health gate, and what worked works again."""
    observed.wait_ready()
    wrong = secrets.token_urlsafe(12)
    url = f"postgresql://flower:{wrong}@localhost/flower"
    variables = {"flower_history_url": url, "flower_history_check": False}
    play = run_play("site.yml", variables, "--limit", observed.name)
    assert play.code != 0
    assert "refuses our user or password: look at flower_history_url" in play.message
    assert wrong not in play.output
    observed.wait_ready()
    assert wrong not in observed.host.run("cat", CREDENTIALS)
    assert run_play("site.yml", {}, "--limit", observed.name).well().changed_tasks == []
