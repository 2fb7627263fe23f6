#!/usr/bin/env python3
"""Write the collector's metrics into docs/metrics.md, from the add-on; ``--check`` tells whether they are current."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs/metrics.md"
sys.path.insert(0, str(ROOT / "roles/flower/files"))

from flowerbed.metrics import compat, names  # noqa: E402

MARKS = (
    ("<!-- metrics: made by `make docs` -->", "<!-- end of metrics -->"),
    ("<!-- celery-exporter: made by `make docs` -->", "<!-- end of celery-exporter -->"),
)


def tables() -> tuple[str, str]:
    """Our metrics by section, and those of celery-exporter's names."""
    sections = (f"### {title}\n\n{names.markdown(metrics)}" for title, metrics in names.SECTIONS.items())
    return "\n".join(sections), names.markdown(compat.METRICS)


def written(text: str) -> str:
    """The document with the tables of now between its marks."""
    for (begin, end), table in zip(MARKS, tables(), strict=True):
        head, _, rest = text.partition(begin)
        _, _, tail = rest.partition(end)
        text = f"{head}{begin}\n\n{table}\n{end}{tail}"
    return text


def main() -> int:
    """Bring the document up to date, or tell that it is not."""
    text = DOCUMENT.read_text()
    wanted = written(text)
    if wanted == text:
        return 0
    if "--check" in sys.argv[1:]:
        print("docs/metrics.md: its tables are not what flowerbed/metrics says: run `make docs`.")
        return 1
    DOCUMENT.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
