"""Writes a snapshot as text: Prometheus' format 0.0.4 and OpenMetrics 1.0.

prometheus_client's own writer takes several times as long for 25,000 series: it builds, sorts and escapes every line
anew.  Here what stands before a value is made once for each series and kept.  Tests read the text with its parsers.

Native histograms are not written: prometheus_client (0.26) can neither count them nor send the protobuf in which
Prometheus takes them.  Prometheus 3 makes them of these buckets (`convert_classic_histograms_to_nhcb`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import accumulate

from flowerbed.metrics.names import COUNTER, Metric
from flowerbed.metrics.registry import Cells, Labels, Snapshot, in_turns

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class Writer:
    """Remembers what stands before each value; used by one thread at a time."""

    def __init__(self) -> None:
        self._before: dict[str, dict[Labels, str]] = {}
        self._templates: dict[str, dict[Labels, str]] = {}

    def write(self, snapshot: Snapshot, openmetrics: bool = False) -> bytes:
        """All of it; families without a series are left out."""
        parts: list[str] = []
        for metric, values in snapshot.series:
            if values:
                parts += _head(metric, openmetrics)
                parts.append(self._lines(metric, values))
        for metric, cells in snapshot.histograms:
            if cells:
                parts += _head(metric, openmetrics)
                parts.append(self._histogram(metric, cells))
        if openmetrics:
            parts.append("# EOF\n")
        return "".join(parts).encode("utf-8", "replace")

    def _lines(self, metric: Metric, values: Mapping[Labels, float]) -> str:
        known = _kept(self._before, metric, len(values))
        lines = []
        for labels, value in in_turns(values.items()):
            before = known.get(labels)
            if before is None:
                before = known[labels] = f"{metric.name}{braces(metric.labels, labels)} "
            lines.append(f"{before}{value if type(value) is int else number(value)}\n")
        return "".join(lines)

    def _histogram(self, metric: Metric, found: Mapping[Labels, Cells]) -> str:
        known = _kept(self._templates, metric, len(found))
        texts = []
        for labels, (bounds, cells) in in_turns(found.items(), 20):
            template = known.get(labels)
            if template is None:
                template = known[labels] = _template(metric, labels, bounds)
            counts = list(accumulate(cells[:-1]))
            texts.append(template % (*counts, counts[-1], number(cells[-1])))
        return "".join(texts)


def braces(labels: Iterable[str], values: Iterable[str]) -> str:
    """`{task="a",queue="b"}`, or nothing without labels."""
    inside = ",".join(f'{label}="{_escaped(value)}"' for label, value in zip(labels, values, strict=True))
    return f"{{{inside}}}" if inside else ""


def number(value: float) -> str:
    """A number as Go reads it."""
    if math.isfinite(value):
        return repr(value)
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"


def wants_openmetrics(accept: str) -> bool:
    """Whether a scraper's Accept header asks for OpenMetrics; Prometheus sends what it prefers first."""
    kinds = [kind.partition(";")[0].strip().lower() for kind in accept.split(",")]
    return "application/openmetrics-text" in kinds


def _head(metric: Metric, openmetrics: bool) -> list[str]:
    name = metric.name.removesuffix("_total") if openmetrics and metric.kind == COUNTER else metric.name
    text = metric.help.replace("\\", r"\\").replace("\n", r"\n")
    return [f"# HELP {name} {text}\n# TYPE {name} {metric.kind}\n"]


def _template(metric: Metric, labels: Labels, bounds: tuple[float, ...]) -> str:
    """The lines of one histogram with places for its numbers."""
    marks = [*(number(float(bound)) for bound in bounds), "+Inf"]
    lines = [f"{metric.name}_bucket{braces((*metric.labels, 'le'), (*labels, mark))} " for mark in marks]
    plain = braces(metric.labels, labels)
    lines += [f"{metric.name}_count{plain} ", f"{metric.name}_sum{plain} "]
    places = ["%d"] * (len(lines) - 1) + ["%s"]
    return "".join(f"{line.replace('%', '%%')}{place}\n" for line, place in zip(lines, places, strict=True))


def _kept(texts: dict[str, dict[Labels, str]], metric: Metric, number_of_series: int) -> dict[Labels, str]:
    """What is remembered of a family; emptied when most of it is of series that are gone."""
    known = texts.setdefault(metric.name, {})
    if len(known) > 2 * number_of_series + 100:
        known.clear()
    return known


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
