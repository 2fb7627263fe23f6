"""The defaults of a role and its argument_specs describe the same variables and cannot drift apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

ROLES = Path(__file__).resolve().parents[2] / "roles"
NAMES = sorted(path.parents[1].name for path in ROLES.glob("*/meta/argument_specs.yml"))
TYPES: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "dict": (dict,),
    "float": (float, int),
    "int": (int,),
    "list": (list,),
    "path": (str,),
    "str": (str,),
}


def read(role: str, path: str) -> dict[str, Any]:
    """A YAML file of the role; empty when it is not there."""
    file = ROLES / role / path
    return (yaml.safe_load(file.read_text()) or {}) if file.exists() else {}


def options(role: str) -> dict[str, dict[str, Any]]:
    """Variables of the role's main entry point, by name."""
    found: dict[str, dict[str, Any]] = read(role, "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    return found


def is_template(value: Any) -> bool:
    """True for a value that Ansible computes: its type is known at run time only."""
    return isinstance(value, str) and "{{" in value


def walk(specs: dict[str, dict[str, Any]], prefix: str = "") -> list[tuple[str, dict[str, Any]]]:
    """All options, those inside dictionaries and lists too."""
    found = []
    for name, spec in specs.items():
        found += [(prefix + name, spec), *walk(spec.get("options", {}), f"{prefix}{name}.")]
    return found


def test_there_is_a_role_to_look_at() -> None:
    assert "flower" in NAMES


@pytest.mark.parametrize("role", NAMES)
def test_every_default_is_specified(role: str) -> None:
    assert sorted(set(read(role, "defaults/main.yml")) - set(options(role))) == []


@pytest.mark.parametrize("role", NAMES)
def test_every_specified_default_is_a_default(role: str) -> None:
    specified = {name: spec["default"] for name, spec in options(role).items() if "default" in spec}
    assert read(role, "defaults/main.yml") == specified


@pytest.mark.parametrize("role", NAMES)
def test_defaults_have_the_type_and_are_among_the_choices(role: str) -> None:
    wrong = []
    for name, spec in walk(options(role)):
        value = spec.get("default")
        if value is None or is_template(value):
            continue
        fits = isinstance(value, TYPES.get(spec["type"], (object,)))
        if not fits or (isinstance(value, bool) and spec["type"] == "int"):
            wrong.append(f"{name}: {value!r} is not of the type {spec['type']}")
        if "choices" in spec and value not in spec["choices"]:
            wrong.append(f"{name}: {value!r} is not among {spec['choices']}")
    assert wrong == []


@pytest.mark.parametrize("role", NAMES)
def test_required_variables_have_no_default(role: str) -> None:
    assert [name for name, spec in walk(options(role)) if spec.get("required") and "default" in spec] == []


@pytest.mark.parametrize("role", NAMES)
def test_every_variable_is_typed_described_and_named_after_the_role(role: str) -> None:
    assert [name for name, spec in walk(options(role)) if not spec.get("description") or "type" not in spec] == []
    assert [name for name in options(role) if not name.startswith(f"{role}_")] == []
