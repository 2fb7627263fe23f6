"""Each filter has its document, and each document its filter, with the same arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from filter_plugins import acme, credentials, preflight, release

DOCUMENTS = Path(__file__).resolve().parents[2] / "filter_plugins"
FILTERS: dict[str, Callable[..., Any]] = {
    **acme.FilterModule().filters(),
    **credentials.FilterModule().filters(),
    **preflight.FilterModule().filters(),
    **release.FilterModule().filters(),
}


@pytest.mark.parametrize("name", sorted(FILTERS))
def test_a_document_has_the_arguments_of_its_filter(name: str) -> None:
    document = yaml.safe_load((DOCUMENTS / f"{name}.yml").read_text())["DOCUMENTATION"]
    _, *parameters = inspect.signature(FILTERS[name]).parameters
    assert document["name"] == name
    assert [option for option in document["options"] if option != "_input"] == parameters
    assert document.get("positional", "") == ", ".join(parameters)


@pytest.mark.parametrize("name", sorted(FILTERS))
def test_a_document_shows_an_example_that_uses_its_filter(name: str) -> None:
    document = yaml.safe_load((DOCUMENTS / f"{name}.yml").read_text())
    assert f"flowerbed.celery.{name}" in document["EXAMPLES"]
    assert document["RETURN"]["_value"]["description"]
