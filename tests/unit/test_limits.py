"""Limits and rates: what the filters let through, systemd reads; where its library is there, it is asked."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from systemd_reader import library

from filter_plugins.preflight import (
    rate_problems,
    systemd_count_problems,
    systemd_percent_problems,
    systemd_size_problems,
    systemd_timespan_problems,
)

needs_systemd = pytest.mark.skipif(library() is None, reason="libsystemd-shared is not on this machine: no systemd")
NUMBERS = st.from_regex(r"[0-9]{1,4}(\.[0-9]{1,3})?", fullmatch=True)
UNITS = st.sampled_from(
    ["", "B", "K", "M", "G", "T", "k", "MB", "MiB", "%", " ", "s", "min", "h", "d", "ms", "µs", "sec", "x"]
)
VALUES = st.lists(st.tuples(NUMBERS, UNITS).map("".join), min_size=1, max_size=2).map(" ".join)


def _size_by_systemd(text: str) -> bool:
    systemd, result = library(), ctypes.c_uint64()
    assert systemd is not None
    if text == "infinity":
        return True
    if (permyriad := systemd.parse_permyriad(text.encode())) >= 0:
        return int(permyriad) > 0
    return systemd.parse_size(text.encode(), 1024, ctypes.byref(result)) >= 0 and 0 < result.value < 2**64 - 1


def _percent_by_systemd(text: str) -> bool:
    systemd = library()
    assert systemd is not None
    return int(systemd.parse_permyriad_unbounded(text.encode())) > 0


def _time_by_systemd(text: str) -> bool:
    systemd, result = library(), ctypes.c_uint64()
    assert systemd is not None
    return int(systemd.parse_sec(text.encode(), ctypes.byref(result))) >= 0


@needs_systemd
@pytest.mark.parametrize(
    ("problems", "by_systemd"),
    [
        (systemd_size_problems, _size_by_systemd),
        (systemd_percent_problems, _percent_by_systemd),
        (systemd_timespan_problems, _time_by_systemd),
    ],
)
@given(value=VALUES)
@example(value="08%")
@example(value="010%")
def test_what_is_no_problem_is_read_by_systemd(
    problems: Callable[[Any, str], list[str]], by_systemd: Callable[[str], bool], value: str
) -> None:
    if not problems(value, "flower_limit"):
        assert by_systemd(value)


@needs_systemd
@given(NUMBERS, st.sampled_from(["K", "M", "G", "T"]))
def test_a_size_that_systemd_reads_is_no_problem(number: str, unit: str) -> None:
    if _size_by_systemd(number + unit):
        assert systemd_size_problems(number + unit, "flower_memory_max") == []


@pytest.mark.parametrize(
    "value", ["512M", "1.5G", 1073741824, "1073741824", "50%", "12.5%", "infinity", "1G 512M", None, ""]
)
def test_a_right_size_is_no_problem(value: Any) -> None:
    assert systemd_size_problems(value, "flower_memory_max") == []


def test_a_wrong_size_is_one_sentence() -> None:
    assert systemd_size_problems("lots", "flower_memory_max") == [
        "flower_memory_max: 'lots' is not a size: write bytes, a number with K, M, G or T, a percentage, or infinity."
    ]


@pytest.mark.parametrize(
    ("value", "near"), [("512m", "512M"), ("512MB", "512M"), ("1.5GiB", "1.5G"), ("512 mb", "512M")]
)
def test_a_size_with_a_wrong_unit_is_told_the_right_one(value: str, near: str) -> None:
    assert f"is not a size (did you mean {near}?): " in systemd_size_problems(value, "flower_memory_max")[0]


@pytest.mark.parametrize("value", ["0", 0, -1, "0%", "101%", "1M 1G", "1e9", "M", "99999999E", True, ["1G"]])
def test_a_size_that_systemd_refuses_is_a_problem(value: Any) -> None:
    assert len(systemd_size_problems(value, "flower_memory_max")) == 1


@pytest.mark.parametrize("value", ["150%", "50%", "12.5%", "1600%", None, ""])
def test_a_right_cpu_quota_is_no_problem(value: Any) -> None:
    assert systemd_percent_problems(value, "flower_cpu_quota") == []


def test_a_cpu_quota_without_its_sign_is_told_the_right_one() -> None:
    assert systemd_percent_problems(150, "flower_cpu_quota") == [
        (
            "flower_cpu_quota: '150' is not a CPU quota (did you mean 150%?): "
            "write a percentage of one CPU, such as 50%, or 150% for one and a half."
        )
    ]


@pytest.mark.parametrize("value", ["all", "infinity", "0%", "-5%", "%"])
def test_a_cpu_quota_that_systemd_refuses_is_a_problem(value: str) -> None:
    assert len(systemd_percent_problems(value, "flower_cpu_quota")) == 1


@pytest.mark.parametrize("value", [64, "64", "10%", "infinity", None])
def test_a_right_count_is_no_problem(value: Any) -> None:
    assert systemd_count_problems(value, "flower_tasks_max") == []


@pytest.mark.parametrize("value", ["few", 0, -3, 1.5, "0%", "200%", 2**64, True])
def test_a_count_that_systemd_refuses_is_a_problem(value: Any) -> None:
    assert len(systemd_count_problems(value, "flower_tasks_max")) == 1


def test_a_weight_has_its_limits_in_the_sentence() -> None:
    assert systemd_count_problems(20000, "flower_io_weight", maximum=10000, percent=False, infinity=False) == [
        "flower_io_weight: '20000' is not a count: write a whole number from 1 to 10000."
    ]


@pytest.mark.parametrize("value", [5, "5", "90s", "2min 30s", "1h30min", "infinity", "1.5h", "500ms"])
def test_a_right_time_span_is_no_problem(value: Any) -> None:
    assert systemd_timespan_problems(value, "flower_restart_sec") == []


@pytest.mark.parametrize("value", ["soon", "5 parsecs", "-1", "5S"])
def test_a_wrong_time_span_is_a_problem(value: str) -> None:
    assert "is not a time span" in systemd_timespan_problems(value, "flower_restart_sec")[0]


@pytest.mark.parametrize("value", ["10r/s", "30r/m", None])
def test_a_right_rate_is_no_problem(value: Any) -> None:
    assert rate_problems(value, "flower_login_rate") == []


@pytest.mark.parametrize("value", ["10", 10, "10/s", "0r/s", "1.5r/s", "10r/h", "10 r/s", "r/s", "10r/s; x"])
def test_a_wrong_rate_is_one_sentence(value: Any) -> None:
    assert rate_problems(value, "flower_login_rate") == [
        f"flower_login_rate: '{value}' is not a rate: write whole requests per second (10r/s) or per minute (30r/m)."
    ]
