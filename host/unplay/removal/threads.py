"""How many threads work on one recording. What they find is the same with any number."""

from __future__ import annotations

import os

N_THREADS = 1 if os.environ.get("OMP_NUM_THREADS") == "1" else 2
"""One where processes share the cores already: OMP_NUM_THREADS is 1 in the workers of dask and in ours."""
