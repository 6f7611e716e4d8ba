"""A small Hugging Face data set of texts with token tags, saved to a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

FORMAT = "hf"
OPTIONS: dict[str, Any] = {}
TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-FOOD"]
WORDS = {"B-PER": "Ann", "I-PER": "Lee", "B-LOC": "New", "I-LOC": "York", "B-FOOD": "🍜"}


def rows(offset: int, n: int) -> dict[str, list[Any]]:
    """Columns of one split."""
    patterns = [["B-PER", "I-PER"], ["B-LOC", "I-LOC"], ["B-FOOD"], ["B-PER", "B-LOC"], []]
    tags = [["O", *patterns[(offset + k) % 5], "O"] for k in range(n)]
    tokens = [[f"word{offset + k}", *(WORDS[tag] for tag in each[1:-1]), "."] for k, each in enumerate(tags)]
    return {"id": [f"s{offset + k}" for k in range(n)], "tokens": tokens, "ner_tags": tags}


def build(folder: Path) -> Path:
    """Save the data set and return its folder."""
    import datasets

    features = datasets.Features(
        {
            "id": datasets.Value("string"),
            "tokens": datasets.List(datasets.Value("string")),
            "ner_tags": datasets.List(datasets.ClassLabel(names=TAGS)),
        }
    )
    datasets.disable_progress_bars()
    parts = {
        name: datasets.Dataset.from_dict(rows(offset, n), features=features)
        for name, offset, n in (("train", 0, 20), ("validation", 20, 10), ("test", 30, 10))
    }
    datasets.DatasetDict(parts).save_to_disk(str(folder / "saved"))
    return folder / "saved"
