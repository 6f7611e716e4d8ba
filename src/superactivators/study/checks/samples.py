"""Checks of samples and labels: shared between splits, confounded with length, cut, cropped, or not labelled."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence

import numpy as np

from superactivators.data.dataset import ImageSample, Sample, TextSample
from superactivators.data.pixels import content_hash
from superactivators.study.checks.check import Finding, check, counted, named
from superactivators.study.checks.inputs import CheckInputs
from superactivators.study.checks.ranks import ranks_within

CONFOUNDED = 0.7
"""Largest area under the ROC curve, in either direction, with which a nuisance may tell positives from negatives."""

SURE = 2.0
"""Standard errors by which such an area must differ from one half."""

BEGINNINGS = ("<s>", "<bos>", "<|begin_of_text|>", "<|endoftext|>", "<|startoftext|>", "[CLS]", "<cls>")
"""How tokenizers spell the token that they put before a text."""

_NO_WORD = re.compile(r"[\W_]+")


def sample_keys(samples: Sequence[Sample]) -> list[bytes]:
    """Tell samples apart by what they show.

    Texts are the same if they hold the same letters and digits in the same words, whatever their case, blanks and
    punctuation (a text without any is taken as it is); images if their files, or arrays of pixels, are the same.
    """
    return [_key(sample) for sample in samples]


def _key(sample: Sample) -> bytes:
    if isinstance(sample, TextSample):
        folded = unicodedata.normalize("NFKC", sample.text).casefold()
        return (_NO_WORD.sub(" ", folded).strip() or folded.strip()).encode()
    return content_hash(sample.image)


@check("SA005", "samples stand in several splits")
def shared_samples(inputs: CheckInputs) -> Finding | None:
    """Test samples that train or cal hold too, the same or nearly."""
    dataset = inputs.dataset
    if dataset is None:
        return None
    keys, splits = sample_keys(dataset.samples), dataset.splits
    _, number = np.unique(np.array([hashlib.sha256(key).hexdigest() for key in keys]), return_inverse=True)
    held = {split: np.isin(number, number[splits == split]) for split in ("train", "cal", "test")}
    in_several = sum(held.values()) > 1
    groups = len(np.unique(number[in_several]))
    if not groups:
        return None
    leaked = np.flatnonzero(in_several & (splits == "test"))
    rows = np.flatnonzero(number == number[leaked[0] if len(leaked) else np.flatnonzero(in_several)[0]])
    example = " and ".join(f"{dataset.samples[row].id} ({splits[row]})" for row in rows[:2].tolist())
    what = "image" if isinstance(dataset.samples[0], ImageSample) else "text"
    return Finding(
        f"More than one split holds {counted(groups, what)}, such as {example}; of test, "
        f"{len(leaked):,} of its {int((splits == 'test').sum()):,} samples are in train or cal too. "
        "Remove the copies, or give them one group, so that they share a split.",
        len(leaked) or groups,
        0,
    )


@check("SA006", "the length of samples tells the concept")
def length_confound(inputs: CheckInputs) -> Finding | None:
    """How well the number of tokens tells samples with a concept from those without, over all splits."""
    labels = inputs.states.labels
    lengths = np.diff(labels.offsets)
    everyone = np.ones_like(labels.samples)
    auroc, errors = ranks_within(np.broadcast_to(lengths[:, None], everyone.shape), everyone, labels.samples)
    away = np.where(errors > SURE, np.maximum(auroc, 1 - auroc), 0.5)
    worst = int(away.argmax())
    if away[worst] <= CONFOUNDED:
        return None
    concerned = tuple(inputs.concepts[c] for c in np.flatnonzero(away > CONFOUNDED))
    with_it, without = (np.median(lengths[labels.samples[:, worst] == carries]) for carries in (True, False))
    return Finding(
        f"The number of tokens alone tells {inputs.concepts[worst]} with an AUROC of {away[worst]:.2f} (median "
        f"{with_it:.0f} tokens with it, {without:.0f} without; concerned: {named(concerned)}). Any maximum over tokens "
        "grows with their number: compare with samples of like length, and see the false alarms by length.",
        away[worst],
        CONFOUNDED,
        concerned,
    )


@check("SA009", "texts begin with a begin-of-text token")
def double_bos(inputs: CheckInputs) -> Finding | None:
    """Texts that spell out the token that a tokenizer puts before them."""
    if inputs.dataset is None:
        return None
    texts = [sample for sample in inputs.dataset.samples if isinstance(sample, TextSample)]
    doubled = [sample for sample in texts if sample.text.lstrip().startswith(BEGINNINGS)]
    if not doubled:
        return None
    spelled = next(token for token in BEGINNINGS if doubled[0].text.lstrip().startswith(token))
    return Finding(
        f"{spelled}, which tokenizers add themselves, is spelled out at the beginning of {len(doubled):,} of "
        f"{counted(len(texts), 'text')}, such as {doubled[0].id}: the model reads it twice, or as plain "
        "characters. Strip it from the texts.",
        len(doubled),
        0,
    )


@check("SA010", "the model's crop removed concepts")
def lost_by_crop(inputs: CheckInputs) -> Finding | None:
    """Images whose every labelled pixel of a concept lies outside what the model sees."""
    lost = {name: n for name, n in inputs.states.labels.lost_by_crop.items() if n and name in inputs.concepts}
    if not lost:
        return None
    concerned = tuple(sorted(lost, key=lambda name: -lost[name]))
    shown = ", ".join(f"{name} {lost[name]}" for name in concerned[:3])
    return Finding(
        f"The model's crop removed every labelled pixel of a concept {counted(sum(lost.values()), 'time')} ({shown}"
        f"{'' if len(lost) <= 3 else f' and {len(lost) - 3} more'}), so that nobody could have found it there. "
        'Set geometry = "squash" in [model] to show whole images.',
        sum(lost.values()),
        0,
        concerned,
    )


@check("SA011", "texts were truncated")
def truncated(inputs: CheckInputs) -> Finding | None:
    """Texts that the model's window has cut."""
    encoding = inputs.encoding
    if encoding is None or not encoding.cut.any():
        return None
    n, tokens = int((encoding.cut > 0).sum()), int(encoding.cut.sum())
    return Finding(
        f"{counted(n, 'text')} of {encoding.n_samples:,} lost {counted(tokens, 'token')} at the end of the model's "
        'window; a concept that stood there cannot be found. Set long_texts = "window" in [model] to read all of it.',
        n,
        0,
    )


@check("SA012", "no token is labelled")
def no_token_labels(inputs: CheckInputs) -> Finding | None:
    """Whether vectors and thresholds were made from labels of whole samples."""
    if inputs.states.labels.tokens is not None:
        return None
    return Finding(
        "Only whole samples are labelled, so every token of a positive sample stood in for its concepts: vectors and "
        "thresholds of tokens are rough, and nothing is known of where a concept is. Give spans or masks, or rely on "
        "the methods top-tokens and mean-probe, which need none.",
        0,
        1,
    )
