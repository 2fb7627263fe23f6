"""Takes secrets out of what is shown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote

from flowerbed.redact import without_url_passwords


@dataclass
class Masker:
    """Takes known secrets and every password in a URL out of a text."""

    secrets: set[str] = field(default_factory=set, repr=False)

    def add(self, *values: str | None) -> None:
        """Remembers secrets, as they are and as they stand in URLs."""
        for value in values:
            # one or two letters are in every sentence, and the URL rule below covers them where they matter
            if value and len(value) > 2:
                self.secrets |= {value, quote(value, safe=""), quote(value)}

    def __call__(self, text: str) -> str:
        """The text without any secret."""
        for secret in sorted(self.secrets, key=len, reverse=True):
            text = text.replace(secret, "***")
        return without_url_passwords(text)


def without_password(url: str) -> str:
    """A broker URL for the eye: no password, no query (it may hold paths of keys and passwords)."""
    scheme, _, rest = url.partition("://")
    login, at, place = rest.rpartition("@")
    return f"{scheme}://{login.partition(':')[0] + ':***@' if at else ''}{place.partition('?')[0]}"


def secret_texts(value: Any, key: str = "") -> Iterator[str]:
    """What may be secret in the credentials: passwords of URLs, and texts under telling names."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from secret_texts(item, str(name))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from secret_texts(item, key)
    elif isinstance(value, str):
        for url in value.split(";") if "://" in value else ():
            login, at, _ = url.partition("://")[2].rpartition("@")
            if at and (password := login.partition(":")[2]):
                yield password
                yield unquote(password)
        if re.search(r"pass|secret|token|key$|credential", key, re.IGNORECASE) and not value.startswith("/"):
            yield value
