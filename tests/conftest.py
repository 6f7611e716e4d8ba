"""Settings of the whole suite."""

from __future__ import annotations

import os

# Worker processes share the cores among them; several threads in each would only wait for one another.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
