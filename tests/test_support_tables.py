"""The tables in docs/ name exactly what the tests support; `make tables` writes them."""

from __future__ import annotations

import re
from pathlib import Path

from support import FAMILIES, MINIATURES

DOCS = Path(__file__).resolve().parents[1] / "docs"


def rows(page: str) -> list[list[str]]:
    found = re.search(r"<!-- table: \w+ -->\n(.*?)<!-- end of table -->", (DOCS / page).read_text("utf-8"), re.DOTALL)
    assert found is not None
    lines = [line.strip("|").split("|") for line in found[1].strip().splitlines()[2:]]
    return [[cell.strip() for cell in line] for line in lines]


def test_models() -> None:
    found = rows("models.md")
    named = [(family.title, family.reads) for family in FAMILIES]
    assert [(row[0], row[1]) for row in found][: len(named)] == named
    assert {row[0].split(":")[0] for row in found[len(named) :]} == {"timm", "open_clip"}
    assert {cell for row in found for cell in row[2:-1]} <= {"passed", "–"}


def test_datasets() -> None:
    found = rows("datasets.md")
    assert len(found) == len(MINIATURES)
    assert {cell for row in found for cell in row[2:-1]} == {"passed"}
