"""What the checks found, as lines for the eye and as JSON, and the exit code."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass

CHECKS = ("ui", "auth", "tasks", "metrics", "workers", "broker", "collector", "history", "security")
#: asked on the host only, of an instance that has a collector
COLLECTOR_CHECKS = ("collector", "history")
EXIT_OF = {
    "ui": 1,
    "tasks": 1,
    "metrics": 1,
    "auth": 3,
    "security": 3,
    "workers": 2,
    "broker": 2,
    "collector": 4,
    "history": 4,
}
_MEANING = {
    1: "Flower is not accessible",
    2: "no workers",
    3: "authentication or security",
    4: "events are not counted or tasks not remembered",
}


@dataclass
class Finding:
    """The result of one check; `exit` is what it adds to the exit code when it failed."""

    name: str
    status: str
    message: str
    hint: str = ""
    exit: int = 0


def exit_code(findings: Iterable[Finding]) -> int:
    """0, or the gravest: 1 not accessible, 3 authentication or security, 2 no workers, 4 nothing counted or kept."""
    failed = {finding.exit for finding in findings if finding.status == "fail"}
    return next((code for code in (1, 3, 2, 4) if code in failed), 0)


def as_json(findings: list[Finding]) -> str:
    """The findings as one JSON object on one line."""
    code = exit_code(findings)
    checks = [{"name": f.name, "status": f.status, "message": f.message, "hint": f.hint} for f in findings]
    return json.dumps({"passed": code == 0, "exit": code, "checks": checks}, ensure_ascii=False)


def as_text(findings: list[Finding], title: str, *, color: bool, width: int | None) -> str:
    """One line a check; on a terminal (`width` given) long ones go on below, under their beginning."""
    paint = {"ok": "32", "fail": "1;31", "skip": "33"}
    lines = [title]
    for item in findings:
        word = "FAIL" if item.status == "fail" else item.status
        text = item.message + (f". {item.hint}" if item.hint else "")
        if width and width > 50:
            text = textwrap.fill(text, width - 1, initial_indent=" " * 17, subsequent_indent=" " * 17,
                                 break_long_words=False, break_on_hyphens=False)[17:]  # fmt: skip
        shown = f"\x1b[{paint[item.status]}m{word:<4}\x1b[0m" if color else f"{word:<4}"
        lines.append(f"{shown}  {item.name:<9}  {text}")
    code = exit_code(findings)
    skipped = sum(item.status == "skip" for item in findings)
    if code:
        lines.append(f"Not well: {_MEANING[code]} (exit {code}).")
    else:
        lines.append(f"All is well{f', but {skipped} not checked' if skipped else ''}.")
    return "\n".join(lines)


def some_of(names: Iterable[str], most: int = 3) -> str:
    """The first names, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more
