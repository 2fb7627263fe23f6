"""The numbers themselves: plain dictionaries from label values to values, since counting must cost next to nothing.

One thread counts, any thread may take a snapshot.  Nothing is locked: copying a dictionary is one step to other
threads (it runs no Python code), and a number that is copied a moment too late is right in the next snapshot.
"""

from __future__ import annotations

import logging
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from flowerbed.metrics.names import FIXED_LABELS, OTHER, Metric

logger = logging.getLogger(__name__)

#: values of a metric's labels, in the metric's order
Labels: TypeAlias = tuple[str, ...]
#: upper bounds of buckets, and for each bucket (the last is +Inf) how many values fell into it; at the end their sum
Cells: TypeAlias = tuple[tuple[float, ...], list[float]]
#: what a source may give: a number for a metric without labels, else one for each
Given: TypeAlias = float | Mapping[Labels, float] | None
_Item = TypeVar("_Item")
#: how long a thread that goes through all series lets others run, and after how many lines of text, in seconds:
#: of itself Python would switch after 5 ms only
BREATH_SECONDS, BREATH_LINES = 0.0002, 500
#: the most of a label's value, in characters
LONGEST_LABEL = 200


class Series:
    """A counter or a gauge: label values -> number."""

    def __init__(self, metric: Metric, limit: int) -> None:
        self.metric = metric
        self.limit = limit
        self.values: dict[Labels, float] = {}
        #: values that were counted under `other` since there was no room
        self.folded = 0

    def add(self, labels: Labels, amount: float = 1) -> None:
        """Counts; the caller never gives a negative amount to a counter."""
        try:
            self.values[labels] += amount
        except KeyError:
            labels = self.room(labels)
            self.values[labels] = self.values.get(labels, 0) + amount

    def appear(self, labels: Labels) -> None:
        """Shows a counter at 0, so that its first step is seen as one."""
        if labels not in self.values and len(self.values) < self.limit:
            self.values[labels] = 0

    def remove(self, labels: Labels) -> None:
        """Takes a series away."""
        self.values.pop(labels, None)

    def room(self, labels: Labels) -> Labels:
        """The labels under which a value that has no series yet can be counted."""
        if len(self.values) < self.limit:
            return labels
        self.folded += 1
        return fold(self.metric, labels)


class Histogram:
    """Label values -> bounds and cells."""

    def __init__(self, metric: Metric, limit: int, bounds: Callable[[Labels], tuple[float, ...]]) -> None:
        self.metric = metric
        self.limit = limit
        self.values: dict[Labels, Cells] = {}
        self.folded = 0
        self.lines = 0
        self._bounds = bounds

    def observe(self, labels: Labels, value: float) -> None:
        """Takes in one value."""
        try:
            bounds, cells = self.values[labels]
        except KeyError:
            bounds, cells = self.cells(labels)
        cells[bisect_left(bounds, value)] += 1
        cells[-1] += value

    def cells(self, labels: Labels) -> Cells:
        """The cells of a series, which is made when there is room; else those of `other`."""
        if (found := self.values.get(labels)) is not None:
            return found
        bounds = self._bounds(labels)
        if self.lines + len(bounds) + 3 > self.limit:
            self.folded += 1
            labels = fold(self.metric, labels)
            if (found := self.values.get(labels)) is not None:
                return found
            bounds = self._bounds(labels)
        self.lines += len(bounds) + 3
        self.values[labels] = bounds, [0] * (len(bounds) + 1) + [0.0]
        return self.values[labels]

    def copied(self) -> dict[Labels, Cells]:
        """All series, which nobody changes any more."""
        return {labels: (bounds, cells.copy()) for labels, (bounds, cells) in self.values.copy().items()}

    def remove(self, labels: Labels) -> None:
        """Takes a series away."""
        if (found := self.values.pop(labels, None)) is not None:
            self.lines -= len(found[0]) + 3


@dataclass(frozen=True)
class Snapshot:
    """All numbers of a moment, which nobody changes any more."""

    series: list[tuple[Metric, Mapping[Labels, float]]]
    histograms: list[tuple[Metric, Mapping[Labels, Cells]]]
    #: by the monotonic clock
    taken: float

    def without_kept(self) -> Snapshot:
        """What does not survive a restart."""
        return Snapshot(
            [one for one in self.series if not one[0].kept],
            [one for one in self.histograms if not one[0].kept],
            self.taken,
        )

    def with_kept_of(self, other: Snapshot) -> Snapshot:
        """The same with the surviving numbers of another moment."""
        if other is self:
            return self
        plain = self.without_kept()
        return Snapshot(
            [one for one in other.series if one[0].kept] + plain.series,
            [one for one in other.histograms if one[0].kept] + plain.histograms,
            self.taken,
        )


class Registry:
    """All metrics of the process; `limit` is the most series that each may have, as Prometheus counts them."""

    def __init__(self, limit: int = 20_000) -> None:
        self.limit = limit
        self.series: list[Series] = []
        self.histograms: list[Histogram] = []
        self.sources: list[tuple[Metric, Callable[[], Given]]] = []
        self.failures = 0

    @property
    def families(self) -> list[Series | Histogram]:
        """Everything that somebody counts."""
        return [*self.series, *self.histograms]

    def counter(self, metric: Metric) -> Series:
        """A counter or gauge that somebody counts."""
        series = Series(metric, self.limit)
        self.series.append(series)
        return series

    def histogram(self, metric: Metric, bounds: Callable[[Labels], tuple[float, ...]]) -> Histogram:
        """A histogram; `bounds` gives the buckets of a series, in rising order and without +Inf."""
        histogram = Histogram(metric, self.limit, bounds)
        self.histograms.append(histogram)
        return histogram

    def source(self, metric: Metric, give: Callable[[], Given]) -> None:
        """A number that is asked for with every snapshot: `give` must be quick and may be called by any thread."""
        self.sources.append((metric, give))

    def snapshot(self) -> Snapshot:
        """Copies every number; a source that fails is left out and counted."""
        taken = time.monotonic()
        series: list[tuple[Metric, Mapping[Labels, float]]] = [(one.metric, one.values.copy()) for one in self.series]
        for metric, give in self.sources:
            try:
                given = give()
                if given is not None:
                    found: Mapping[Labels, float] = given if isinstance(given, Mapping) else {(): given}
                    series.append((metric, self._within(metric, found)))
            except Exception as error:  # noqa: BLE001  # a scrape answers whatever is wrong with one number
                self.failures += 1
                logger.warning("%s cannot be told: %s", metric.name, error)
        return Snapshot(series, [(one.metric, one.copied()) for one in self.histograms], taken)

    def kept(self) -> Snapshot:
        """Copies the numbers that survive a restart."""
        return Snapshot(
            [(one.metric, one.values.copy()) for one in self.series if one.metric.kept],
            [(one.metric, one.copied()) for one in self.histograms if one.metric.kept],
            time.monotonic(),
        )

    def sizes(self) -> dict[Labels, float]:
        """Series of each family that somebody counts."""
        counted: dict[Labels, float] = {(one.metric.name,): len(one.values) for one in self.series}
        return counted | {(one.metric.name,): one.lines for one in self.histograms}

    def folded(self) -> dict[Labels, float]:
        """Values that went to `other` since a family had no room; 0 too, so that the first is seen as a step."""
        return {(one.metric.name,): one.folded for one in self.families}

    def _within(self, metric: Metric, found: Mapping[Labels, float]) -> Mapping[Labels, float]:
        if len(found) <= self.limit:
            return found
        return dict(list(found.items())[: self.limit])


def in_turns(items: Iterable[_Item], lines: int = 1) -> Iterator[_Item]:
    """The same items, with pauses in which the thread that counts gets its turn; `lines` is what each item makes."""
    step = max(BREATH_LINES // lines, 1)
    for number, item in enumerate(items, 1):
        yield item
        if not number % step:
            time.sleep(BREATH_SECONDS)


def fold(metric: Metric, labels: Labels) -> Labels:
    """The same labels with `other` for everything that comes from outside."""
    return tuple(value if name in FIXED_LABELS else OTHER for name, value in zip(metric.labels, labels, strict=True))


def clean(value: str) -> str:
    """A label's value that every reader of the text takes: printable, and of bounded length."""
    value = value[:LONGEST_LABEL]
    return value if value.isprintable() else "".join(one if one.isprintable() else "?" for one in value)


def bounds_of(numbers: Iterable[float]) -> tuple[float, ...]:
    """Bounds in rising order, each once; raises ValueError for what is no list of positive numbers."""
    bounds = tuple(sorted({float(number) for number in numbers}))
    if not bounds or not all(0 < bound < float("inf") for bound in bounds):
        raise ValueError("buckets must be positive numbers of seconds.")
    return bounds
