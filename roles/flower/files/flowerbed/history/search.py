"""What tasks are asked for: filters, and text in the syntax that Flower's search has.

    args:4711 state:FAILURE (worker:mail OR queue:bulk) "two words" since:2h until:2026-11-23T18:00

Words are looked for anywhere in the texts of a task, its name, state, worker and queue, and at the beginning of its
id; the letters A to Z may be large or small.  `state:` is the whole state, `kwargs:key=value` an argument of the task.
Flower's keys are name, state, worker, args, kwargs and result; ours are queue, exception, id, since and until.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

#: as in Flower: characters of a search, words, levels of parentheses, characters of a word that is looked for
MOST_CHARACTERS, MOST_WORDS, MOST_LEVELS, LEAST_CHARACTERS = 2048, 128, 5, 3
FIELDS = frozenset({"name", "state", "worker", "args", "kwargs", "result", "queue", "exception", "id"})
_TIMES = frozenset({"since", "until"})
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_AGO = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)([smhdw])")
_ESCAPED = re.compile(r'\\(["\\])')
#: a word: a quotation mark or backslash after a backslash, quoted text, and all else up to a space or parenthesis
_WORD = re.compile(r'(?:\\["\\]|\\(?!["\\])|"(?:\\["\\]|\\(?!["\\])|[^"\\])*"|[^\s()"\\])+')


class SearchError(ValueError):
    """What was asked for cannot be understood or answered; the text is one sentence for the user."""


@dataclass(frozen=True)
class Term:
    """`field` holds `value`; any text of the task when field is None."""

    field: str | None
    value: str


@dataclass(frozen=True)
class And:
    """All of them."""

    children: tuple[Expression, ...]


@dataclass(frozen=True)
class Or:
    """One of them at least."""

    children: tuple[Expression, ...]


Expression = Term | And | Or


@dataclass(frozen=True)
class Search:
    """All of these hold for a task that is found; None asks for nothing.  Times are seconds since 1970, inclusive."""

    #: exactly these (Flower's pages and API offer them to choose from)
    name: str | None = None
    state: str | None = None
    worker: str | None = None
    queue: str | None = None
    #: what `parse` made of a text
    text: Expression | None = None
    received_from: float | None = None
    received_until: float | None = None
    started_from: float | None = None
    started_until: float | None = None


def parse(text: str, now: float) -> Search:
    """A search from what a user has typed; `now` is what `since:2h` counts from.  Raises SearchError."""
    text = text.strip()
    if len(text) > MOST_CHARACTERS:
        raise SearchError(f"The search is longer than {MOST_CHARACTERS} characters.")
    check(text)
    parser = _Parser(_words(text), now)
    expression = parser.all() if parser.words else None
    return Search(text=expression, received_from=parser.times.get("since"), received_until=parser.times.get("until"))


def check(value: str) -> None:
    """Raises SearchError for what no database takes as text."""
    # the second one stands between texts where they are looked through together
    if "\0" in value or "\x1f" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise SearchError("The search holds a character that no task can have.")


@dataclass(frozen=True)
class _Word:
    text: str
    is_quoted: bool = False
    #: "(" or ")", or what joins: "AND" or "OR"; None for a word
    sign: str | None = None


def _words(text: str) -> list[_Word]:
    words: list[_Word] = []
    position = 0
    while position < len(text):
        if text[position].isspace():
            position += 1
            continue
        if len(words) >= MOST_WORDS:
            raise SearchError(f"The search has more than {MOST_WORDS} words.")
        if text[position] in "()":
            words.append(_Word(text[position], sign=text[position]))
            position += 1
            continue
        found = _WORD.match(text, position)
        if found is None or text[found.end() : found.end() + 1] == '"':
            raise SearchError("A quotation mark of the search is not closed.")
        words.append(_word(found[0]))
        position = found.end()
    return words


def _word(raw: str) -> _Word:
    is_quoted = '"' in _ESCAPED.sub("", raw)
    plain = re.sub(_ESCAPED.pattern + '|"', r"\1", raw)
    if not plain:
        raise SearchError("The search has an empty word.")
    if not is_quoted and plain == "NOT":
        raise SearchError("NOT is not known in a search.")
    return _Word(plain, is_quoted, plain if not is_quoted and plain in ("AND", "OR") else None)


class _Parser:
    """Words, from left to right: OR binds less than AND, which need not be written."""

    def __init__(self, words: list[_Word], now: float) -> None:
        self.words = words
        self.times: dict[str, float] = {}
        self._now = now
        self._position = 0

    def all(self) -> Expression | None:
        expression = self._or(0)
        if self._sign() is not None:
            raise SearchError(f"The search has {self._sign()} where nothing can follow.")
        return expression

    def _sign(self) -> str | None:
        """What is at our position: a sign, "word", or None at the end."""
        if self._position >= len(self.words):
            return None
        return self.words[self._position].sign or "word"

    def _or(self, level: int) -> Expression | None:
        before = dict(self.times)
        children = [self._and(level)]
        while self._sign() == "OR":
            self._joined()
            children.append(self._and(level))
        if len(children) > 1 and self.times != before:
            raise SearchError("since: and until: hold for all of a search, so they cannot stand beside OR.")
        return _joined(Or, children)

    def _and(self, level: int) -> Expression | None:
        children = [self._one(level)]
        while self._sign() not in (None, ")", "OR"):
            if self._sign() == "AND":
                self._joined()
            children.append(self._one(level))
        return _joined(And, children)

    def _joined(self) -> None:
        sign = self._sign()
        self._position += 1
        if self._sign() not in ("word", "("):
            raise SearchError(f"{sign} must be followed by a word.")

    def _one(self, level: int) -> Expression | None:
        sign = self._sign()
        if sign == "word":
            word = self.words[self._position]
            self._position += 1
            return self._term(word.text)
        if sign != "(":
            raise SearchError(f"The search has {sign or 'an end'} where a word must be.")
        if level >= MOST_LEVELS:
            raise SearchError(f"The search has more than {MOST_LEVELS} levels of parentheses.")
        self._position += 1
        if self._sign() == ")":
            raise SearchError("The search has parentheses with nothing between them.")
        expression = self._or(level + 1)
        if self._sign() != ")":
            raise SearchError("A parenthesis of the search is not closed.")
        self._position += 1
        return expression

    def _term(self, word: str) -> Expression | None:
        key, colon, value = word.partition(":")
        # Flower's pages call it so
        key = "id" if key.casefold() == "uuid" else key.casefold()
        if not colon or key not in FIELDS | _TIMES:
            if word.startswith("-"):
                raise SearchError("A word after a minus sign cannot be excluded.")
            return _long_enough(Term(None, word))
        if not value:
            raise SearchError(f"{key}: must be followed by what it is to be.")
        if key in _TIMES:
            self.times[key] = _time(key, value, self._now)
            return None
        if key == "state":
            return Term("state", value.upper())
        if key == "kwargs" and "=" in value:
            return _argument(value)
        return _long_enough(Term(key, value))


def _joined(kind: type[And] | type[Or], found: list[Expression | None]) -> Expression | None:
    children: list[Expression] = []
    for child in found:
        for part in child.children if isinstance(child, kind) else (child,):
            if part is not None and part not in children:
                children.append(part)
    if len(children) < 2:
        return children[0] if children else None
    return kind(tuple(children))


def _long_enough(term: Term) -> Term:
    if len(term.value.strip()) < LEAST_CHARACTERS:
        raise SearchError(f"What is looked for must have at least {LEAST_CHARACTERS} characters.")
    return term


def _argument(value: str) -> Expression:
    """`key=value` as it stands in the text of the arguments, which is Python's."""
    key, _, given = (part.strip() for part in value.partition("="))
    texts = (f"'{key}': {quote}{given}{quote}{end}" for quote in ("", "'", '"') for end in ",}")
    return Or(tuple(Term("kwargs", text) for text in texts))


def _time(key: str, value: str, now: float) -> float:
    """Seconds since 1970 of `2h` (ago), `2026-11-23` or `2026-11-23T18:00` by the clock of this host."""
    if ago := _AGO.fullmatch(value):
        return now - float(ago[1]) * _UNITS[ago[2]]
    try:
        return datetime.fromisoformat(re.sub("[zZ]$", "+00:00", value)).timestamp()
    except (ValueError, OverflowError, OSError):
        hint = "write 30m, 2h, 7d, 2026-11-23 or 2026-11-23T18:00"
        raise SearchError(f"{key}: is followed by no time: {hint}.") from None
