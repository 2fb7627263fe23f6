"""Brings the history's schema up to date, from code: whoever comes first does it, in one transaction."""

# ruff: noqa: PLC0415  # Alembic takes 0.2 s and 10 MB, and is needed only when there is something to do
from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, text
from sqlalchemy.inspection import inspect

from flowerbed.history.problems import HistoryError
from flowerbed.history.schema import REVISION

#: key of the advisory lock under which PostgreSQL's schema is changed; any number that nobody else uses
LOCK = 0x466C6F776572


def upgrade(connection: Connection, where: str) -> None:
    """Upgrades within the connection's transaction; raises HistoryError for a schema of a newer release."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
    current = revision(connection)
    if current == REVISION:
        return
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    if current is not None and current not in {
        step.revision for step in ScriptDirectory.from_config(config).walk_revisions()
    }:
        raise HistoryError(
            "newer",
            f"The history in {where} is of a newer release (its schema is {current}, ours {REVISION}): "
            "install that release again, or restore the backup that was made before it.",
        )
    config.attributes["connection"] = connection
    command.upgrade(config, REVISION)


def revision(connection: Connection) -> str | None:
    """The revision of the schema in the database; None when it is empty."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found
