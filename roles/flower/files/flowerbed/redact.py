"""Takes secrets out of what tasks carry: arguments, results, exceptions, and what workers tell of themselves.

Celery's events hold texts, made by its `saferepr`: cut at about 1 kB, with quotes that are not always escaped, so that
no parser can read all of them.  Hence keys are looked for anywhere in a text, also inside strings (JSON in a string,
messages, source lines), and the value is masked from there to where it must end.  Where that cannot be told, the rest
of the text is masked.  Every step is linear in the length of the text.

Nothing here imports Flower or Celery, and nothing raises because of what it reads.
"""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import translate
from functools import lru_cache
from itertools import pairwise
from types import FrameType
from typing import Any

from flowerbed.settings import Redact, SettingsError

MASK = "***"
#: names that are masked in workers' configuration and statistics whatever the settings say
SECRET_NAMES = (
    "*password*",
    "*passwd*",
    "*passphrase*",
    "*passcode*",
    "pwd",
    "*_pwd",
    "*secret*",
    "*token*",
    "*credential*",
    "*api_key*",
    "*apikey*",
    "*access_key*",
    "*accesskey*",
    "*account_key*",
    "*accountkey*",
    "*private_key*",
    "*signing_key*",
    "*encryption_key*",
    "*authorization*",
    "*dsn*",
    "*connection_string*",
)
#: the most of a text that patterns are tried on, in characters; what is longer is masked (16 kB takes even a pattern
#: of quadratic cost about a second)
LONGEST_FOR_PATTERNS = 16384
#: the most that a pattern may take on a text of 1 kB, in seconds, and such texts
SLOWEST_PATTERN = 0.5
PROBES = [character * 1024 + "\0" for character in "a0A-_. /@:,'\"=\\"]
#: how a name ends that Celery has cut (those with spaces are, and their values are shown): it may have been any
CUT_NAME = "...'"
#: the most that is looked at of a name in quotes, in characters
LONGEST_NAME = 256
#: levels of lists and dictionaries that are looked into; what is deeper is masked
DEEPEST = 50
#: fields of events that hold no data of tasks (Celery's worker/request.py, app/amqp.py and worker/heartbeat.py)
PLAIN_FIELDS = frozenset(
    (
        "type",
        "uuid",
        "hostname",
        "timestamp",
        "local_received",
        "utcoffset",
        "clock",
        "pid",
        "freq",
        "active",
        "processed",
        "loadavg",
        "sw_ident",
        "sw_ver",
        "sw_sys",
        "name",
        "root_id",
        "parent_id",
        "queue",
        "exchange",
        "routing_key",
        "retries",
        "eta",
        "expires",
        "runtime",
        "state",
        "signum",
        "terminated",
        "expired",
        "requeue",
    )
)
#: the texts of a task in Celery's and Flower's memory, beside its arguments
TASK_FIELDS = ("args", "kwargs", "result", "exception", "traceback")

#: a name and what parts it from its value: 'name': or "name", or name= or name: or --name
_KEY = re.compile(
    r"""(?P<quote>['"])\]?[ \t]{0,32}(?P<after>={1,3}>?|:=?|,)
      | (?<![\w.\-])(?P<name>[\w.\-]+)[ \t]{0,32}(?P<sign>={1,3}>?|:=?)
      | (?<![\w.\-])(?P<flag>--?[\w.\-]+)[ \t]""",
    re.VERBOSE,
)
_SPACE = re.compile(r"\s*")
_BLANK = re.compile(r"[ \t]*")
_OPENS_STRING = re.compile(r"(\\*)([bBuUrRfF]{0,2})(['\"])")
_PLAIN = re.compile(r"[^\s,'\"()\[\]{}<>]*")
_BRACKET_OR_QUOTE = re.compile(r"[\[\](){}<>'\"]")
_LINE_END = re.compile(r"[\r\n]|\Z")
_WORD_END = re.compile(r"\s|\Z")
_PORT = re.compile(r"\d{1,5}(?![\w.%$!~*+=-])")
_CLOSING = {"(": ")", "[": "]", "{": "}", "<": ">"}
#: what may stand behind a string that has ended
_FOLLOWERS = frozenset(" \t\r\n,;)]}>'\"\\&|")
_SEEMS_TO_END = re.compile(r"\\['\"]\s{0,8}(?:[,:)\]}]|\Z)")
#: one argument that is not a string: a number, a constant, `...`, or the name of a class before its bracket
_WORD = re.compile(r"\.\.\.|[+-]?[\w.]+(?:[+-][\w.]+)?")
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})|\\x([0-9a-fA-F]{2})|\\U([0-9a-fA-F]{8})")

#: start, end, and what to write there
Span = tuple[int, int, str]


def without_url_passwords(text: str) -> str:
    """The text with *** for each password of a URL, and for tokens that stand in place of a user of http(s)."""
    return _replaced(text, list(_url_spans(text))) if "://" in text else text


class Redactor:
    """What is masked, compiled once; raises SettingsError for settings that cannot be followed."""

    def __init__(self, redact: Redact, names: Sequence[str] = ()) -> None:
        """`names` are globs beside those of the settings."""
        self._patterns = [_pattern(number, text) for number, text in enumerate(redact.patterns, start=1)]
        self._rules = _rules(redact.arguments)
        globs = [_folded_glob(name) for name in (*_keys(redact.keys), *names)]
        fragments = [max(re.split(r"[*?]|\[[^]]*\]", glob), key=len) for glob in globs]
        #: one of these is in every text that holds a name to be masked; None when that cannot be said
        self._fragments = sorted({_shortest(fragment, fragments) for fragment in fragments}) if all(fragments) else None
        if self._fragments:
            self._fragments.append(CUT_NAME)
        self.is_secret = _matcher(globs)
        self._numbers_of = lru_cache(maxsize=4096)(self._uncached_numbers_of)

    # ------------------------------------------------------------- texts

    def text(self, text: str) -> str:
        """The text with every value masked that has a telling name, matches a pattern, or is a URL's password."""
        spans = self._spans(text)
        return _replaced(text, spans) if spans else text

    def _spans(self, text: str) -> list[Span]:
        spans: list[Span] = list(_url_spans(text)) if "://" in text else []
        places = self._places(text)
        if places is None or places:
            spans += _value_spans(text, self.is_secret, places)
        if self._patterns:
            if len(text) > LONGEST_FOR_PATTERNS:
                spans.append((LONGEST_FOR_PATTERNS, len(text), MASK))
            for pattern in self._patterns:
                found = pattern.finditer(text, 0, LONGEST_FOR_PATTERNS)
                spans += [(*match.span(), MASK) for match in found if match.group()]
        return spans

    def _places(self, text: str) -> list[int] | None:
        """Where names to be masked may be, in order: mostly nowhere; None when that cannot be said."""
        fragments = self._fragments
        # a name may be written with escapes
        if fragments is None or (fragments and "\\" in text and _ESCAPE.search(text)):
            return None
        folded = _folded(text)
        places: list[int] = []
        for fragment in fragments:
            if fragment not in folded:
                continue
            place = folded.find(fragment)
            while place >= 0:
                places.append(place)
                place = folded.find(fragment, place + 1)
        # some letters have other lengths in lower case
        return None if places and len(folded) != len(text) else sorted(places)

    # ---------------------------------------------------------- structures

    def value(self, value: Any, depth: int = 0) -> Any:
        """Lists, dictionaries and texts, at any depth, masked; what is neither comes back as it is."""
        if isinstance(value, str):
            return self.text(value)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, (int, float)):
            return MASK if any(pattern.search(str(value)) for pattern in self._patterns) else value
        if depth > DEEPEST:
            return MASK
        if isinstance(value, Mapping):
            return self._mapping(value, depth + 1)
        if isinstance(value, (list, tuple)):
            items = self._sequence(value, depth + 1)
            return items if isinstance(value, list) else tuple(items)
        if isinstance(value, (set, frozenset)):
            return type(value)(self.value(item, depth + 1) for item in value)
        shown = repr(value)
        masked = self.text(shown)
        return value if masked == shown else masked

    def _mapping(self, value: Mapping[Any, Any], depth: int) -> dict[Any, Any]:
        masked = {
            self.text(key) if isinstance(key, str) else key: MASK
            if self.is_secret(_name(key))
            else self.value(item, depth)
            for key, item in value.items()
        }
        # a signature: a task that is an argument of a task
        if self._rules and isinstance(value.get("task"), str) and "args" in value and masked["args"] != MASK:
            masked["args"] = self.arguments(value["task"], value["args"])
        return masked

    def _sequence(self, value: Sequence[Any], depth: int) -> list[Any]:
        masked = [self.value(item, depth) for item in value]
        # ("name", value), as in lists of headers
        if len(value) == 2 and isinstance(value[0], (str, bytes)) and self.is_secret(_name(value[0])):
            masked[1] = MASK
        for number, (before, _) in enumerate(pairwise(value)):
            # ["--name", value], as in command lines
            if isinstance(before, str) and before.startswith("-") and self.is_secret(_name(before.lstrip("-"))):
                masked[number + 1] = MASK
        return masked

    # --------------------------------------------------------------- tasks

    def arguments(self, task: str | None, value: Any) -> Any:
        """Positional arguments of a task, as a list or as Celery's text; of any task when its name is unknown."""
        numbers = self._numbers_of(task) if self._rules else ()
        if isinstance(value, str):
            spans = self._spans(value)
            if numbers:
                spans += _argument_spans(value, numbers)
            return _replaced(value, spans) if spans else value
        masked = self.value(value)
        if numbers and isinstance(masked, (list, tuple)):
            items = [MASK if number in numbers else item for number, item in enumerate(masked)]
            return items if isinstance(masked, list) else tuple(items)
        return MASK if numbers and masked is not None else masked

    def _uncached_numbers_of(self, task: str | None) -> frozenset[int]:
        found: set[int] = set()
        for fits, numbers in self._rules:
            if task is None or fits(task):
                found |= numbers
        return frozenset(found)

    def event(self, event: dict[str, Any]) -> dict[str, Any]:
        """An event as it came from the broker, masked; the same dictionary when there was nothing to mask."""
        changed: dict[str, Any] = {}
        for field, value in event.items():
            if field not in PLAIN_FIELDS and (masked := self.field(event.get("name"), field, value)) != value:
                changed[field] = masked
        return {**event, **changed} if changed else event

    def field(self, task: str | None, field: str, value: Any) -> Any:
        """A field of an event or of a task in memory, masked; masked as a whole when something goes wrong."""
        if value is None:
            return None
        try:
            if field in ("args", "kwargs") and self._is_wrapped(task, value):
                return MASK
            if field == "args":
                return self.arguments(task, value)
            return MASK if self.is_secret(_name(field)) else self.value(value)
        except Exception:  # noqa: BLE001 - what cannot be looked at is not shown
            return MASK

    def _is_wrapped(self, task: str | None, value: Any) -> bool:
        """Whether a canvas task of Celery's (map, chunks, chord …) carries arguments of a task that has a rule."""
        if not (self._rules and task and task.startswith("celery.")):
            return False
        words = set(re.findall(r"[\w.]+", value if isinstance(value, str) else repr(value)))
        return any(fits(word) for word in words for fits, _ in self._rules)

    def request(self, request: Any) -> Any:
        """A task as a worker tells of it when it is asked what it does, whole or with its time."""
        if not isinstance(request, Mapping):
            return self.value(request)
        if isinstance(request.get("request"), Mapping):
            return {**request, "request": self.request(request["request"])}
        task = request.get("name") or request.get("type")
        plain = {*PLAIN_FIELDS, "id", "time_start", "acknowledged", "delivery_info", "worker_pid"}
        return {
            field: value if field in plain else self.field(task if isinstance(task, str) else None, field, value)
            for field, value in request.items()
        }


# ------------------------------------------------------------------ settings


def _pattern(number: int, text: str) -> re.Pattern[str]:
    where = f"flower_redact_patterns: pattern {number}"
    try:
        pattern = re.compile(text)
    except (re.error, RecursionError, OverflowError, TypeError) as error:
        raise SettingsError(f"{where} is not a regular expression: {error}.") from None
    if pattern.search(""):
        raise SettingsError(f"{where} matches the empty text, and so would mask everything: let it match something.")
    if _is_slow(pattern):
        raise SettingsError(
            f"{where} takes more than {SLOWEST_PATTERN} s for a text of 1 kB: no repeats in repeats, as (a+)+."
        )
    return pattern


class _TooSlowError(Exception):
    """The pattern did not come to an end in time."""


def _is_slow(pattern: re.Pattern[str]) -> bool:
    """Whether a pattern does not come to an end on texts that are hard for patterns."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise _TooSlowError

    # Python's re can be interrupted by signals only, and they reach the main thread only
    if threading.current_thread() is not threading.main_thread():
        return False
    before = signal.signal(signal.SIGALRM, stop)
    try:
        for probe in PROBES:
            signal.setitimer(signal.ITIMER_REAL, SLOWEST_PATTERN)
            pattern.search(probe)
    except _TooSlowError:
        return True
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return False


def _keys(keys: Sequence[Any]) -> list[str]:
    for number, key in enumerate(keys, start=1):
        if not isinstance(key, str) or not key:
            raise SettingsError(f"flower_redact_keys: entry {number} must be a name or a glob such as *password*.")
    return list(keys)


def _rules(arguments: Mapping[Any, Any]) -> list[tuple[Callable[[str], bool], frozenset[int]]]:
    rules: list[tuple[Callable[[str], bool], frozenset[int]]] = []
    for task, numbers in arguments.items():
        if not (
            isinstance(numbers, list) and numbers and all(type(number) is int and number >= 0 for number in numbers)
        ):
            raise SettingsError(
                f"flower_redact_arguments: {task} must have a list of numbers of positional arguments, from 0."
            )
        rules.append((_fitting(str(task)), frozenset(numbers)))
    return rules


def _fitting(glob: str) -> Callable[[str], bool]:
    fits = re.compile(translate(glob)).match
    return lambda name: fits(name) is not None


def _folded(text: str) -> str:
    """Names are compared without regard to case, and api-key is api_key."""
    return text.casefold().replace("-", "_")


def _folded_glob(glob: str) -> str:
    """The same for a glob; [a-z] stays what it is."""
    return re.sub(r"\[[^]]*\]|-", lambda part: "_" if part[0] == "-" else part[0], glob.casefold())


def _shortest(fragment: str, fragments: Sequence[str]) -> str:
    """The shortest fragment that is part of this one."""
    return min((other for other in fragments if other in fragment), key=len)


def _name(key: Any) -> str:
    if isinstance(key, bytes):
        return key.decode("utf-8", "replace")
    return key if isinstance(key, str) else str(key)


def _matcher(globs: Sequence[str]) -> Callable[[str], bool]:
    """Whether a name fits one of the globs, as a whole or what is behind its last dot."""
    if not globs:
        return lambda name: False
    fits = re.compile("|".join(translate(glob) for glob in dict.fromkeys(globs))).match

    @lru_cache(maxsize=4096)
    def is_secret(name: str) -> bool:
        if "\\" in name:
            name = _ESCAPE.sub(lambda match: _character(match.group(match.lastindex or 0)), name)
        name = _folded(name).strip()
        return fits(name) is not None or ("." in name and fits(name.rpartition(".")[2]) is not None)

    return is_secret


def _character(digits: str) -> str:
    number = int(digits, 16)
    return chr(number) if number < 0x110000 else "?"


# ---------------------------------------------------------------------- spans


def _replaced(text: str, spans: list[Span]) -> str:
    """The text with each span replaced; spans may overlap."""
    parts, done = [], 0
    for start, end, mask in _merged(spans):
        parts += [text[done:start], mask]
        done = end
    return "".join((*parts, text[done:]))


def _merged(spans: list[Span]) -> Iterator[Span]:
    spans.sort(key=lambda span: (span[0], -span[1]))
    current: Span | None = None
    for start, end, mask in spans:
        if current is None or start >= current[1]:
            if current is not None:
                yield current
            current = (start, end, mask)
        elif end > current[1]:
            current = (current[0], end, MASK)
    if current is not None:
        yield current


def _url_spans(text: str) -> Iterator[Span]:
    """Passwords in URLs: from the first colon to the last @ of the word, since an @ may be part of a password."""
    at = text.find("://")
    word_end = last_at = cut = -1
    while at >= 0:
        start, following = at + 3, text.find("://", at + 3)
        if start > word_end:
            word_end = _WORD_END.search(text, start).start()  # type: ignore[union-attr]  # it always matches
            last_at = text.rfind("@", start, word_end)
            cut = text.rfind("...", start, word_end)
        end = text.rfind("@", start, following if 0 <= following < word_end else word_end)
        if end < 0 and last_at >= start:
            end = last_at
        yield from _login_span(text, at, end, word_end, cut)
        at = following


def _login_span(text: str, at: int, end: int, word_end: int, cut: int) -> Iterator[Span]:
    """The password of the URL whose `://` is at `at`; `end` is where its @ is, `cut` where Celery cut, or -1."""
    start = at + 3
    stop = end if end >= 0 else word_end
    colon, slash = text.find(":", start, stop), text.find("/", start, stop)
    if colon >= 0 and not 0 <= slash < colon:
        if end >= 0:
            yield (colon + 1, end, MASK)
        elif cut > colon and text[start] != "[" and not _PORT.match(text, colon + 1):
            # the text may be cut within the password
            yield (colon + 1, _tail(text, colon + 1, word_end), MASK)
    elif end > start and slash < 0 and text[max(0, at - 5) : at].lower().endswith(("http", "https")):
        # a token in place of the user
        yield (start, end, MASK)


def _tail(text: str, start: int, end: int) -> int:
    """Where the quote and the brackets begin that end a text, so that what was masked to its end can still be read."""
    while end > start and text[end - 1] in ")]}":
        end -= 1
    return end - 1 if end > start and text[end - 1] in "'\"" else end


def _value_spans(text: str, is_secret: Callable[[str], bool], places: list[int] | None) -> Iterator[Span]:
    """The values of names that are secret; `places` is where such names may be, None for everywhere.

    What looks like a name may be part of a text, and its value then ends anywhere: so names are looked for within
    values too.
    """
    position, place = 0, 0
    last, budget = len(text.rstrip(")]}'\"")), 8 * len(text) + 65536
    while True:
        if places is not None:
            while place < len(places) and places[place] + LONGEST_NAME < position:
                place += 1
            if place == len(places):
                return
            position = _name_start(text, position, places[place])
        if (match := _KEY.search(text, position)) is None:
            return
        position = match.end()
        quote = match["quote"]
        if quote:
            name, opening = _quoted_name(text, match.start())
        else:
            opening = match.start()
            name = (match["name"] or match["flag"]).lstrip("-.")
        is_cut = quote == CUT_NAME[-1] and match["after"] != "," and name.endswith(CUT_NAME[:-1])
        if not name or not (is_cut or is_secret(name)):
            continue
        if match["after"] == ",":
            span = _next_item_span(text, match, name, opening)
        elif quote:
            start = _SPACE.match(text, position).end()  # type: ignore[union-attr]  # it always matches
            span = _value_span(text, start, quote, spaces_end=match["after"].startswith("="))
        else:
            blank = _BLANK.match(text, position).end()  # type: ignore[union-attr]
            to_line_end = (match["sign"] or "").startswith(":")
            span = _value_span(text, blank, "", spaces_end=True, to_line_end=to_line_end)
        if span is not None and span[1] > span[0]:
            budget -= span[1] - span[0]
            if budget < 0:
                # values within values within values: this is no text of Celery's
                yield (span[0], len(text), MASK)
                return
            yield span
            if span[1] >= last:
                return


def _name_start(text: str, first: int, position: int) -> int:
    """Where the word begins that goes on at `position`; not before `first`."""
    start = max(first, position)
    while start > first and (text[start - 1].isalnum() or text[start - 1] in "_.-"):
        start -= 1
    return start


def _quoted_name(text: str, closing: int) -> tuple[str, int]:
    """The name whose closing quote is here, at most its last 256 characters, and where it opens."""
    quote, level = text[closing], _backslashes(text, closing, 0)
    end, start = closing - level, closing
    first = max(0, closing - LONGEST_NAME)
    while (start := text.rfind(quote, first, start)) >= 0:
        if _backslashes(text, start, 0) == level:
            return text[start + 1 : end], start - level
    return text[first:end], first


def _backslashes(text: str, position: int, first: int) -> int:
    """How many backslashes stand before a position."""
    start = position
    while start > first and text[start - 1] == "\\":
        start -= 1
    return position - start


def _next_item_span(text: str, match: re.Match[str], name: str, opening: int) -> Span | None:
    """The value in ("name", value) and in ["--name", value]; None where it is but one item of a list."""
    before = text[max(0, opening - 2) : max(0, opening)].rstrip("bu")[-1:]
    is_flag = name.startswith("-")
    if not is_flag and (not before or before not in "(["):
        return None
    start = _SPACE.match(text, match.end()).end()  # type: ignore[union-attr]
    span = _value_span(text, start, match["quote"])
    if span is None or is_flag or text[start : start + 1] in _CLOSING:
        return span
    behind = text[span[1] : span[1] + 16].lstrip("\\'\" \t\r\n")
    return span if not behind or behind[0] in ")]" else None


def _value_span(
    text: str, start: int, quote: str, *, spaces_end: bool = False, to_line_end: bool = False
) -> Span | None:
    """The value that begins at `start`; `quote` is that of its name, for a mask that reads like the rest."""
    if start >= len(text):
        return None
    opens = _OPENS_STRING.match(text, start)
    if opens is not None:
        content = opens.end()
        # Celery shows bytes without escapes, so that their end cannot be told
        is_bytes = "b" in opens[2].lower()
        end = None if is_bytes else _string_end(text, opens.start(3), len(opens[1]))
        if end is None:
            return (content, max(content, len(text.rstrip(")]}"))), MASK + opens[1] + opens[3])
        return (content, end - 1 - len(opens[1]), MASK)
    if to_line_end:
        end = _LINE_END.search(text, start).start()  # type: ignore[union-attr]  # it always matches
        return (start, _tail(text, start, end), MASK)
    mask = f"{quote}{MASK}{quote}"
    if quote:
        # within escaped JSON the mask is escaped as well
        before = _backslashes(text, text.rfind(quote, 0, start), 0)
        escape = "\\" * before
        mask = f"{escape}{quote}{MASK}{escape}{quote}"
    return (start, _bare_end(text, start, spaces_end=spaces_end), mask)


def _string_end(text: str, opening: int, level: int, *, is_key: bool = False) -> int | None:
    """Behind the quote that closes a string: one with as many backslashes before it as the opening one."""
    quote = text[opening]
    if level == 0 and text.startswith(quote * 3, opening):
        end = text.find(quote * 3, opening + 3)
        return end + 3 if end >= 0 else None
    position = opening
    while (position := text.find(quote, position + 1)) >= 0:
        if _backslashes(text, position, opening + 1) == level:
            behind = text[position + 1 : position + 2]
            if not behind or behind in _FOLLOWERS or (is_key and behind in ":="):
                return position + 1
    return None


def _bracket_end(text: str, opening: int) -> int | None:
    """Behind the bracket that closes this one; None when brackets or quotes do not fit."""
    expected: list[str] = []
    position = opening
    while (match := _BRACKET_OR_QUOTE.search(text, position)) is not None:
        sign, position = match.group(), match.end()
        if sign in _CLOSING:
            expected.append(_CLOSING[sign])
        elif sign in "'\"":
            if text[match.start() - 1] in "bB" and not text[max(0, match.start() - 2)].isalnum():
                return None
            end = _string_end(text, match.start(), _backslashes(text, match.start(), opening), is_key=True)
            if end is None or _may_end_before(text, match.end(), end - 1):
                return None
            position = end
        elif sign == expected[-1]:
            expected.pop()
            if not expected:
                return position
        elif sign != ">":
            return None
    return None


def _bare_end(text: str, position: int, *, spaces_end: bool) -> int:
    """Behind a value without quotes: a number, a name, an object; in doubt the end of the text."""
    length = len(text)
    while (position := _PLAIN.match(text, position).end()) < length:  # type: ignore[union-attr]  # it always matches
        sign, behind = text[position], text[position + 1 : position + 2]
        if sign in _CLOSING:
            end = _bracket_end(text, position)
            if end is None:
                return length
            position = end
            continue
        is_end = not behind or behind in _FOLLOWERS
        if sign in "'\"" and is_end:
            return position - _backslashes(text, position, 0)
        if (sign.isspace() and spaces_end) or (sign in ",)]}>" and is_end):
            return position
        position += 1
    return length


def _argument_spans(text: str, numbers: frozenset[int]) -> list[Span]:
    """The arguments with these numbers in Celery's text of a list; all from where its items cannot be told apart."""
    text_end = len(text)
    start = _SPACE.match(text).end()  # type: ignore[union-attr]  # it always matches
    if text[start : start + 1] not in ("(", "["):
        return [(0, text_end, MASK)] if text_end else []
    closing = _CLOSING[text[start]]
    spans: list[Span] = []
    position, number, last = start + 1, 0, max(numbers)
    while number <= last:
        position = _SPACE.match(text, position).end()  # type: ignore[union-attr]
        if text[position : position + 1] == closing and not text[position + 1 :].strip():
            break
        end = _item_end(text, position)
        sign = text[end] if end is not None and end < text_end else ""
        if end is None or sign not in (",", closing) or (sign == closing and text[end + 1 :].strip()):
            return [*spans, (position, position + len(text[position:].rstrip(")]}")), f"'{MASK}'")]
        if number in numbers and end > position:
            spans.append((position, end, f"'{MASK}'"))
        if sign == closing:
            break
        position, number = end + 1, number + 1
    return spans


def _may_end_before(text: str, start: int, end: int) -> bool:
    """Whether a string may end within: Celery does not escape backslashes, so that \\', can be both."""
    return (match := _SEEMS_TO_END.search(text, start, end)) is not None and match.end() <= end


def _item_end(text: str, position: int) -> int | None:
    """Behind one argument; None when that cannot be told."""
    opens = _OPENS_STRING.match(text, position)
    if opens is not None:
        if "b" in opens[2].lower() or opens[1]:
            return None
        end = _string_end(text, position + len(opens[2]), 0)
        return None if end is None or _may_end_before(text, opens.end(), end - 1) else end
    word = _WORD.match(text, position)
    end = word.end() if word is not None else position
    if text[end : end + 1] in _CLOSING:
        return _bracket_end(text, end)
    return end if word is not None else None
