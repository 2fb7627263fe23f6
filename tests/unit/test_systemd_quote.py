"""What systemd_quote writes, systemd reads back the same.

The Molecule verify should do the same once with a unit on a real PID 1 (`systemctl show -p Environment`).
"""

from __future__ import annotations

import ctypes

import pytest
from ansible.errors import AnsibleFilterError
from hypothesis import example, given
from hypothesis import strategies as st
from systemd_reader import library, without_specifiers, without_variables, words_by_systemd, words_by_the_manual

from filter_plugins.credentials import systemd_quote


def _readable(char: str) -> bool:
    code = ord(char)
    return code != 0 and not 0xFDD0 <= code <= 0xFDEF and code & 0xFFFE != 0xFFFE


TEXTS = st.text(st.characters(exclude_categories=["Cs"]).filter(_readable))
NASTY = st.lists(st.sampled_from(["\\", '"', "'", "%", "%%", "$", "${A}", " ", "\n", "\t", "\r", ";", "#", "é", "x41"]))
needs_systemd = pytest.mark.skipif(library() is None, reason="libsystemd-shared is not on this machine: no systemd")


@given(TEXTS | NASTY.map("".join))
@example("\x1b[31m\x7f\x85\u2028")
def test_every_text_is_one_word_by_the_manual(text: str) -> None:
    assert [without_specifiers(word) for word in words_by_the_manual(systemd_quote(text))] == [text]


@needs_systemd
@given(TEXTS | NASTY.map("".join))
@example("\x1b[31m\x7f\x85\u2028")
def test_every_text_is_one_word_to_systemd(text: str) -> None:
    assert [without_specifiers(word) for word in words_by_systemd(systemd_quote(text))] == [text]


@needs_systemd
@given(st.lists(TEXTS | NASTY.map("".join), min_size=1, max_size=4))
def test_every_command_is_its_words_to_systemd(arguments: list[str]) -> None:
    words = words_by_systemd(" ".join(systemd_quote(argument, command=True) for argument in arguments))
    assert [without_variables(without_specifiers(word)) for word in words] == arguments


@needs_systemd
@given(TEXTS)
def test_every_environment_assignment_is_valid_to_systemd(text: str) -> None:
    systemd = library()
    assert systemd is not None
    systemd.env_assignment_is_valid.restype = ctypes.c_bool
    (word,) = words_by_systemd(systemd_quote(f"NAME={text}"))
    assert systemd.env_assignment_is_valid(without_specifiers(word).encode())


@needs_systemd
def test_the_flags_are_right() -> None:
    assert words_by_systemd(r'"a\x41 b" c') == ["aA b", "c"]


@given(TEXTS | NASTY.map("".join))
def test_every_text_stays_on_one_line(text: str) -> None:
    assert not set(systemd_quote(text)) & set("\n\r\0")


@pytest.mark.parametrize("text", ["a\0b", "a\ud800b", "a\ufffeb", "a\ufdd0b"])
def test_a_character_that_systemd_refuses_is_refused(text: str) -> None:
    with pytest.raises(AnsibleFilterError, match=r"cannot be in a unit file"):
        systemd_quote(text)


def test_a_dollar_is_doubled_in_commands_only() -> None:
    assert (systemd_quote("$A"), systemd_quote("$A", command=True)) == ('"$A"', '"$$A"')
