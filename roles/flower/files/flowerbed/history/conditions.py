"""A Search as conditions of SQL, and from which indexes what it asks for can be read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from flowerbed.history.search import And, Expression, Or, Search, Term

#: columns that few values are in: a word that is looked for in them is replaced by those that hold it
FEW = ("name", "worker", "queue", "state")
#: so many of them at the most
MOST_VALUES = 50
TEXTS = ("args", "kwargs", "result", "exception")
#: triples of letters of a word that are looked for in the index of words, and how many of one kind are enough
MOST_TRIPLES, ENOUGH_TRIPLES = 12, 3
_CAPITALS = {number: number + 32 for number in range(ord("A"), ord("Z") + 1)}

#: the values of one of FEW that are there; None when they are too many
Values = Callable[[str], list[str] | None]


@dataclass
class Filters:
    """A Search, taken apart: all of these hold."""

    #: column of FEW -> the values that it may have
    values: dict[str, tuple[str, ...]] = field(default_factory=dict)
    #: column -> the least and the largest time
    ranges: dict[str, tuple[float | None, float | None]] = field(default_factory=dict)
    rest: Expression | None = None

    @property
    def is_empty(self) -> bool:
        """Nothing can match."""
        return any(not values for values in self.values.values())


@dataclass(frozen=True)
class Sources:
    """Where all tasks that an expression asks for are to be found; more than these may be there."""

    #: for SQLite's index of words
    match: str | None = None
    values: tuple[tuple[str, tuple[str, ...]], ...] = ()
    ids: tuple[str, ...] = ()


def filters(search: Search, known: Values) -> Filters:
    """Takes a search apart; `known` is asked for the values of a column when they are needed."""
    found = Filters()
    for column in FEW:
        value = getattr(search, column)
        if value is not None:
            found.values[column] = (value,)
    for column in ("received", "started"):
        bounds = (getattr(search, f"{column}_from"), getattr(search, f"{column}_until"))
        if bounds != (None, None):
            found.ranges[column] = bounds
    rest: list[Expression] = []
    for child in search.text.children if isinstance(search.text, And) else (search.text,):
        chosen = _choice(child, known) if child is not None else None
        if chosen is None:
            rest += [child] if child is not None else []
            continue
        column, values = chosen
        before = found.values.get(column)
        found.values[column] = values if before is None else tuple(value for value in before if value in values)
    found.rest = And(tuple(rest)) if len(rest) > 1 else rest[0] if rest else None
    return found


def _choice(expression: Expression, known: Values) -> tuple[str, tuple[str, ...]] | None:
    """The column and values that an expression is only about, if they are few."""
    terms = expression.children if isinstance(expression, Or) else (expression,)
    columns = {term.field if isinstance(term, Term) else None for term in terms}
    column = columns.pop()
    if columns or column not in FEW:
        return None
    values: set[str] = set()
    for term in terms:
        found = _holding(term, column, known) if isinstance(term, Term) else None
        if found is None:
            return None
        values.update(found)
    return (column, tuple(sorted(values))) if len(values) <= MOST_VALUES else None


def _holding(term: Term, column: str, known: Values) -> list[str] | None:
    """The values of a column that hold a word."""
    if term.field == "state":
        return [term.value]
    values = known(column)
    if values is None:
        return None
    word = plain(term.value)
    return [value for value in values if word in plain(value)]


def plain(text: str) -> str:
    """With A to Z made small, as SQLite compares."""
    return text.translate(_CAPITALS)


# ------------------------------------------------------------------ SQL


class Conditions:
    """Conditions joined by AND, and their parameters."""

    def __init__(self, is_sqlite: bool) -> None:
        self.parameters: dict[str, Any] = {}
        self._is_sqlite = is_sqlite

    def bind(self, value: Any) -> str:
        """The name of a new parameter, as it stands in a statement."""
        name = f"p{len(self.parameters)}"
        self.parameters[name] = value
        return f":{name}"

    def all(self, found: Filters, without: tuple[str, ...] = ()) -> list[str]:
        """All that a search asks for, but for ranges of columns in `without`."""
        parts = [self.one_of(column, values) for column, values in found.values.items()]
        for column, bounds in found.ranges.items():
            if column not in without:
                parts += self.between(column, *bounds)
        if found.rest is not None:
            parts.append(self.expression(found.rest))
        return parts

    def one_of(self, column: str, values: tuple[str, ...]) -> str:
        """The column has one of the values."""
        if len(values) == 1:
            return f"{column} = {self.bind(values[0])}"
        return f"{column} IN ({', '.join(map(self.bind, values))})"

    def between(self, column: str, least: float | None, largest: float | None) -> list[str]:
        """The column is in a range."""
        parts = [] if least is None else [f"{column} >= {self.bind(least)}"]
        return parts if largest is None else [*parts, f"{column} <= {self.bind(largest)}"]

    def begins(self, column: str, value: str) -> str:
        """The column begins with a value; read from an index, and may let in a little more."""
        # after all that begins with it, in the order of bytes and in that of languages
        last = "\U0010ffff" if self._is_sqlite else "zzzzzzzz"
        ranges = (
            f"{column} >= {self.bind(begin)} AND {column} < {self.bind(begin + last)}"
            for begin in dict.fromkeys((value, value.lower()))
        )
        return f"({' OR '.join(ranges)})"

    def expression(self, expression: Expression) -> str:
        """An expression in parentheses."""
        if isinstance(expression, Term):
            return self._term(expression)
        joint = " AND " if isinstance(expression, And) else " OR "
        return "(" + joint.join(map(self.expression, expression.children)) + ")"

    def _term(self, term: Term) -> str:
        if term.field == "state":
            return f"state = {self.bind(term.value)}"
        if term.field == "id":
            return self._holds("id", _begins(term.value))
        if term.field is not None:
            return self._holds(term.field, _contains(term.value))
        word, begins = _contains(term.value), self._holds("id", _begins(term.value))
        if self._is_sqlite:
            return "(" + " OR ".join([*(self._holds(column, word) for column in (*TEXTS, *FEW)), begins]) + ")"
        # PostgreSQL takes most of its time for each text that it compares; a character that no word has is between
        texts = f"concat_ws(chr(31), {', '.join((*TEXTS, *FEW))})"
        return f"({self._holds(texts, word)} OR {begins})"

    def _holds(self, text: str, pattern: str) -> str:
        if self._is_sqlite:
            return f"{text} LIKE {self.bind(pattern)} ESCAPE '\\'"
        # in this collation only A to Z have two forms, as in SQLite, and it is quicker
        return f"{text} COLLATE \"C\" ILIKE {self.bind(pattern)} ESCAPE '\\'"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _contains(value: str) -> str:
    return f"%{_escaped(value)}%"


def _begins(value: str) -> str:
    return f"{_escaped(value)}%"


# ------------------------------------------------------------------ sources


def sources(expression: Expression, known: Values) -> Sources | None:
    """Where all tasks of an expression are to be found; None when they can be anywhere."""
    if isinstance(expression, Term):
        return _term_sources(expression, known)
    found = [sources(child, known) for child in expression.children]
    if isinstance(expression, Or):
        return _union([part for part in found if part is not None]) if None not in found else None
    # one of those that must hold is enough: the best are words alone, and all such words together
    certain = [part for part in found if part is not None]
    matches = [part.match for part in certain if part.match and not part.values and not part.ids]
    if matches:
        return Sources(" AND ".join(f"({match})" for match in matches))
    return min(certain, key=lambda part: (len(part.values), len(part.ids)), default=None)


def _union(parts: list[Sources]) -> Sources:
    # the same ones are in all the ways in which an argument can be written
    matches = list(dict.fromkeys(part.match for part in parts if part.match))
    return Sources(
        " OR ".join(f"({match})" for match in matches) or None,
        tuple(values for part in parts for values in part.values),
        tuple(uuid for part in parts for uuid in part.ids),
    )


def _term_sources(term: Term, known: Values) -> Sources | None:
    if term.field == "id":
        return Sources(ids=(term.value,))
    if term.field in TEXTS:
        return _word_source(term.value)
    columns = FEW if term.field is None else (term.field,)
    values = []
    for column in columns:
        found = _holding(term, column, known)
        if found is None:
            return None
        if found:
            values.append((column, tuple(found)))
    own = Sources(values=tuple(values))
    if term.field is not None:
        return own
    words = _word_source(term.value)
    return None if words is None else _union([own, words, Sources(ids=(term.value,))])


def _word_source(word: str) -> Sources | None:
    """Triples of letters of a word, by preference those that few tasks have."""
    triples = list(dict.fromkeys(word[number : number + 3] for number in range(len(word) - 2)))
    # most texts have the same quotes, commas and spaces, and the same words with other numbers
    for is_rare in (_has_numbers, str.isalnum):
        rare = [triple for triple in triples if is_rare(triple)]
        if len(rare) >= ENOUGH_TRIPLES:
            triples = rare
            break
    if not triples:
        return None
    step = -(-len(triples) // MOST_TRIPLES)
    chosen = [triple.replace('"', '""') for triple in triples[::step]]
    return Sources(" AND ".join(f'"{triple}"' for triple in chosen))


def _has_numbers(triple: str) -> bool:
    return triple.isalnum() and any(map(str.isdecimal, triple))
