"""Where tokens stand within their sample: the sentence of each text token, the grid cell of each patch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Int, Int32

from superactivators.data.dataset import Sample, TextSample
from superactivators.errors import StudyError
from superactivators.models.encoding import Encoding
from superactivators.ragged import offsets_of, rows_of, segment_ids

ABBREVIATIONS = (
    *("Mr", "Mrs", "Ms", "Dr", "Prof", "Rev", "Hon", "Gen", "Col", "Capt", "Lt", "Sgt", "Gov", "Sen", "Rep"),
    *("St", "Mt", "Jr", "Sr", "vs", "cf", "al", "approx", "resp", "Fig", "Figs", "Eq", "Vol", "dept", "est"),
)
"""Words whose point ends no sentence, in upper or lower case. Single letters but ``I`` are abbreviations too."""

_BREAKS = "\n\r\v\f\x85\u2028\u2029"
_CLOSERS = r"""["'”’»)\]}]*"""
# Looking back from behind the point: from before it, every character of the text would be asked.
_POINT = r"\." + "".join(rf"(?<!\b(?i:{word})\.)" for word in ABBREVIATIONS) + r"(?<!\b[^\W\d_I]\.)"
_END = re.compile(
    rf"(?:{_POINT}|[!?…]|\.{{2,}})[.!?…]*{_CLOSERS}(?=\s)[^\S{_BREAKS}]*|[。！？]+[」』{_CLOSERS[1:]}|[{_BREAKS}]"
)


def sentence_starts(text: str) -> Int[np.ndarray, " sentences"]:
    """Split a text into sentences.

    A sentence ends at a run of ``.``, ``!``, ``?`` or ``…``, with the closing quotes and brackets behind it, where a
    blank or the end of the text follows; at ``。``, ``！`` and ``？``; and at every line break. A lone point ends none
    behind a single letter (``e.g.``, ``U.S.``, ``J. Smith``; but ``I`` is a word) or one of `ABBREVIATIONS`, and none
    with a digit or letter right behind it (``3.14``). What begins in lower case may be a sentence, as in chat.

    Parameters
    ----------
    text : str

    Returns
    -------
    int64 array of shape (sentences,)
        Character at which each sentence begins; the first is 0. Blanks belong to the sentence before them, so that
        some sentences of a text with empty lines are blank.

    Examples
    --------
    >>> sentence_starts("Dr. Li paid 3.50, e.g. for tea. “Why?” Nobody asked...")
    array([ 0, 32, 39])
    """
    ends = np.array([found.end() for found in _END.finditer(text + "\n")], dtype=np.int64)
    return np.unique(np.concatenate([[0], ends[ends < len(text)]])).astype(np.int64)


@final
@dataclass(frozen=True, eq=False)
class Layout:
    """Segments of the tokens of some samples: sentences of texts, or places on the patch grids of images.

    Attributes
    ----------
    offsets : int64 array of shape (samples + 1,)
        Tokens of each sample.
    sentences : int32 array of shape (tokens,) or None
        Texts only: sentence of each token within its sample; never goes down.
    grids : int32 array of shape (samples, 2) or None
        Images only: rows and columns of the patch grid.
    cells : int32 array of shape (tokens,) or None
        Images only: which grid cell (row-major) each token is. Padding cells have no token.
    """

    offsets: Int[np.ndarray, " n_plus_1"]
    sentences: Int32[np.ndarray, " tokens"] | None = None
    grids: Int32[np.ndarray, "n 2"] | None = None
    cells: Int32[np.ndarray, " tokens"] | None = None

    @staticmethod
    def of(samples: Sequence[Sample], encoding: Encoding) -> Layout:
        """Take the layout of a data set's samples, texts or images.

        Parameters
        ----------
        samples : sequence of TextSample or ImageSample
        encoding : Encoding
            Of the same samples, as ``backbone.encode`` or a states folder gives it.

        Raises
        ------
        StudyError
            If the samples are not those of the encoding.
        """
        if len(samples) != encoding.n_samples:
            raise StudyError(f"the layout of {encoding.n_samples} encoded samples needs these, but got {len(samples)}")
        if encoding.modality == "image":
            return Layout.of_images(encoding)
        return Layout.of_texts([sample.text for sample in samples if isinstance(sample, TextSample)], encoding)

    @staticmethod
    def of_texts(texts: Sequence[str], encoding: Encoding) -> Layout:
        """Find the sentence of every token; see `sentence_starts`.

        Parameters
        ----------
        texts : sequence of str
        encoding : Encoding
            Of the same texts. A token belongs to the sentence of its last character, so that a leading blank does not
            count.

        Raises
        ------
        StudyError
            If the encoding is not of as many texts, or of texts that are shorter.
        """
        if encoding.chars is None or len(texts) != encoding.n_samples:
            raise StudyError(
                f"sentences need the {encoding.n_samples} encoded texts, but got {len(texts)} texts and an encoding of "
                f"{encoding.modality}s"
            )
        # All texts are joined by line breaks, where sentences end anyway, so that one search serves all tokens.
        lengths = np.array([len(text) for text in texts], dtype=np.int64)
        base = np.concatenate([[0], np.cumsum(lengths + 1)])
        starts = np.union1d(sentence_starts("\n".join(texts)), base[:-1])
        sample = segment_ids(encoding.offsets)
        last = np.maximum(encoding.chars[:, 1].astype(np.int64) - 1, encoding.chars[:, 0])
        if (last > lengths[sample]).any():
            wrong = int(sample[np.argmax(last > lengths[sample])])
            raise StudyError(f"text {wrong} is shorter than when it was encoded; give the encoded texts, in order")
        numbers = np.searchsorted(starts, base[sample] + last, side="right") - 1
        first = np.searchsorted(starts, base[:-1])
        # Windows and bytes of one character may step back; sentences of later samples have higher numbers.
        numbers = np.maximum.accumulate(numbers) - first[sample]
        return Layout(encoding.offsets, sentences=numbers.astype(np.int32))

    @staticmethod
    def of_images(encoding: Encoding) -> Layout:
        """Take the patch grids; raises ``StudyError`` if the encoding is of texts."""
        if encoding.grids is None or encoding.cells is None:
            raise StudyError("patch grids need an encoding of images, but this one is of texts; give its texts instead")
        return Layout(encoding.offsets, grids=encoding.grids, cells=encoding.cells)

    def block(self, begin: int, end: int) -> Layout:
        """Layout of the consecutive samples ``begin:end``."""
        first, last = int(self.offsets[begin]), int(self.offsets[end])
        return Layout(
            self.offsets[begin : end + 1] - first,
            None if self.sentences is None else self.sentences[first:last],
            None if self.grids is None else self.grids[begin:end],
            None if self.cells is None else self.cells[first:last],
        )

    def subset(self, samples: Int[np.ndarray, " k"]) -> Layout:
        """Layout of the samples with the given numbers, in the given order."""
        rows, lengths = rows_of(self.offsets, samples), np.diff(self.offsets)[samples]
        return Layout(
            offsets_of(lengths),
            None if self.sentences is None else self.sentences[rows],
            None if self.grids is None else self.grids[samples],
            None if self.cells is None else self.cells[rows],
        )

    def sentence_offsets(self) -> Int[np.ndarray, " sentences_plus_1"]:
        """Tokens of each sentence of all samples: offsets that also hold every sample's own.

        Raises
        ------
        StudyError
            If this is the layout of images.
        """
        if self.sentences is None:
            raise StudyError("images have no sentences; use a layout of texts")
        changes = np.flatnonzero(np.diff(self.sentences)) + 1
        return np.union1d(changes, self.offsets).astype(np.int64)
