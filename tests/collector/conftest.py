"""Lets the tests of the collector find what they share, for every import mode of pytest's."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
for path in (Path(__file__).parent, ROOT / "tests" / "addon", ROOT / "roles" / "flower" / "files"):
    if str(path) not in sys.path:
        sys.path.insert(0, str(path))
