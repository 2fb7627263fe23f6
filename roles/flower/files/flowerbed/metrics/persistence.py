"""Keeps counters over a restart: as rows (name, labels, value) in the history's database.

What a scrape shows of them is what was saved, a moment before, so that after `kill -9` no counter is lower than
Prometheus has seen it.  While the database is away they are shown as they are: to count on is worth more.

Histograms are kept as one row for each bucket, not added up, and one for the sum.

Three threads: the one that counts calls settle() and look(), the history's writer loaded() and counters(), scrapes
shown().
"""

from __future__ import annotations

import json
import logging
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from flowerbed.metrics.names import Metric
from flowerbed.metrics.registry import Cells, Histogram, Labels, Registry, Snapshot, in_turns

logger = logging.getLogger(__name__)

#: name, labels as JSON with sorted keys, value
Row: TypeAlias = tuple[str, str, float]
#: the value of a series that is gone
GONE = -1.0
#: without a word from the database for so long after the start, in seconds, counters begin anew: an ordinary reset.
#: To add the old numbers later would look like that many tasks at once
PATIENCE_SECONDS = 60.0
#: what was saved is shown for so long, in seconds; when it is older the database is away
SAVED_SECONDS = 5.0


class Keeper:
    """Stands between the registry and the history's writer.

    `written` is a number that rises with each batch of the writer's that is safe.
    """

    def __init__(self, registry: Registry, written: Callable[[], int]) -> None:
        self._registry = registry
        self._written = written
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._rows: list[Row] | None = None
        #: whether counters of former runs are in, or given up
        self.settled = False
        #: what was handed over last, whether it is safe, and what is
        self._handed = Snapshot([], [], self._started)
        self._outstanding = False
        self._mark = 0
        #: what is to be handed over next
        self._looked: Snapshot | None = None
        self._safe: Snapshot | None = None
        self._shown: Snapshot | None = None

    # ------------------------------------------------------------------ starting

    def loaded(self, rows: Iterable[Row]) -> None:
        """Takes the rows of former runs; the thread that counts puts them in."""
        self._rows = list(rows)

    def settle(self) -> None:
        """Puts in what was loaded, once; called now and then by the thread that counts, also when nothing happens."""
        if self.settled:
            return
        rows = self._rows
        if rows is not None:
            load(self._registry, rows)
            self._rows = None
            with self._lock:
                # as they are in the database; what is counted from now on is not there yet
                self._safe = self._registry.kept()
            self.settled = True
        elif time.monotonic() - self._started > PATIENCE_SECONDS:
            logger.warning("Counters of former runs could not be read, so they begin anew.")
            self.settled = True

    def look(self) -> None:
        """Takes the counters of this moment for counters(); by the thread that counts."""
        self._looked = self._registry.kept() if self.settled else None

    # ------------------------------------------------------------------ the history's writer

    def counters(self) -> list[Row]:
        """Counters that changed since the last call, as of the last look(), or of now when there was none.

        The writer keeps them until they are written.
        """
        if not self.settled:
            return []
        snapshot, self._looked = self._looked or self._registry.kept(), None
        with self._lock:
            self._notice()
            before, self._handed = self._handed, snapshot
            rows = list(changes(before, snapshot))
            if rows or self._outstanding:
                self._outstanding, self._mark = True, self._written()
            else:
                self._safe = snapshot
        return rows

    def _notice(self) -> None:
        if self._outstanding and self._written() > self._mark:
            self._safe, self._outstanding = self._handed, False

    # ------------------------------------------------------------------ scrapes

    def shown(self) -> Snapshot:
        """What a scrape may show: gauges of now, counters that are saved; never less than was shown before."""
        live = self._registry.snapshot()
        if not self.settled:
            return live.without_kept()
        with self._lock:
            self._notice()
            safe, shown = self._safe, self._shown
            if safe is None or live.taken - safe.taken > SAVED_SECONDS:
                counters = live
            elif shown is not None and shown.taken > safe.taken:
                # the database is just back, and what was shown meanwhile is on its way there
                counters = shown
            else:
                counters = safe
            self._shown = counters
        return live.with_kept_of(counters)


def load(registry: Registry, rows: Iterable[Row]) -> int:
    """Adds saved values to what has been counted by now; gives the number of rows that could not be used.

    A label that a metric no longer has is dropped, a new one is empty, a bucket that is gone counts in the next
    larger one: whatever was changed in the settings, no count is lost.  By the thread that counts.
    """
    series = {one.metric.name: one for one in registry.series if one.metric.kept}
    histograms = {one.metric.name: one for one in registry.histograms if one.metric.kept}
    unused = 0
    for name, text, value in rows:
        if value == GONE:
            continue
        labels = _labels(text)
        if labels is None or not 0 <= value < float("inf"):
            unused += 1
        elif name in series:
            whole = int(value)
            series[name].add(_in_order(series[name].metric, labels), whole if whole == value else value)
        elif (base := name.removesuffix("_bucket")) in histograms and "le" in labels:
            unused += not _add_bucket(histograms[base], labels, value)
        elif (base := name.removesuffix("_sum")) in histograms:
            histogram = histograms[base]
            histogram.cells(_in_order(histogram.metric, labels))[1][-1] += value
        else:
            # of a metric that is off or gone: it stays in the database, for the day it is back
            unused += 1
    if unused:
        logger.warning("%d saved counters are of no metric that is on.", unused)
    return unused


def changes(before: Snapshot, now: Snapshot) -> Iterator[Row]:
    """Rows of the counters that are not the same in both."""
    old_series = {metric.name: values for metric, values in before.series if metric.kept}
    for metric, values in now.series:
        if metric.kept:
            known = old_series.get(metric.name, {})
            changed = [labels for labels, value in values.items() if known.get(labels) != value]
            for labels in in_turns(changed, 3):
                yield metric.name, _text(metric.labels, labels), values[labels]
            yield from _gone(metric.name, metric.labels, known, values)
    old_histograms = {metric.name: found for metric, found in before.histograms if metric.kept}
    for metric, found in now.histograms:
        if metric.kept:
            earlier = old_histograms.get(metric.name, {})
            different = [labels for labels, cells in found.items() if earlier.get(labels) != cells]
            for labels in in_turns(different, 20):
                yield from _cells(metric, labels, earlier.get(labels), found[labels])
            for labels in earlier.keys() - found.keys():
                for name, text, _ in _cells(metric, labels, None, earlier[labels]):
                    yield name, text, GONE


def _cells(metric: Metric, labels: Labels, before: Cells | None, now: Cells) -> Iterator[Row]:
    """Buckets and sum of one histogram that differ."""
    bounds, cells = now
    old = before[1] if before is not None else [0] * len(cells)
    names = (*metric.labels, "le")
    for mark, count, earlier in zip((*map(repr, map(float, bounds)), "+Inf"), cells, old, strict=False):
        if count != earlier:
            yield f"{metric.name}_bucket", _text(names, (*labels, mark)), count
    yield f"{metric.name}_sum", _text(metric.labels, labels), cells[-1]


def _gone(
    name: str, names: tuple[str, ...], before: Mapping[Labels, object], now: Mapping[Labels, object]
) -> Iterator[Row]:
    for labels in before.keys() - now.keys():
        yield name, _text(names, labels), GONE


def _add_bucket(histogram: Histogram, labels: dict[str, str], count: float) -> bool:
    try:
        bound = float(labels["le"])
    except ValueError:
        return False
    bounds, cells = histogram.cells(_in_order(histogram.metric, labels))
    cells[bisect_left(bounds, bound)] += int(count)
    return True


def _in_order(metric: Metric, labels: dict[str, str]) -> Labels:
    return tuple(labels.get(name, "") for name in metric.labels)


def _text(names: tuple[str, ...], labels: Labels) -> str:
    return json.dumps(dict(zip(names, labels, strict=True)), sort_keys=True, separators=(",", ":"))


def _labels(text: str) -> dict[str, str] | None:
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    fits = isinstance(found, dict) and all(isinstance(value, str) for value in found.values())
    return found if fits else None
