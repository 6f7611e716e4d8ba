"""GoEmotions in miniature, in both original layouts, with the oddities of the real files."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

FORMAT = "goemotions"
OPTIONS: dict[str, Any] = {"concepts": ["joy", "anger", "gratitude"]}

NAMES = [
    "admiration",
    "amusement",
    "anger",
    "annoyance",
    "approval",
    "caring",
    "confusion",
    "curiosity",
    "desire",
    "disappointment",
    "disapproval",
    "disgust",
    "embarrassment",
    "excitement",
    "fear",
    "gratitude",
    "grief",
    "joy",
    "love",
    "nervousness",
    "optimism",
    "pride",
    "realization",
    "relief",
    "remorse",
    "sadness",
    "surprise",
    "neutral",
]
THINGS = {
    "train": [
        "garden",
        "letter",
        "bicycle",
        "kitchen",
        "window",
        "concert",
        "ticket",
        "lesson",
        "market",
        "bridge",
        "ladder",
        "journey",
    ],
    "dev": ["meeting", "picture", "station", "pepper", "blanket", "summer"],
    "test": ["island", "hammer", "library", "carpet", "forest", "engine"],
}
OPENERS = {
    "joy": "I am so happy about the {} today",
    "anger": "How dare they ruin the {} again",
    "gratitude": "Thank you so much for the {} my friend",
}
PLAIN = ("The {} is open until five", "They moved the {} to the other side")


def comments(split: str) -> list[tuple[str, str, str]]:
    """Text, label names with commas, and id of the comments of a split."""
    made = [
        (opener.format(thing), emotion, f"{split[:2]}{emotion[:2]}{number:03d}")
        for emotion, opener in OPENERS.items()
        for number, thing in enumerate(THINGS[split])
    ]
    made += [
        (plain.format(thing), "neutral", f"{split[:2]}n{kind}{number:03d}")
        for kind, plain in enumerate(PLAIN)
        for number, thing in enumerate(THINGS[split])
    ]
    made += [
        ('He said "come back" and left the ' + THINGS[split][0], "neutral", f"{split[:2]}q0"),
        (f"[NAME]  loves it when the {THINGS[split][1]} sings ☀️ ", "joy", f"{split[:2]}q1"),
        (f"Great {THINGS[split][2]}, thanks a lot for that", "joy,gratitude", f"{split[:2]}m0"),
        ("Nope.", "anger", f"{split[:2]}s0"),
        ("What a sad, sad song", "sadness", f"{split[:2]}u0"),
    ]
    return made


def quoted(text: str) -> str:
    """A text as the original files write it: quotes only around those that hold one."""
    return '"' + text.replace('"', '""') + '"' if '"' in text else text


def build(folder: Path) -> Path:
    """Write train.tsv, dev.tsv, test.tsv and emotions.txt into ``data``, as in Google's repository."""
    data = folder / "data"
    data.mkdir(parents=True)
    for split in THINGS:
        lines = [
            f"{quoted(text)}\t{','.join(str(NAMES.index(name)) for name in labels.split(','))}\t{identity}\n"
            for text, labels, identity in comments(split)
        ]
        (data / f"{split}.tsv").write_text("".join(lines), encoding="utf-8", newline="")
    (data / "emotions.txt").write_text("\n".join(NAMES), encoding="utf-8")
    return folder


HEADER = [
    "text",
    "id",
    "author",
    "subreddit",
    "link_id",
    "parent_id",
    "created_utc",
    "rater_id",
    "example_very_unclear",
]


def rating(text: str, identity: str, rater: int, labels: str, thread: str = "t3_a", unclear: bool = False) -> list[str]:
    """One row of the ratings."""
    marks = ["1" if name in labels.split(",") else "0" for name in NAMES]
    return [text, identity, "somebody", "sub", thread, "t1_b", "1548381039.0", str(rater), str(unclear), *marks]


def write_ratings(folder: Path, rows: list[list[str]]) -> Path:
    """Write rows in turn into the three files of the full data set."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in range(3):
        with (folder / f"goemotions_{part + 1}.csv").open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow([*HEADER, *NAMES])
            writer.writerows(rows[part::3])
    return folder


def build_ratings(folder: Path) -> Path:
    """Three raters a comment: two agree, the third finds it unclear or chooses admiration."""
    rows = []
    for split in THINGS:
        for number, (text, labels, identity) in enumerate(comments(split)):
            rows += [rating(text, identity, rater, labels, f"t3_{number % 7}") for rater in (3, 5)]
            third = "" if number % 2 else "admiration"
            rows.append(rating(text, identity, 9, third, f"t3_{number % 7}", unclear=not third))
    return write_ratings(folder, rows)
