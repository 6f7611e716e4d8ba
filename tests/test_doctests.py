"""Examples in docstrings run and print what they say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import superactivators

ROOT = Path(superactivators.__file__).parent
WITH_EXAMPLES = sorted(
    ".".join(("superactivators", *path.relative_to(ROOT).with_suffix("").parts))
    for path in ROOT.rglob("*.py")
    if re.search(r"^\s*>>> ", path.read_text(encoding="utf-8"), re.MULTILINE)
)

# In a process of its own: the shape checks of the test run wrap functions, and doctest does not look into wrappers.
RUN = """
import doctest, importlib, sys
outcomes = {name: doctest.testmod(importlib.import_module(name)) for name in sys.argv[1:]}
failed = [name for name, outcome in outcomes.items() if outcome.failed]
attempted = sum(outcome.attempted for outcome in outcomes.values())
sys.exit(f"failed: {failed}, attempted: {attempted}" if failed or attempted < 8 else 0)
"""


def test_examples_hold() -> None:
    assert len(WITH_EXAMPLES) >= 3
    done = subprocess.run([sys.executable, "-c", RUN, *WITH_EXAMPLES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
