"""Makes the random secrets of a demo or a test run, and keeps them in a file that only its owner can read.

`python tests/make_secrets.py FILE [--hostile]` leaves an existing file alone, so that every step of a run sees the same
secrets; delete the file for new ones. `--hostile` puts every character into them that breaks careless quoting.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
from pathlib import Path

HOSTILE = "@:/#%\"'\\ {{?&+$`;,"
"""What URLs, shells, YAML, Jinja, systemd, nginx and Redis each treat as special."""

LETTERS = "üß→"
"""Beyond ASCII, where the reader promises to take it: passwords that people type."""


def make(hostile: bool) -> dict[str, str]:
    """New secrets by name. 18 random bytes each, so that no search finds one by accident."""
    special = HOSTILE if hostile else ""
    return {
        "redis_password": secrets.token_urlsafe(9) + special + secrets.token_urlsafe(9),
        "user_password": secrets.token_urlsafe(9) + special + (LETTERS if hostile else "") + secrets.token_urlsafe(9),
        "viewer_password": secrets.token_urlsafe(18),
        "rabbitmq_password": secrets.token_urlsafe(9) + special + secrets.token_urlsafe(9),
        "postgresql_password": secrets.token_urlsafe(9) + special + secrets.token_urlsafe(9),
        # of workers, on brokers with users
        "worker_password": secrets.token_urlsafe(18),
    }


def write(path: Path, hostile: bool = False) -> bool:
    """Write new secrets into `path`, unless it is there already. Returns whether it was written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(make(hostile), file)
    return True


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--hostile", action="store_true", help="with every character that breaks careless quoting")
    arguments = parser.parse_args()
    print("made" if write(arguments.file, arguments.hostile) else "kept")


if __name__ == "__main__":
    main()
