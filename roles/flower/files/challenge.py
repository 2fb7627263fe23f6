"""Ask, from the host itself, whether a name's challenges come to the host: standard library only.

The role hands this file to the host's Python on standard input, followed by a call of ``main`` with one JSON request.
A file with a random token is put where certbot will put its own, and fetched under each name as the authority does.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import ssl
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TIMEOUT = 5.0  # seconds for one name
FOLDER = ".well-known/acme-challenge"


def fetch(url: str, token: str) -> str:
    """Return ``ours``, ``other`` with what answered instead, or an empty text where nothing could be learnt."""
    # As the authority does: redirects are followed, and whatever certificate they lead to is looked past.
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(url, timeout=TIMEOUT) as answer:
            return "ours" if answer.read(1024).decode("utf-8", "replace").strip() == token else "another page"
    except urllib.error.HTTPError as error:
        return f"status {error.code}"
    except (OSError, http.client.HTTPException):
        # From inside, the way by the outside address may be closed; the authority tries it from outside.
        return ""


def main(request: str) -> None:
    """Answer ``{"webroot": folder, "names": [name]}`` with ``{name: what answered}`` on standard output."""
    asked = json.loads(request)
    token, folder = secrets.token_hex(16), Path(asked["webroot"], FOLDER)
    os.umask(0o022)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"flower-{token}"
    try:
        path.write_text(token, encoding="ascii")
        with ThreadPoolExecutor(16) as pool:
            urls = [f"http://{name}/{FOLDER}/flower-{token}" for name in asked["names"]]
            answers = list(pool.map(fetch, urls, [token] * len(urls)))
    finally:
        path.unlink(missing_ok=True)
    print(json.dumps(dict(zip(asked["names"], answers, strict=True))))
