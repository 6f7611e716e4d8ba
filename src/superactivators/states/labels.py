"""Labels of samples and tokens: spans against character ranges, masks against patches (METHOD section 2)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeAlias, final

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int, Integer

from superactivators.artefacts import FolderReader, Format, fingerprint, writing
from superactivators.data.dataset import VOID, ConceptDataset, ImageSample, TextSample
from superactivators.errors import DataError, StoreError, StudyError
from superactivators.models.encoding import Encoding
from superactivators.ragged import segment_ids

FORMAT = Format("superactivators/labels", 1)
TextRule: TypeAlias = Literal["overlap", "word"]


@final
@dataclass(frozen=True, eq=False)
class Labels:
    """Who carries which concept, and in which split.

    Attributes
    ----------
    ids : list of str
        Sample ids.
    offsets : int64 array of shape (samples + 1,)
        Tokens of each sample.
    splits : string array of shape (samples,)
        ``"train"``, ``"cal"`` or ``"test"``.
    concepts : tuple of str
        Column names.
    samples : bool array of shape (samples, concepts)
        Concept present in the sample.
    tokens : CSR bool matrix of shape (tokens, concepts) or None
        Concept carried by the token; None if nobody labelled tokens.
    known : bool array of shape (tokens,)
        False for tokens that nobody labelled (void pixels, samples without spans or mask): they count neither for
        nor against a concept when vectors are learned.
    lost_by_crop : dict of str to int
        Per concept, images whose every labelled pixel the model's crop removed.
    """

    ids: list[str]
    offsets: Int[np.ndarray, " n_plus_1"]
    splits: np.ndarray
    concepts: tuple[str, ...]
    samples: Bool[np.ndarray, "n c"]
    tokens: sp.csr_matrix | None
    known: Bool[np.ndarray, " tokens"]
    lost_by_crop: dict[str, int]

    def in_split(self, split: str) -> Int[np.ndarray, " k"]:
        """Numbers of the samples of one split."""
        return np.flatnonzero(self.splits == split)

    @cached_property
    def carried(self) -> sp.csr_matrix:
        """Which tokens stand for which concept when vectors and thresholds are learned, bool [tokens, concepts].

        The labelled ones; where nobody labelled tokens, every token of a positive sample (METHOD section 5).
        """
        if self.tokens is not None:
            return self.tokens
        return sp.csr_matrix(self.samples)[segment_ids(self.offsets)]

    @cached_property
    def counted(self) -> Bool[np.ndarray, " tokens"]:
        """Which tokens count when vectors are learned: the known ones; where nobody labelled tokens, all."""
        return self.known if self.tokens is not None else np.ones(int(self.offsets[-1]), dtype=bool)

    def without_tokens(self) -> Labels:
        """Forget which tokens carry what, as if only samples had been labelled."""
        return replace(self, tokens=None, known=np.zeros_like(self.known))

    def with_concepts(self, concepts: list[str]) -> Labels:
        """Keep only the named concepts, in the given order."""
        columns = [self.concepts.index(name) for name in concepts]
        return Labels(
            ids=self.ids,
            offsets=self.offsets,
            splits=self.splits,
            concepts=tuple(concepts),
            samples=self.samples[:, columns],
            tokens=None if self.tokens is None else self.tokens.tocsc()[:, columns].tocsr(),
            known=self.known,
            lost_by_crop={name: self.lost_by_crop[name] for name in concepts if name in self.lost_by_crop},
        )

    def save(self, folder: Path, made_from: str) -> None:
        """Write as a folder of format ``superactivators/labels``."""
        arrays = {
            "samples": self.samples.astype(np.uint8),
            "known": self.known.astype(np.uint8),
            "offsets": self.offsets,
        }
        if self.tokens is not None:
            arrays |= {"indptr": self.tokens.indptr.astype(np.int64), "indices": self.tokens.indices.astype(np.int32)}
        with writing(folder, FORMAT, made_from, {"concepts": list(self.concepts)}) as writer:
            writer.arrays("labels.safetensors", arrays)
            writer.json(
                "samples.json",
                {"ids": self.ids, "splits": self.splits.tolist(), "lost_by_crop": self.lost_by_crop},
            )

    @staticmethod
    def load(folder: Path) -> Labels:
        """Read what `save` wrote; raises ``StoreError`` if it is damaged or foreign."""
        reader = FolderReader(folder, FORMAT)
        arrays, content = reader.arrays("labels.safetensors"), reader.json("samples.json")
        try:
            concepts = tuple(reader.manifest.parameters["concepts"])
            samples = arrays["samples"].astype(bool)
            if samples.shape != (len(content["ids"]), len(concepts)):
                raise ValueError(f"labels of shape {samples.shape} for {len(concepts)} concepts")
            tokens = None
            if "indptr" in arrays:
                shape = (len(arrays["known"]), len(concepts))
                ones = np.ones(len(arrays["indices"]), dtype=bool)
                tokens = sp.csr_matrix((ones, arrays["indices"], arrays["indptr"]), shape=shape)
            return Labels(
                ids=content["ids"],
                offsets=arrays["offsets"],
                splits=np.array(content["splits"]),
                concepts=concepts,
                samples=samples,
                tokens=tokens,
                known=arrays["known"].astype(bool),
                lost_by_crop=content["lost_by_crop"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"{folder}: its content does not fit the format ({error!r}); make it again") from None


def labels_fingerprint(dataset: ConceptDataset, encoding: str, text_rule: TextRule, patch_rule: str | float) -> str:
    """Fingerprint of the labels that `label` would make of a data set and the encoding of that fingerprint."""
    return fingerprint([FORMAT.version, dataset.fingerprint, encoding, text_rule, patch_rule])


def label(
    dataset: ConceptDataset,
    encoding: Encoding,
    *,
    text_rule: TextRule = "overlap",
    patch_rule: Literal["any"] | float = "any",
) -> Labels:
    """Carry a data set's labels over to the tokens of an encoding.

    Parameters
    ----------
    dataset : ConceptDataset
        Every sample has a split.
    encoding : Encoding
        Of the same samples, in the same order.
    text_rule : str
        ``"overlap"``: a token carries a concept if its characters share a non-blank one with the span.
        ``"word"``: spans are first widened to whitespace-delimited words (as in the paper).
    patch_rule : str or float
        ``"any"``: at least one mask pixel falls into the patch (as in the paper). A number in (0, 1]: at least this
        share of the patch's labelled pixels.

    Returns
    -------
    Labels

    Raises
    ------
    StudyError
        If a rule is unknown.
    DataError
        If a mask does not have its image's size, or holds an id that is no class.
    """
    if text_rule not in ("overlap", "word"):
        raise StudyError(f"text_rule must be 'overlap' or 'word'; got {text_rule!r}")
    if patch_rule != "any" and not (isinstance(patch_rule, int | float) and 0 < patch_rule <= 1):
        raise StudyError(f"patch_rule must be 'any' or a share in (0, 1]; got {patch_rule!r}")
    lost: dict[str, int] = {}
    tokens: sp.csr_matrix | None = None
    known = np.zeros(encoding.n_tokens, dtype=bool)
    if dataset.has_token_labels:
        if encoding.modality == "text":
            tokens, known = _label_text(dataset, encoding, text_rule)
        else:
            tokens, known, lost = _label_patches(dataset, encoding, 0.0 if patch_rule == "any" else float(patch_rule))
    samples, given = dataset.given_labels()
    if tokens is not None:
        owner = sp.csr_matrix(
            (np.ones(encoding.n_tokens, dtype=np.int32), np.arange(encoding.n_tokens), encoding.offsets),
            shape=(encoding.n_samples, encoding.n_tokens),
        )
        derived = (owner @ tokens.astype(np.int32)).toarray() > 0
        samples = np.where(given[:, None], samples, derived)
    return Labels(dataset.ids, encoding.offsets, dataset.splits, dataset.concepts, samples, tokens, known, lost)


def _pairs_to_csr(
    rows: Int[np.ndarray, " pairs"], columns: Int[np.ndarray, " pairs"], shape: tuple[int, int]
) -> sp.csr_matrix:
    matrix = sp.csr_matrix((np.ones(len(rows), dtype=bool), (rows, columns)), shape=shape)
    matrix.sum_duplicates()
    matrix.data[:] = True
    return matrix


def _label_text(
    dataset: ConceptDataset, encoding: Encoding, rule: TextRule
) -> tuple[sp.csr_matrix, Bool[np.ndarray, " tokens"]]:
    """All texts are joined by one blank, so that spans and tokens of all samples meet in one coordinate."""
    assert encoding.chars is not None  # noqa: S101  # text encodings always have character ranges
    texts = [sample for sample in dataset.samples if isinstance(sample, TextSample)]
    column = {name: number for number, name in enumerate(dataset.concepts)}
    joined = np.frombuffer((" ".join(t.text for t in texts) + " ").encode("utf-32-le"), dtype=np.uint32)
    blank = np.isin(joined, [code for code in np.unique(joined).tolist() if chr(code).isspace()])
    filled = np.concatenate([[0], np.cumsum(~blank)])
    base = np.concatenate([[0], np.cumsum([len(t.text) + 1 for t in texts])])[:-1]

    spans = np.array(
        [
            (base[row] + span.start, base[row] + span.end, column[span.concept])
            for row, text in enumerate(texts)
            for span in text.spans
            if span.concept in column
        ],
        dtype=np.int64,
    ).reshape(-1, 3)
    starts, ends = spans[:, 0], spans[:, 1]
    if rule == "word":
        blanks = np.concatenate([[-1], np.flatnonzero(blank)])
        visible = np.flatnonzero(~blank)
        first = visible[np.searchsorted(visible, starts)]
        last = visible[np.searchsorted(visible, ends) - 1]
        starts = blanks[np.searchsorted(blanks, first) - 1] + 1
        ends = blanks[np.searchsorted(blanks, last)]

    shift = base[segment_ids(encoding.offsets)]
    token_starts, token_ends = encoding.chars[:, 0] + shift, encoding.chars[:, 1] + shift
    # Byte-level tokenizers give several tokens one character, so starts and ends are sorted but not strictly.
    low = np.searchsorted(token_ends, starts, side="right")
    high = np.maximum(np.searchsorted(token_starts, ends, side="left"), low)
    counts = high - low
    which = np.repeat(np.arange(len(spans)), counts)
    token = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(low, counts)
    shared_start = np.maximum(token_starts[token], starts[which])
    shared_end = np.maximum(np.minimum(token_ends[token], ends[which]), shared_start)
    hit = filled[shared_end] > filled[shared_start]
    matrix = _pairs_to_csr(token[hit], spans[which[hit], 2], (encoding.n_tokens, len(dataset.concepts)))

    placed = np.array([not ((t.labels or frozenset()) & column.keys() - {s.concept for s in t.spans}) for t in texts])
    return matrix, placed[segment_ids(encoding.offsets)]


def _label_patches(
    dataset: ConceptDataset, encoding: Encoding, share: float
) -> tuple[sp.csr_matrix, Bool[np.ndarray, " tokens"], dict[str, int]]:
    assert encoding.grids is not None and encoding.cells is not None and encoding.views is not None  # noqa: S101, PT018
    column = {name: number for number, name in enumerate(dataset.concepts)}
    table = np.zeros((max([VOID, *dataset.classes]) + 1, len(dataset.concepts)), dtype=np.int64)
    for identity, names in dataset.classes.items():
        for name in names:
            if name in column:
                table[identity, column[name]] = 1
    known = np.zeros(encoding.n_tokens, dtype=bool)
    rows, columns = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
    lost = np.zeros(len(dataset.concepts), dtype=np.int64)
    for number, sample in enumerate(dataset.samples):
        assert isinstance(sample, ImageSample)  # noqa: S101  # a data set has one modality
        mask = sample.load_mask()
        if mask is None:
            continue
        if mask.shape[:0:-1] != sample.size():
            wide, high = sample.size()
            raise DataError(
                f"sample {sample.id!r}: its mask is {mask.shape[2]} x {mask.shape[1]} pixels, "
                f"but its image is {wide} x {high}; give a mask of the image's size"
            )
        foreign = mask[(mask < 0) | (mask >= len(table))]
        if len(foreign):
            raise DataError(f"sample {sample.id!r}: mask id {int(foreign[0])} is not among the classes")
        grid = encoding.grids[number]
        start, end = encoding.offsets[number], encoding.offsets[number + 1]
        codes, carried, void = _merge_planes(mask, table)
        pixels, labelled = _pixels_per_cell(codes, encoding.views[number], (int(grid[0]), int(grid[1])), carried, void)
        cells = encoding.cells[start:end]
        pixels, labelled = pixels[cells], labelled[cells]
        known[start:end] = labelled > 0
        inside = (pixels > 0) & (pixels >= share * labelled[:, None])
        token, concept = np.nonzero(inside)
        rows.append(token + start)
        columns.append(concept)
        lost += carried[~void].any(axis=0) & ~(pixels > 0).any(axis=0)
    matrix = _pairs_to_csr(np.concatenate(rows), np.concatenate(columns), (encoding.n_tokens, len(dataset.concepts)))
    return matrix, known, {name: int(lost[number]) for name, number in column.items() if lost[number]}


def _merge_planes(
    mask: Integer[np.ndarray, "planes h w"], table: Integer[np.ndarray, "ids c"]
) -> tuple[Int[np.ndarray, "h w"], Integer[np.ndarray, "k c"], Bool[np.ndarray, " k"]]:
    """Give every combination of ids that pixels have a number, and say which concepts it carries and if it is void."""
    codes = np.zeros(mask.shape[1:], dtype=np.int64)
    carried, void = np.zeros((1, table.shape[1]), dtype=np.int64), np.zeros(1, dtype=bool)
    for plane in mask:
        pairs, inverse = np.unique(codes * len(table) + plane, return_inverse=True)
        before, identity = np.divmod(pairs, len(table))
        codes = inverse.reshape(codes.shape)
        carried, void = carried[before] | table[identity], void[before] | (identity == VOID)
    return codes, carried, void


def _pixels_per_cell(
    mask: Integer[np.ndarray, "h w"],
    view: Float[np.ndarray, " 4"],
    grid: tuple[int, int],
    table: Integer[np.ndarray, "ids c"],
    void: Bool[np.ndarray, " ids"],
) -> tuple[Integer[np.ndarray, "cells c"], Integer[np.ndarray, " cells"]]:
    """Count, on the full-resolution mask, each cell's pixels of every concept and its labelled pixels.

    A pixel belongs to the cell that holds its centre. Where cells are smaller than pixels, pixels are first cut into
    equal parts, so that every cell holds some.
    """
    left, top, right, bottom = view
    fine = max(1, int(np.ceil(2 * max(grid[0] / (bottom - top), grid[1] / (right - left)))))
    if fine > 1:
        mask = mask.repeat(fine, axis=0).repeat(fine, axis=1)
    y = np.floor(((np.arange(mask.shape[0]) + 0.5) / fine - top) / (bottom - top) * grid[0]).astype(np.int64)
    x = np.floor(((np.arange(mask.shape[1]) + 0.5) / fine - left) / (right - left) * grid[1]).astype(np.int64)
    y_in, x_in = (y >= 0) & (y < grid[0]), (x >= 0) & (x < grid[1])
    seen = mask[np.ix_(y_in, x_in)]
    identities, inverse = np.unique(seen, return_inverse=True)
    cell = (y[y_in][:, None] * grid[1] + x[x_in][None, :]).ravel()
    n_cells = grid[0] * grid[1]
    counts = np.bincount(cell * len(identities) + inverse.ravel(), minlength=n_cells * len(identities))
    counts = counts.reshape(n_cells, len(identities))
    held = ~void[identities]
    return counts[:, held] @ table[identities[held]], counts[:, held].sum(axis=1)
