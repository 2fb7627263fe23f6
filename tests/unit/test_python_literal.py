"""What python_literal writes, Python reads back the same."""

from __future__ import annotations

import ast
from typing import Any

import jinja2
import pytest
from ansible.errors import AnsibleFilterError
from hypothesis import given
from hypothesis import strategies as st

from filter_plugins.credentials import python_literal

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner)
)
JINJA = st.lists(st.sampled_from(["{", "}", "{{", "}}", "{%", "%}", "{#", "#}", "\\", "'", '"', "x", "\n"])).map(
    "".join
)


def same(left: Any, right: Any) -> bool:
    """Equal, and of the same types all the way down: 1 is not 1.0 and not True."""
    return repr(left) == repr(right)


@given(VALUES)
def test_every_value_is_read_back_by_literal_eval(value: Any) -> None:
    assert same(ast.literal_eval(python_literal(value)), value)


@given(st.text())
def test_every_text_is_read_back_by_exec_of_a_utf8_file(text: str) -> None:
    names: dict[str, Any] = {}
    exec(compile(f"option = {python_literal(text)}\n".encode(), "flowerconfig.py", "exec"), names)
    assert names["option"] == text


@given(st.text() | JINJA)
def test_every_text_is_on_one_line(text: str) -> None:
    assert len(python_literal(text).splitlines()) == 1


@given(JINJA)
def test_jinja_in_a_text_survives_being_templated_again(text: str) -> None:
    literal = python_literal({"key": [text]})
    templated = jinja2.Environment(autoescape=False).from_string(literal).render()
    assert ast.literal_eval(templated) == {"key": [text]}


@pytest.mark.parametrize("value", ["text", 7, 1.5])
def test_a_tagged_value_is_written_as_a_builtin(value: Any) -> None:
    datatag = pytest.importorskip("ansible._internal._datatag._tags", reason="tags begin with ansible-core 2.19")
    tagged = datatag.Origin(description="a test").tag(value)
    assert type(tagged) is not type(value)
    assert same(ast.literal_eval(python_literal([tagged, {"k": tagged}])), [value, {"k": value}])


def test_an_infinite_bucket_is_read_back() -> None:
    assert ast.literal_eval(python_literal([0.5, float("inf")])) == [0.5, float("inf")]


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, object(), pytest.param(10**5000, id="too many digits")])
def test_what_has_no_literal_is_refused(value: Any) -> None:
    with pytest.raises(AnsibleFilterError, match=r"^python_literal: "):
        python_literal(value)
