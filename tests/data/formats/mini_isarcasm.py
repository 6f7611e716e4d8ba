"""iSarcasmEval in miniature, with the oddities of the real files."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

FORMAT = "isarcasm"
OPTIONS: dict[str, Any] = {}

KINDS = ("sarcasm", "irony", "satire", "understatement", "overstatement", "rhetorical_question")
TOPICS = [
    "queue",
    "homework",
    "weather",
    "printer",
    "traffic",
    "meeting",
    "landlord",
    "alarm",
    "umbrella",
    "diet",
    "gym",
    "inbox",
]
TESTED = ["neighbour", "parking", "toaster", "deadline", "wifi", "haircut"]


def sarcastic(topic: str) -> str:
    return f"Oh great, I just love another hour with the {topic}, thanks"


def plain(topic: str) -> tuple[str, str]:
    return f"The {topic} took about an hour this morning", f'Somebody asked me "how was the {topic}" at lunch'


def kinds_of(number: int) -> list[int]:
    """One kind, and a second one for every third text."""
    return [int(kind == number % 3 or (number % 3 == 0 and kind == 5)) for kind in range(len(KINDS))]


def write(path: Path, rows: list[list[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows(rows)


def train_rows() -> list[list[Any]]:
    """Header and rows of train.En.csv: sarcastic first, blanks in the columns of the others, an empty tweet."""
    rows: list[list[Any]] = [["", "tweet", "sarcastic", "rephrase", *KINDS]]
    for number, topic in enumerate(TOPICS):
        rows.append([number, sarcastic(topic), 1, f"I do not like the {topic}", *kinds_of(number)])
    more = [text for topic in TOPICS for text in plain(topic)]
    more += ["A line here\n\nand another one 🥰 there", "", more[0], more[1].upper() + "!!"]
    rows += [[len(TOPICS) + number, text, 0, "", *[""] * len(KINDS)] for number, text in enumerate(more)]
    return rows


def build(folder: Path) -> Path:
    """Write the folders ``train`` and ``test`` of the repository, English files."""
    write(folder / "train" / "train.En.csv", train_rows())
    tested = [(sarcastic(topic), 1, kinds_of(number)) for number, topic in enumerate(TESTED)]
    tested += [(text, 0, [0] * len(KINDS)) for topic in TESTED for text in plain(topic)]
    write(folder / "test" / "task_A_En_test.csv", [["text", "sarcastic"], *([t, mark] for t, mark, _ in tested)])
    # The same texts in another order; one has a character that was damaged on the way.
    shuffled = [[text.replace(", thanks", "… thanks "), *marks] for text, _, marks in reversed(tested)]
    write(folder / "test" / "task_B_En_test.csv", [["text", *KINDS], *shuffled])
    return folder


def build_arabic(folder: Path) -> Path:
    """Write the Arabic files, whose columns stand in another order."""
    rows = [[number, f"نص ساخر رقم {number} هنا", 1, "نص عادي", "nile"] for number in range(1, 13)]
    rows += [[number, f"كلام عادي جدا رقم {number} هنا", 0, "", "msa"] for number in range(13, 45)]
    write(folder / "train.Ar.csv", [["id", "text", "sarcastic", "rephrase", "dialect"], *rows])
    tested = [[f"اختبار ساخر رقم {number} هنا", "gulf", 1] for number in range(5)]
    tested += [[f"اختبار عادي جدا رقم {number} هنا", "msa", 0] for number in range(9)]
    write(folder / "task_A_Ar_test.csv", [["text", "dialect", "sarcastic"], *tested])
    return folder
