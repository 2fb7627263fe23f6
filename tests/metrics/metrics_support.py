"""What the tests of the metrics share: changes and events without a broker, and a reader of the text."""

from __future__ import annotations

import itertools
from typing import Any

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from flowerbed.collector.events import Event
from flowerbed.collector.tasks import Change, Record
from flowerbed.metrics.exposition import Writer
from flowerbed.metrics.observe import Observer, Options
from flowerbed.metrics.registry import Registry

_numbers = itertools.count()


def observer(limit: int = 20_000, **options: Any) -> Observer:
    return Observer(Registry(limit), Options(series_limit=limit, **options))


def change(kind: str, name: str | None = "shop.add", queue: str | None = "orders", **more: Any) -> Change:
    """A change of a task of its own; keywords of Change, else of Record."""
    ours = {key: more.pop(key) for key in list(more) if key in Change.__struct_fields__}
    record = Record(id=more.pop("id", f"task-{next(_numbers)}"), name=name, queue=queue, **more)
    return Change(
        kind=kind, record=record, before=None, hostname=ours.pop("hostname", "w1@host1"), timestamp=1e9, **ours
    )


def heartbeat(hostname: str = "w1@host1", kind: str = "worker-heartbeat", **more: Any) -> Event:
    return Event(type=kind, hostname=hostname, timestamp=1e9, local_received=1e9 + 0.5, **{"freq": 2.0, **more})


def samples(registry: Registry, openmetrics: bool = False) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Everything in the text, as prometheus_client's parsers read it; each series must be there once."""
    text = Writer().write(registry.snapshot(), openmetrics).decode()
    return read(text, openmetrics)


def read(text: str, openmetrics: bool = False) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    families = list((parse_openmetrics if openmetrics else parse_text)(text))
    names = [family.name for family in families]
    assert len(names) == len(set(names)), "a family is in two places"
    found: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    for family in families:
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, f"{key} is there twice"
            found[key] = sample.value
    return found


def value(registry: Registry, metric: str, /, **labels: str) -> float | None:
    return samples(registry).get((metric, frozenset(labels.items())))
