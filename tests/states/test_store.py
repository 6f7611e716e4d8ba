"""States with labels as matrices: on disk or in memory, streamed or dense, they are the same numbers."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from superactivators.artefacts import MANIFEST
from superactivators.data.dataset import SPLITS, ConceptDataset
from superactivators.errors import DataError, StoreError, StudyError
from superactivators.models.backbone import Backbone
from superactivators.states import arrays
from superactivators.states.arrays import states_from_arrays
from superactivators.states.extraction import extract, open_states
from superactivators.states.scaling import Scaling
from superactivators.states.states import States
from superactivators.states.store import StateStore

quick = settings(derandomize=True, deadline=None, max_examples=30)

# ------------------------------------------------------------------ a store on disk


@pytest.fixture(scope="module")
def stored(reader: Backbone, texts: ConceptDataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, States]:
    folder = tmp_path_factory.mktemp("store") / "states"
    return folder, extract(reader, texts, [1, 3], out=folder, shard_bytes=32 * 2 * 2 * 60)


def dense(states: States, site: str) -> torch.Tensor:
    return torch.cat([block.float() for _, block in states.values.blocks(site)])


def check_rows(states: States) -> None:
    """Every split, site and level against dense indexing."""
    for site, split in itertools.product(states.sites, SPLITS):
        whole = dense(states, site)
        chosen = np.flatnonzero(states.labels.splits == split)
        numbers = [row for k in chosen for row in range(states.offsets[k], states.offsets[k + 1])]
        rows = states.rows(site, split)
        assert rows.samples.tolist() == chosen.tolist()
        assert rows.n_rows == len(numbers)
        assert rows.width == whole.shape[1]
        np.testing.assert_array_equal(np.diff(rows.offsets), np.diff(states.offsets)[chosen])
        starts, blocks = zip(*rows.blocks(), strict=True) if len(numbers) else ((), ())
        assert list(starts) == np.cumsum([0, *map(len, blocks)])[:-1].tolist()
        if blocks:
            found = torch.cat(blocks)
            assert found.dtype == torch.float32
            torch.testing.assert_close(found, whole[numbers], rtol=0, atol=0)
        if states.labels.tokens is not None:
            np.testing.assert_array_equal(rows.labels.toarray(), states.labels.tokens.toarray()[numbers])
            np.testing.assert_array_equal(rows.known, states.labels.known[numbers])
        if states.values.has_sample_states:
            samples = states.rows(site, split, "sample")
            ((start, block),) = samples.blocks()
            assert start == 0
            torch.testing.assert_close(block, states.values.samples(site)[chosen], rtol=0, atol=0)
            np.testing.assert_array_equal(samples.labels.toarray(), states.labels.samples[chosen])
            assert samples.known.all()
            assert samples.offsets.tolist() == list(range(len(chosen) + 1))


def test_streaming_from_disk_equals_dense_indexing(stored: tuple[Path, States]) -> None:
    check_rows(stored[1])
    check_rows(open_states(stored[0]))


def test_scaled_rows_are_scaled_as_they_are_read(stored: tuple[Path, States]) -> None:
    states = stored[1]
    rows = states.rows("block[1]", "cal")
    scaling = Scaling.fit(states.rows("block[1]", "train"))
    plain, scaled = (torch.cat([block for _, block in part.blocks()]) for part in (rows, rows.scaled(scaling)))
    torch.testing.assert_close(scaled, (plain - scaling.mean) / scaling.scale)


def test_unknown_sites_splits_and_concepts(stored: tuple[Path, States]) -> None:
    states = stored[1]
    with pytest.raises(StudyError, match=r"no states at 'block\[2\]'.*Known: block\[1\], block\[3\]"):
        states.rows("block[2]", "train")
    with pytest.raises(StudyError, match="unknown split 'tests'; did you mean 'test'"):
        states.rows("block[1]", "tests")
    with pytest.raises(DataError, match="no concept 'animals' in these states; did you mean 'animal'"):
        states.with_concepts(["animals"])
    assert states.with_concepts(["colour", "animal"]).concepts == ("colour", "animal")
    assert "36 samples" in repr(states)
    assert states.with_concepts(["colour"]).fingerprint != states.fingerprint


def test_labels_of_other_tokens_are_refused(stored: tuple[Path, States]) -> None:
    states, other = stored[1], random_states(np.random.default_rng(0))
    with pytest.raises(DataError, match="do not fit states of"):
        States(states.values, other.labels)


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"sites": None},
        {"width": "wide"},
        {"shards": "x"},
        {"shards": [0, 10**30]},
        {"modality": None, "model": None, "shards": None},
    ],
)
def test_a_manifest_that_was_edited(stored: tuple[Path, States], tmp_path: Path, parameters: dict[str, Any]) -> None:
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in stored[0].rglob("*"):
        if path.is_file():
            (folder / path.relative_to(stored[0])).parent.mkdir(parents=True, exist_ok=True)
            (folder / path.relative_to(stored[0])).write_bytes(path.read_bytes())
    content = json.loads((folder / MANIFEST).read_text())
    content["parameters"] = content["parameters"] | parameters if parameters else {}
    (folder / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(StoreError, match=r"copy: its manifest lacks a needed entry .*extract again"):
        StateStore(folder)


# ------------------------------------------------------------------ arrays


def random_states(rng: np.random.Generator, **more: Any) -> States:
    lengths = rng.integers(1, 6, 12)
    n = int(lengths.sum())
    given: dict[str, Any] = {
        "values": {"first": rng.normal(size=(n, 5)), "second": rng.normal(size=(n, 5))},
        "offsets": np.cumsum([0, *lengths]),
        "token_labels": rng.random((n, 2)) < 0.3,
        "sample_labels": None,
        "splits": [SPLITS[k % 3] for k in range(12)],
        "concepts": ["a", "b"],
        "sample_values": {"first": rng.normal(size=(12, 5)), "second": rng.normal(size=(12, 5))},
    }
    return states_from_arrays(**given | more)


@quick
@given(st.integers(0, 1000), st.integers(1, 12))
def test_streaming_from_memory_equals_dense_indexing(seed: int, block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "BLOCK", block)
        check_rows(random_states(np.random.default_rng(seed)))


@pytest.mark.parametrize(
    "kind",
    [
        "float16",
        "float32",
        "float64",
        "torch.float16",
        "torch.bfloat16",
        "torch.float64",
        "grad",
        "read-only",
        "strided",
    ],
)
def test_numpy_and_torch_of_any_precision(kind: str) -> None:
    base = np.random.default_rng(0).normal(size=(6, 4))
    values: Any = torch.tensor(base)
    if kind == "read-only":
        values = base.copy()
        values.flags.writeable = False
    elif kind == "strided":
        values = np.repeat(base, 2, axis=1)[:, ::2]
    elif kind == "grad":
        values = torch.tensor(base, requires_grad=True) * 1
    elif kind.startswith("torch."):
        values = values.to(getattr(torch, kind.removeprefix("torch.")))
    else:
        values = base.astype(kind)
    labels = np.eye(6, 1, dtype=bool)
    states = states_from_arrays(values, [0, 2, 4, 6], labels, None, list(SPLITS), ["x"], values[:3])
    step = {"float16": 1e-3, "torch.float16": 1e-3, "torch.bfloat16": 1e-2}.get(kind, 1e-6)
    torch.testing.assert_close(dense(states, "given").double(), torch.tensor(base), rtol=step, atol=step)
    check_rows(states)
    assert (
        states.fingerprint
        == states_from_arrays(values, [0, 2, 4, 6], labels, None, list(SPLITS), ["x"], values[:3]).fingerprint
    )


def test_fingerprints_depend_on_numbers_labels_and_names() -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"concepts": ["a", "c"]},
        {"sample_values": None},
        {"splits": ["train"] * 10 + ["cal", "test"]},
    ]
    marks = [random_states(np.random.default_rng(0), **more).fingerprint for more in changes]
    marks.append(random_states(np.random.default_rng(1)).fingerprint)
    assert len(set(marks)) == len(marks)


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "array", "ints", "floats", "torch", "explicit zeros", "doubled"])
def test_token_labels_in_any_form(form: str) -> None:
    truth = np.random.default_rng(0).random((6, 3)) < 0.4
    truth[0, 0], truth[1, 1] = True, False
    forms: dict[str, Any] = {
        "csr": sp.csr_matrix(truth),
        "csc": sp.csc_matrix(truth),
        "coo": sp.coo_matrix(truth.astype(np.int8)),
        "array": sp.csr_array(truth.astype(float)),
        "ints": truth.astype(int),
        "floats": truth.astype(np.float32),
        "torch": torch.tensor(truth),
        "explicit zeros": sp.csr_matrix(truth.astype(int)),
        "doubled": sp.csr_matrix(truth),
    }
    given = forms[form]
    if form == "explicit zeros":
        given = sp.csr_matrix(([1, 0, 1], ([0, 1, 2], [0, 1, 2])), shape=(6, 3))
        truth = np.array([[1, 0, 0], [0, 0, 0], [0, 0, 1], *[[0, 0, 0]] * 3], dtype=bool)
    if form == "doubled":  # the same entry twice in one row
        given = sp.csr_matrix((np.ones(3, dtype=bool), [2, 0, 2], [0, 3, 3, 3, 3, 3, 3]), shape=(6, 3))
        truth = np.array([[1, 0, 1], *[[0, 0, 0]] * 5], dtype=bool)
    before = given.copy() if sp.issparse(given) else None
    states = states_from_arrays(np.ones((6, 2)), [0, 1, 3, 6], given, None, list(SPLITS), ["a", "b", "c"])
    tokens = states.labels.tokens
    assert tokens is not None
    np.testing.assert_array_equal(tokens.toarray(), truth)
    assert tokens.nnz == truth.sum(), "each token counts once"
    parts = [truth[0:1], truth[1:3], truth[3:6]]
    np.testing.assert_array_equal(states.labels.samples, [part.any(axis=0) for part in parts])
    if before is not None:
        assert before.nnz == given.nnz, "the caller's matrix stays as it was"


def test_sample_labels_given_or_alone() -> None:
    tokens = np.array([[1, 0], [0, 0], [0, 1]])
    given = np.array([[1, 1], [0, 0], [0, 1]])
    more: dict[str, Any] = {"splits": list(SPLITS), "concepts": ["a", "b"]}
    both = states_from_arrays(np.ones((3, 2)), [0, 1, 2, 3], tokens, given, **more)
    np.testing.assert_array_equal(both.labels.samples, given)
    alone = states_from_arrays(np.ones((4, 2)), [0, 2, 3, 4], None, given, **more)
    assert alone.labels.tokens is None
    rows = alone.rows("given", "train")
    np.testing.assert_array_equal(rows.labels.toarray(), [[True, True]] * 2)
    assert rows.known.all()
    with pytest.raises(StudyError, match="have no sample states"):
        alone.rows("given", "train", "sample")
    known = states_from_arrays(np.ones((3, 2)), [0, 1, 2, 3], tokens, None, **more, known=np.array([True, False, True]))
    assert known.rows("given", "cal").known.tolist() == [False]


NAN = np.full((6, 2), np.nan)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"values": {}}, "values holds no site"),
        ({"values": np.ones(6)}, r"values must be matrices of one shape \(rows, width\)"),
        ({"values": np.ones((0, 2))}, "none of them empty"),
        ({"values": np.ones((6, 0))}, "none of them empty"),
        ({"values": {"a": np.ones((6, 2)), "b": np.ones((6, 3))}}, "of one shape"),
        ({"values": np.ones((6, 2), dtype=int)}, "must be floating point; got torch.int64"),
        ({"values": np.array([["x", "y"]] * 6, dtype=object)}, "values at 'given' is no array of numbers"),
        ({"values": np.array([["x", "y"]] * 6)}, "values at 'given' is no array of numbers"),
        ({"values": NAN}, "values at 'given' hold numbers that are not finite"),
        ({"values": torch.full((6, 2), float("inf"))}, "not finite"),
        ({"offsets": [0, 2, 4, 5]}, r"number of rows \(6\)"),
        ({"offsets": [0, 4, 2, 6]}, "never go down"),
        ({"offsets": np.array([0, 2.5, 4, 6])}, "offsets must be whole numbers"),
        ({"offsets": [0, 0, 4, 6]}, "every sample needs at least one token"),
        ({"concepts": []}, "at least one"),
        ({"concepts": ["a", "a"]}, "concepts must be distinct names"),
        ({"concepts": ["a", "b"]}, r"token_labels must have shape \(6, 2\); got \(6, 1\)"),
        ({"token_labels": np.ones((5, 1), dtype=bool)}, r"token_labels must have shape \(6, 1\)"),
        ({"token_labels": np.full((6, 1), 2)}, "token_labels must hold only 0 and 1"),
        ({"token_labels": np.full((6, 1), np.nan)}, "token_labels must hold only 0 and 1"),
        ({"token_labels": np.full((6, 1), 0.5)}, "token_labels must hold only 0 and 1"),
        ({"token_labels": None}, "give token_labels, sample_labels or both"),
        ({"sample_labels": np.ones((2, 1), dtype=bool)}, r"sample_labels must have shape \(3, 1\)"),
        ({"sample_labels": np.full((3, 1), -1)}, "sample_labels must hold only 0 and 1"),
        ({"splits": ["train", "cal"]}, "splits must be 3 of train, cal, test; got 2"),
        ({"splits": ["train", "cal", "valid"]}, r"unknown: \['valid'\]"),
        ({"sample_values": np.ones((2, 2))}, "sample_values must have 3 rows"),
        ({"sample_values": {"other": np.ones((3, 2))}}, r"for sites \['other'\], but values are for \['given'\]"),
        ({"sample_values": np.ones((3, 5))}, "sample_values are 5 wide, but values are 2 wide"),
        ({"sample_values": NAN[:3]}, "sample_values at 'given' hold numbers that are not finite"),
        ({"ids": ["a", "b"]}, "ids must be 3 distinct names"),
        ({"ids": ["a", "b", "a"]}, "ids must be 3 distinct names"),
        ({"known": np.ones(5, dtype=bool)}, r"known must have shape \(6,\); got \(5,\)"),
    ],
)
def test_what_does_not_fit_together(more: dict[str, Any], says: str) -> None:
    given: dict[str, Any] = {
        "values": np.ones((6, 2)),
        "offsets": [0, 2, 4, 6],
        "token_labels": np.eye(6, 1, dtype=bool),
        "sample_labels": None,
        "splits": list(SPLITS),
        "concepts": ["a"],
    }
    states_from_arrays(**given)
    with pytest.raises(DataError, match=says):
        states_from_arrays(**given | more)


# ------------------------------------------------------------------ scaling


@quick
@given(st.integers(0, 1000), st.sampled_from([1e-4, 1.0, 3e3]), st.sampled_from([0.0, 1.0, 100.0]))
def test_scaling_equals_double_precision(seed: int, scale: float, shift: float) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 200, 9)
    values = (scale * (rng.normal(size=(int(lengths.sum()), 7)) + shift)).astype(np.float32)
    labels = np.zeros((len(values), 1), dtype=bool)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "BLOCK", 50)
        states = states_from_arrays(
            values, np.cumsum([0, *lengths]), labels, None, ["train", "cal", "train"] * 2 + list(SPLITS), ["x"]
        )
        rows = states.rows("given", "train")
        found = Scaling.fit(rows)
        scaled = torch.cat([block for _, block in rows.scaled(found).blocks()]).numpy()
    train = np.concatenate(
        [values[states.offsets[k] : states.offsets[k + 1]] for k in np.flatnonzero(states.labels.splits == "train")]
    ).astype(np.float64)
    mean, root = train.mean(axis=0), np.sqrt((train**2).sum(axis=1).mean())
    np.testing.assert_allclose(found.mean.numpy(), mean, rtol=1e-6, atol=1e-7 * scale)
    assert found.scale == pytest.approx(root, rel=1e-6)
    np.testing.assert_allclose(scaled, (train - mean) / root, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("values", [np.zeros((3, 2)), np.full((3, 2), 1e30)])
def test_states_that_cannot_be_scaled(values: np.ndarray) -> None:
    states = states_from_arrays(values.astype(np.float32), [0, 1, 2, 3], np.zeros((3, 1)), None, list(SPLITS), ["x"])
    with pytest.raises(DataError, match="states cannot be scaled"):
        Scaling.fit(states.rows("given", "train"))


def test_no_train_rows_at_all() -> None:
    states = states_from_arrays(np.ones((2, 2)), [0, 1, 2], np.zeros((2, 1)), None, ["cal", "test"], ["x"])
    with pytest.raises(DataError, match="0 train rows"):
        Scaling.fit(states.rows("given", "train"))
