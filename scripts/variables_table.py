#!/usr/bin/env python3
"""Write the role's variables into README.md, from its argument_specs; ``--check`` tells whether they are current."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
SPECS = ROOT / "roles/flower/meta/argument_specs.yml"
BEGIN, END = "<!-- variables: made by `make docs` -->", "<!-- end of variables -->"
MARKUP = re.compile(r"\b[VOCP]\(([^()]*(?:\([^()]*\))?[^()]*)\)")


def plain(text: str) -> str:
    """Turn Ansible's markup (V(), O(), C(), P()) into Markdown's code marks."""
    marked = MARKUP.sub(lambda found: f"`{found.group(1).removesuffix('#filter').replace('=', ': ')}`", text)
    return marked.replace("|", "\\|")


def default(option: dict[str, Any]) -> str:
    """Return the default as a cell: empty where there is none."""
    if option.get("required"):
        return "**required**"
    value = option.get("default")
    return "" if value in (None, "") else f"`{value if isinstance(value, str) else json.dumps(value)}`"


def table() -> str:
    """Return the whole table, suboptions included."""
    options = yaml.safe_load(SPECS.read_text())["argument_specs"]["main"]["options"]
    rows = ["| variable | type | default | meaning |", "|---|---|---|---|"]
    for name, option in options.items():
        for key, entry in [
            (name, option),
            *((f"{name}[].{sub}", body) for sub, body in option.get("options", {}).items()),
        ]:
            description = entry["description"]
            text = " ".join(description) if isinstance(description, list) else description
            choices = (
                " One of " + ", ".join(f"`{choice}`" for choice in entry["choices"]) + "." if "choices" in entry else ""
            )
            kind = f"list of {entry['elements']}" if "elements" in entry else entry["type"]
            rows.append(f"| `{key}` | {kind} | {default(entry)} | {plain(text)}{choices} |")
    return "\n".join(rows)


def main() -> int:
    """Bring README.md up to date, or tell that it is not."""
    text = README.read_text()
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    wanted = f"{head}{BEGIN}\n{table()}\n{END}{tail}"
    if wanted == text:
        return 0
    if "--check" in sys.argv[1:]:
        print("README.md: its table of variables is not what argument_specs.yml says: run `make docs`.")
        return 1
    README.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
