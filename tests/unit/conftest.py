"""Makes the repository importable, so that filter_plugins is a package here as it is inside the collection."""

import sys
from pathlib import Path

from hypothesis import settings

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

# Two cores are shared: fewer examples than the default, no limit on the time of one, nothing left in the repository.
settings.register_profile("unit", max_examples=60, deadline=None, database=None)
settings.load_profile("unit")
