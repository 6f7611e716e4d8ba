"""A few augmented paragraphs laid out as in the paper's repository, with the oddities of files that pandas wrote."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

FORMAT = "paper-text"
OPTIONS: dict[str, Any] = {}

CONCEPTS = ("joy", "sadness", "anger", "gratitude")
FILLERS = ("The train leaves at noon.", 'He said "no", twice.', "It cost 1,000 – or null.", "Nothing else happened.")
LABELLED = {
    "joy": "What a day, I could dance!",
    "sadness": "I miss her so much…",
    "anger": "How dare they?",
    "gratitude": "Thank you, really.",
}


def build(folder: Path) -> Path:
    """Sixteen paragraphs: three fillers and one or two labelled sentences each, every fourth none."""
    root = folder / "Augmented_GoEmotions"
    write(root, [pieces(number) for number in range(16)])
    return root


def pieces(number: int) -> list[tuple[str, tuple[str, ...]]]:
    """Sentences of a paragraph, each with its concepts."""
    made: list[tuple[str, tuple[str, ...]]] = [(FILLERS[(number + place) % 4], ()) for place in range(3)]
    if number % 4 != 3:
        concept = CONCEPTS[number % 3 + (number // 4) % 2]
        made.insert(number % 4, (LABELLED[concept], (concept,)))
    if number % 5 == 0:
        made.insert(2, (LABELLED["joy"], ("joy", "gratitude")))
    return made


def text_of(sentences: list[tuple[str, tuple[str, ...]]]) -> str:
    """Join the sentences, with a line break and double blanks at some places."""
    return "  ".join(sentence for sentence, _ in sentences[:2]) + "\n" + " ".join(s for s, _ in sentences[2:])


def write(root: Path, paragraphs: list[list[tuple[str, tuple[str, ...]]]], kind: str = "emotion") -> None:
    """Write metadata.csv, the texts, and both tables of labels; all with Windows line ends and a byte order mark."""
    (root / "texts").mkdir(parents=True)
    words: list[list[Any]] = []
    labels: list[list[Any]] = []
    rows: list[list[Any]] = []
    for number, sentences in enumerate(paragraphs):
        text = text_of(sentences)
        (root / "texts" / f"p{number}.txt").write_bytes(text.replace("\n", "\r\n").encode("utf-8-sig"))
        for sentence, names in sentences:
            for word in sentence.split():
                shown = "" if word == "null" else word  # pandas reads the word null as a missing value
                words.append([number + 1, shown, *(int(concept in names) for concept in CONCEPTS)])
        present = {name for _, names in sentences for name in names}
        flags = [int(concept in present) for concept in CONCEPTS]
        labels.append([number + 1, *flags])
        rows.append([f"texts/p{number}.txt", *flags, ("train", "cal", "test", "train")[number % 4]])
    save(root / "metadata.csv", ["text_path", *CONCEPTS, "split"], rows)
    save(root / f"word_level_{kind}.csv", ["paragraph_id", "word", *CONCEPTS], words)
    save(root / f"paragraph_level_{kind}.csv", ["paragraph_id", *CONCEPTS], labels)


def save(path: Path, header: list[str], rows: list[list[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file)  # its line ends are those of Windows
        writer.writerow(header)
        writer.writerows(rows)
