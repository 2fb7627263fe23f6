"""Flower's and Tornado's table of options, and whether a value suits one of them.

Flower executes flowerconfig.py, takes each name that equals an option, crashes on a wrong type and ignores every other
name without a word.  Here each of these is one sentence.
"""

# ruff: noqa: PLC0415  # late imports: Flower and Celery act when imported, and not every command needs them
from __future__ import annotations

import copy
import traceback
from pathlib import Path
from typing import Any

from flowerbed.settings import did_you_mean


def table() -> dict[str, Any]:
    """The options by name, as Flower reads them; values are Tornado's own option objects."""
    # imported for what they define
    import flower.command  # noqa: F401
    from tornado.options import options

    return {option.name.replace("-", "_"): option for option in options._options.values()}


def problem(name: str, value: object, known: dict[str, Any]) -> str | None:
    """What is wrong with a name and its value, as a sentence without the file's name; None when nothing is."""
    if name not in known:
        import flower

        helper = " Names of your own helpers and modules must begin with an underscore." if _is_helper(value) else ""
        return f"{name} is not an option of Flower {flower.__version__}{did_you_mean(name, known)}{helper}"
    return wrong_type(name, value, known[name])


def wrong_type(name: str, value: object, option: Any) -> str | None:
    """What is wrong with a value's type, by Tornado's rules; never quotes the value."""
    kind = option.type.__name__
    if isinstance(value, str) and (option.type is not str or option.multiple):
        try:
            # what Tornado does with text: on a copy, so that nothing is changed
            copy.copy(option).parse(value)
        except Exception:  # noqa: BLE001 - each type's parser has errors of its own
            return f"{name} must be {_wanted(option)}, and its text cannot be read as one."
        return None
    if option.multiple:
        if not isinstance(value, list):
            return f"{name} must be {_wanted(option)}, not {type(value).__name__}."
        wrong = next((item for item in value if not _suits(item, option.type)), None)
        return None if wrong is None else f"{name} must be {_wanted(option)}, and one item is {type(wrong).__name__}."
    if value is None or _suits(value, option.type):
        return None
    hint = f" (write {value}.0)" if kind == "float" and type(value) is int else ""
    return f"{name} must be {_wanted(option)}, not {type(value).__name__}{hint}."


def config_problem(path: str) -> str | None:
    """Executes a flowerconfig.py as Flower would, but without the add-on, and gives the first problem as a sentence.

    It changes the add-on in this process, so the process should end afterwards.  No credentials, network or broker.
    """
    from flowerbed import install

    installed: list[dict[str, Any]] = []
    # the file takes its install() from the module, so the stub is put there
    vars(install)["install"] = installed.append
    config: dict[str, Any] = {"__file__": path}
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        return f"flowerconfig.py: cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8 text'}."
    try:
        exec(compile(text, path, "exec"), config, config)  # noqa: S102 - as Flower does
    except SyntaxError as error:
        return f"flowerconfig.py: line {error.lineno}: {error.msg}."
    except Exception as error:  # noqa: BLE001 - whatever the file does wrong
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
        return f"flowerconfig.py: line {lines[-1] if lines else '?'}: {type(error).__name__}: {error}."
    known = table()
    for name, value in config.items():
        if not name.startswith("_") and (text_of_problem := problem(name, value, known)):
            return f"flowerconfig.py: {text_of_problem}"
    if not installed:
        return "flowerconfig.py: flowerbed.install.install(globals()) is never called, so there would be no add-on."
    return None


def _suits(value: object, kind: type) -> bool:
    # a bool is an int to Python; as a port it is a mistake
    return isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool)


def _wanted(option: Any) -> str:
    names = {"str": "text", "int": "a whole number", "float": "a number with a decimal point", "bool": "True or False"}
    kind = option.type.__name__
    return f"a list of {kind}" if option.multiple else names.get(kind, f"a {kind}")


def _is_helper(value: object) -> bool:
    return callable(value) or type(value).__name__ == "module"
