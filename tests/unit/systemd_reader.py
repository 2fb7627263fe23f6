"""How systemd reads a word of a unit file: its own library where there is one, and its rules in Python.

The rules are those of systemd.syntax(7) (quotes, escapes), systemd.unit(5) (%%) and systemd.service(5) ($$).
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

UNQUOTE, CUNESCAPE = 1 << 5, 1 << 1  # ExtractFlags of systemd 252 and 257, checked by test_the_flags_are_right


@cache
def library() -> ctypes.CDLL | None:
    """libsystemd-shared, systemd's own parser, or None off systemd."""
    for pattern in ("lib/systemd", "lib/*/systemd", "lib64/systemd"):
        for found in sorted(Path("/usr").glob(f"{pattern}/libsystemd-shared-*.so")):
            return ctypes.CDLL(str(found))
    return None


def words_by_systemd(line: str) -> list[str]:
    """The words of a line, read by extract_first_word as config_parse_environ and _exec call it."""
    systemd = library()
    assert systemd is not None
    rest = ctypes.c_char_p(line.encode())
    words = []
    while True:
        word = ctypes.c_char_p()
        got = systemd.extract_first_word(ctypes.byref(rest), ctypes.byref(word), None, UNQUOTE | CUNESCAPE)
        if got < 0:
            raise ValueError(f"systemd refuses the line: error {got}")
        if got == 0:
            return words
        words.append((word.value or b"").decode())


def _unescape(text: str, position: int) -> tuple[str, int]:
    """The character of the escape that begins at the backslash, and the position after it."""
    simple = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "s": " "}
    char = text[position + 1]
    if char == "x":
        return chr(int(text[position + 2 : position + 4], 16)), position + 4
    if char in simple:
        return simple[char], position + 2
    if char in "\\\"'":
        return char, position + 2
    raise ValueError(f"unknown escape {char!r}")


def words_by_the_manual(line: str) -> list[str]:
    """The words of a line by the rules of systemd.syntax(7)."""
    words: list[str] = []
    word, quote, position = None, "", 0
    while position < len(line):
        char = line[position]
        if quote and char == quote:
            quote = ""
        elif char == "\\":
            piece, position = _unescape(line, position)
            word = (word or "") + piece
            continue
        elif not quote and char in "\"'":
            quote, word = char, word or ""
        elif not quote and char in " \t\n\r":
            if word is not None:
                words.append(word)
            word = None
        else:
            word = (word or "") + char
        position += 1
    if quote:
        raise ValueError("unbalanced quotes")
    return words if word is None else [*words, word]


def without_specifiers(word: str) -> str:
    """A word after specifiers were expanded; any but %% would change the text, and is an error here."""
    if word.replace("%%", "").count("%"):
        raise ValueError("a specifier would be expanded")
    return word.replace("%%", "%")


def without_variables(word: str) -> str:
    """A word of ExecStart= after variables were expanded; any but $$ is an error here."""
    if word.replace("$$", "").count("$"):
        raise ValueError("a variable would be expanded")
    return word.replace("$$", "$")
