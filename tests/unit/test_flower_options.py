"""Options of Flower: the table is Flower's own, and what it would not take is said in one sentence."""

from __future__ import annotations

from types import FunctionType
from typing import Any

import flower.options  # noqa: F401  defines Flower's options
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tornado.options import OptionParser, options

from filter_plugins.credentials import python_literal
from filter_plugins.preflight import OPTION_TYPES, flower_option_problems, flower_options, unknown_variables

TYPE_NAMES = {str: "text", bool: "bool", int: "int", float: "float", FunctionType: "function"}
VALUES = {
    "text": st.text(),
    "bool": st.booleans(),
    "int": st.integers(-(2**70), 2**70),
    "float": st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False),
    "list of text": st.lists(st.text()),
    "list of float": st.lists(st.integers(0, 1000) | st.floats(0, 1000), min_size=1, unique=True).map(sorted),
}
FREE = sorted(set(OPTION_TYPES) - {"format_task", "logging", "log_rotate_mode", "conf"})


def parser_like_flowers() -> OptionParser:
    """A fresh parser with the options of Flower and Tornado, so that a test changes no global."""
    fresh = OptionParser()
    for option in options._options.values():
        if option.name != "help":
            fresh.define(option.name, default=option.default, type=option.type, multiple=option.multiple)
    return fresh


def test_the_table_is_flowers_own() -> None:
    real = {
        option.name.replace("-", "_"): ("list of " if option.multiple else "") + TYPE_NAMES[option.type]
        for option in options._options.values()
        if option.name != "help"
    }
    assert real == OPTION_TYPES


@given(st.data())
def test_every_value_that_is_no_problem_is_read_back_by_flowers_parser(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(FREE))
    value = data.draw(VALUES[OPTION_TYPES[name]])
    assert flower_option_problems({name: value}) == []
    config = tmp_path_factory.mktemp("conf") / "flowerconfig.py"
    written = "".join(f"{key} = {python_literal(item)}\n" for key, item in flower_options({name: value}).items())
    config.write_text(written, encoding="utf-8")
    parser = parser_like_flowers()
    parser.parse_config_file(str(config), final=False)
    assert getattr(parser, name) == value


@given(
    st.dictionaries(
        st.text(), st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text())
    )
)
def test_any_dictionary_is_judged_without_an_exception(values: dict[str, Any]) -> None:
    assert all(sentence.startswith("flower_options: ") for sentence in flower_option_problems(values))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ("max_tasks=1", "flower_options must be a dictionary of Flower's options"),
        ({"max_task": 1}, "flower_options: max_task is not an option of Flower: did you mean max_tasks?"),
        ({"inspect-timeout": 1}, "inspect-timeout is not an option of Flower: did you mean inspect_timeout?"),
        ({"zzz": 1}, "flower_options: zzz is not an option of Flower."),
        ({"max_tasks": "many"}, "flower_options: max_tasks must be a whole number without quotes."),
        ({"max_tasks": 1.5}, "max_tasks must be a whole number"),
        ({"max_tasks": True}, "max_tasks must be a whole number"),
        ({"persistent": 1}, "flower_options: persistent must be true or false."),
        ({"persistent": "yes"}, "persistent must be true or false."),
        ({"db": 5}, "flower_options: db must be text in quotes."),
        ({"inspect_timeout": "1000"}, "flower_options: inspect_timeout must be a number without quotes."),
        ({"inspect_timeout": 2**53 + 1}, "inspect_timeout must be a number"),
        ({"task_runtime_metric_buckets": [5, 1]}, "must be a list of numbers, the smallest first."),
        ({"task_runtime_metric_buckets": []}, "must be a list of numbers"),
        ({"basic_auth": "u:hush"}, "flower_options: basic_auth must be a list of texts."),
        ({"logging": "loud"}, "flower_options: logging must be one of debug, info, warning, error, none."),
        ({"format_task": "f"}, "format_task is a Python function"),
    ],
)
def test_a_wrong_option_is_one_sentence(values: Any, says: str) -> None:
    problems = flower_option_problems(values)
    assert len(problems) == 1
    assert says in problems[0]
    assert "hush" not in problems[0]


def test_an_option_that_the_role_sets_names_its_variable() -> None:
    problems = flower_option_problems({"port": 1}, reserved={"port": "flower_port"})
    assert problems == ["flower_options: port is set by the role: use the variable flower_port."]


def test_an_option_that_cannot_be_set_here_is_refused() -> None:
    assert flower_option_problems({"conf": "x"}, reserved=["conf"]) == [
        "flower_options: conf is set by the role: leave it out."
    ]


@pytest.mark.parametrize("values", [None, {}, {"max_tasks": None}])
def test_nothing_and_null_are_no_problem(values: Any) -> None:
    assert flower_option_problems(values) == []


def test_whole_numbers_become_floats_where_flower_wants_them() -> None:
    converted = flower_options({"inspect_timeout": 2000, "task_runtime_metric_buckets": [1, 2.5], "max_tasks": 5})
    assert repr(converted) == "{'inspect_timeout': 2000.0, 'task_runtime_metric_buckets': [1.0, 2.5], 'max_tasks': 5}"


def test_a_misspelt_variable_is_told_the_right_one() -> None:
    assert unknown_variables(["flower_memroy_max", "flower_users"], ["flower_memory_max", "flower_users"]) == [
        "flower_memroy_max is not a variable of this role: did you mean flower_memory_max?"
    ]


def test_a_variable_that_is_like_no_other_gets_no_suggestion() -> None:
    assert unknown_variables(["flower_xyzzy"], ["flower_memory_max"]) == [
        "flower_xyzzy is not a variable of this role."
    ]
