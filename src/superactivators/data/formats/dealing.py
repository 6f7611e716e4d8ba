"""Images of one set dealt to several splits by their ids, whatever the order in which they are listed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from superactivators.data.dataset import SPLITS
from superactivators.errors import DataError, allowed


def deal(ids: Sequence[str], splits: Sequence[str], counts: Mapping[str, int], seed: int, what: str) -> dict[str, str]:
    """Deal samples to splits.

    The ids are put in the order of the SHA-256 of ``"SEED:ID"``. The splits that have a count take their samples first,
    in the order train, cal, test; the others share what is left in equal parts (the first ones get one more where it
    does not come out even). Where every split has a count, what is left is dealt to none.

    Parameters
    ----------
    ids : sequence of str
        Unique.
    splits : sequence of str
        At least one.
    counts : mapping of str to int
        Samples that a split takes; entries of other splits are ignored.
    seed : int
        Changes the order.
    what : str
        What the samples come from, for the error.

    Returns
    -------
    dict of str to str
        Split of each id that was dealt.

    Raises
    ------
    DataError
        If the counts ask for more samples than there are.
    """
    order = sorted(ids, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    counted = [split for split in SPLITS if split in splits and split in counts]
    free = [split for split in SPLITS if split in splits and split not in counts]
    asked = sum(counts[split] for split in counted)
    if asked > len(order):
        raise DataError(f"{what} has {len(order)} images, but counts asks for {asked} of them; ask for fewer")
    dealt: dict[str, str] = {}
    at = 0
    for split in counted:
        dealt |= dict.fromkeys(order[at : at + counts[split]], split)
        at += counts[split]
    rest = order[at:]
    for number, split in enumerate(free):
        start, end = (-(-len(rest) * edge // len(free)) for edge in (number, number + 1))
        dealt |= dict.fromkeys(rest[start:end], split)
    return dealt


def check_splits(option: str, given: Mapping[str, object]) -> None:
    """Refuse keys of an option that are no splits."""
    for split in given:
        if split not in SPLITS:
            raise DataError(f"option {option}: {split!r} is no split; {allowed(split, SPLITS)}")


def check_counts(counts: Mapping[str, int]) -> None:
    """Refuse counts that are no positive whole numbers."""
    check_splits("counts", counts)
    for split, count in counts.items():
        if type(count) is not int or count < 1:
            raise DataError(f"option counts: {split} must be a whole number of at least 1; got {count!r}")
