"""Write the tables of docs/models.md and docs/datasets.md from what the tests recorded: `make tables`."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from support import FAMILIES, MINIATURES

DOCS = Path(__file__).resolve().parents[1] / "docs"
CHECKS = (
    "hooks",
    "sites",
    "early stop",
    "batch",
    "padding",
    "characters",
    "special tokens",
    "geometry",
    "patches",
    "finite",
)
DTYPES = ("float32", "bfloat16")


def models_table(records: list[dict[str, Any]]) -> str:
    """One row a family and part: whether each check passed in both precisions."""
    found = {(r["family"], r["reads"], r["dtype"]): r for r in records if r["table"] == "models"}
    lines = [
        f"| model | reads | {' | '.join(name.removesuffix(' tokens') for name in CHECKS)} | date |",
        f"| --- | --- | {' | '.join('---' for _ in CHECKS)} | --- |",
    ]
    named = [(family.title, family.reads) for family in FAMILIES]
    further = sorted({(title, reads) for title, reads, _ in found} - set(named))
    for title, reads in (*named, *further):
        both = [found[title, reads, dtype] for dtype in DTYPES]
        cells = []
        for check in CHECKS:
            values = [held["checks"][check] for held in both if check in held["checks"]]
            cells.append("–" if not values else "passed" if all(values) else "**failed**")
        lines.append(f"| {title} | {reads} | {' | '.join(cells)} | {max(held['date'] for held in both)} |")
    return "\n".join(lines)


def datasets_table(records: list[dict[str, Any]]) -> str:
    """One row a format: what it gives, whether it survives conversion, whether a study runs."""
    held: dict[str, dict[str, str]] = {}
    for entry in records:
        if entry["table"] == "datasets":
            held.setdefault(entry["format"], {}).update({entry["check"]: entry["value"], "date": entry["date"]})
    if len(held) != len(MINIATURES):
        sys.exit(f"the record holds {len(held)} formats, but there are {len(MINIATURES)} miniatures")
    lines = ["| format | miniature read as | converted | study | date |", "| --- | --- | --- | --- | --- |"]
    for name, found in sorted(held.items()):
        cells = [found["read"], found.get("convert", "**failed**"), found.get("study", "**failed**"), found["date"]]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def written(text: str, name: str, table: str) -> str:
    """Put a table between its marks."""
    pattern = rf"(<!-- table: {name} -->\n).*?(<!-- end of table -->)"
    replaced, count = re.subn(pattern, lambda match: f"{match[1]}{table}\n{match[2]}", text, flags=re.DOTALL)
    if count != 1:
        sys.exit(f"docs: no single place for the table {name!r}")
    return replaced


if __name__ == "__main__":
    lines = [json.loads(line) for line in Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()]
    for name, make in (("models", models_table), ("datasets", datasets_table)):
        page = DOCS / f"{name}.md"
        page.write_text(written(page.read_text(encoding="utf-8"), name, make(lines)), encoding="utf-8")
