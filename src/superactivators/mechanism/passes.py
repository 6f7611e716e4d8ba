"""Forward passes over drawn samples: parts of blocks along concept vectors, attention, and heads taken out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from superactivators.attribution.rollout import eager_attention
from superactivators.data.dataset import Sample
from superactivators.detection.detector import Detector
from superactivators.errors import ModelError
from superactivators.mechanism.anatomy import Anatomy
from superactivators.mechanism.calls import given_state, hooks
from superactivators.mechanism.folding import Fold
from superactivators.mechanism.head_layout import Heads
from superactivators.mechanism.heads import AttentionShares
from superactivators.mechanism.splits import PARTS, BlockParts, watching_parts
from superactivators.models.backbone import Backbone
from superactivators.models.batching import ForwardPass
from superactivators.models.collect import to_device
from superactivators.models.encoding import Encoding
from superactivators.models.layers import site_name
from superactivators.models.quiet import quiet_transformers
from superactivators.ragged import rows_of, segment_any, segment_ids
from superactivators.states.store import DTYPES


@final
@dataclass(frozen=True, eq=False)
class Drawn:
    """Samples that are looked at.

    Attributes
    ----------
    samples : sequence of Sample
    encoding : Encoding
        Of these samples.
    max_batch_tokens : int
    """

    samples: Sequence[Sample]
    encoding: Encoding
    max_batch_tokens: int


@final
@dataclass(eq=False)
class OnePass:
    """One forward pass and where its tokens belong among all."""

    forward: ForwardPass
    batch_rows: Int[np.ndarray, " tokens"]
    begin: int
    end: int = 0

    def places(self, sequence: int) -> tuple[Int[np.ndarray, " k"], Int[np.ndarray, " k"]]:
        """Where content tokens stand in flat states, and their numbers in the encoding."""
        rows = self.forward.layout(sequence).rows
        self.end = self.begin + len(rows)
        return rows, self.batch_rows[self.begin : self.end]

    def shown(self, pieces: int, sequence: int) -> Int[np.ndarray, "pieces seq"]:
        """Which token of the encoding each place of the sequence shows; -1 for none."""
        shows = np.asarray(self.forward.shows())
        if shows.shape == (pieces, sequence):  # texts: windows overlap, so that a token can be shown twice
            return np.where(shows >= 0, self.batch_rows[np.maximum(shows, 0)], -1)
        rows, tokens = self.places(sequence)
        if len(rows) and rows.max() >= pieces * sequence:
            raise ModelError(f"attention of {pieces} sequences of {sequence} places does not fit the model's states")
        found = np.full(pieces * sequence, -1, dtype=np.int64)
        found[rows] = tokens
        return found.reshape(pieces, sequence)


def passes(backbone: Backbone, drawn: Drawn) -> Iterator[tuple[OnePass, dict[str, Any]]]:
    """Yield every forward pass with its inputs on the device."""
    for batch in backbone.batches(drawn.samples, drawn.encoding, max_batch_tokens=drawn.max_batch_tokens):
        rows, begin = rows_of(drawn.encoding.offsets, batch.rows), 0
        for forward in batch.passes:
            one = OnePass(forward, rows, begin)
            with quiet_transformers():
                yield one, to_device(forward.inputs, backbone.device, backbone.dtype)
            begin = one.end


@final
@dataclass(frozen=True, eq=False)
class Directions:
    """Unit concept vectors.

    Attributes
    ----------
    fixed : float32 tensor of shape (concepts, width)
        Each concept's vector at the site of its detector, for all blocks.
    own : mapping of site to float32 tensor of shape (concepts, width)
        Vectors that were learned at each site.
    """

    fixed: Float[Tensor, "c d"]
    own: Mapping[str, Float[Tensor, "c d"]]

    def at(self, site: str) -> dict[str, Float[Tensor, "c d"]]:
        """Vectors that are looked along at a site."""
        return {"fixed": self.fixed} | ({"own": self.own[site]} if site in self.own else {})


@final
@dataclass(eq=False)
class Recorded:
    """What `record` found.

    Attributes
    ----------
    along : dict of (site, vector) to float32 array of shape (tokens, concepts)
        Projections of the raw states.
    lengths : dict of site to float32 array of shape (tokens,)
        Norms of the raw states.
    parts : dict of (block, vector) to float32 array of shape (3, tokens, concepts)
        Projections of `superactivators.mechanism.splits.PARTS`.
    errors : float list
        Of each block; see `BlockParts`.
    inverse_lengths : mapping of module to float
        See `superactivators.mechanism.heads.head_gains`.
    scores : float32 array of shape (tokens, concepts)
        The detector's own activations.
    """

    along: dict[tuple[str, str], np.ndarray]
    lengths: dict[str, np.ndarray]
    parts: dict[tuple[int, str], np.ndarray]
    errors: list[float]
    scores: np.ndarray
    inverse_lengths: dict[nn.Module, float] = field(default_factory=dict)


def record(
    backbone: Backbone, drawn: Drawn, anatomies: Sequence[Anatomy], directions: Directions, detector: Detector
) -> Recorded:
    """Project all blocks' states and parts on concept vectors, in one forward pass a batch."""
    n_blocks, tokens, concepts = backbone.n_blocks, drawn.encoding.n_tokens, len(directions.fixed)
    names = [site_name(place, n_blocks) for place in range(-1, n_blocks)]
    found = Recorded(
        along={
            (site, vector): np.zeros((tokens, concepts), np.float32) for site in names for vector in directions.at(site)
        },
        lengths={site: np.zeros(tokens, np.float32) for site in names},
        parts={
            (block, vector): np.zeros((len(PARTS), tokens, concepts), np.float32)
            for block in range(n_blocks)
            for vector in directions.at(names[block + 1])
        },
        errors=[0.0] * n_blocks,
        scores=np.zeros((tokens, concepts), np.float32),
    )
    folds = {part.module: part for anatomy in anatomies if anatomy.heads for part in anatomy.heads.folds}
    sums: dict[nn.Module, tuple[float, int]] = dict.fromkeys(folds, (0.0, 0))
    here: list[OnePass] = []

    def rows_in(state: Tensor) -> tuple[Tensor, Int[np.ndarray, " k"]]:
        rows, numbers = here[-1].places(state.shape[1])
        flat = state.reshape(-1, state.shape[-1])
        return flat.index_select(0, torch.from_numpy(rows).to(flat.device)).float(), numbers

    def keep(site: str, state: Tensor) -> None:
        held, numbers = rows_in(state)
        found.lengths[site][numbers] = held.norm(dim=1).cpu().numpy()
        for vector, unit in directions.at(site).items():
            found.along[site, vector][numbers] = (held @ unit.to(held.device).T).cpu().numpy()

    def receive(block: int, seen: BlockParts) -> None:
        site = names[block + 1]
        if block == 0:
            keep(names[0], seen.before)
        keep(site, seen.after)
        for number, (_, part) in enumerate(seen.parts()):
            held, numbers = rows_in(part)
            for vector, unit in directions.at(site).items():
                found.parts[block, vector][number, numbers] = (held @ unit.to(held.device).T).cpu().numpy()
        found.errors[block] = max(found.errors[block], seen.error)

    def measure(part: Fold) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            given = given_state(args, kwargs)
            if given is None or not part.normed:
                return
            state = rows_in(given)[0] if given.ndim == 3 and given.shape[-1] == backbone.width else given
            one = part.inverse_lengths(state)
            total, count = sums[module]
            sums[module] = total + float(one.double().sum()), count + one.numel()

        return hook

    handles = [module.register_forward_pre_hook(measure(part), with_kwargs=True) for module, part in folds.items()]
    score = _Scorer(detector, found.scores)
    sites = sorted({*detector.sites, names[-1]})
    with hooks(handles), watching_parts(backbone, anatomies, receive):
        for one, inputs in passes(backbone, drawn):
            here.append(one)
            backbone.runner.run(inputs, sites, lambda site, raw: score.take(site, *rows_in(raw)))
            here.pop()
    found.inverse_lengths = {module: total / count for module, (total, count) in sums.items() if count}
    return found


@final
class _Scorer:
    """Writes the detector's activations of states as they pass by."""

    def __init__(self, detector: Detector, scores: Float[np.ndarray, "tokens c"]) -> None:
        column = {name: number for number, name in enumerate(detector.concepts)}
        self._banks = {bank.site: bank for bank in detector.banks}
        self._columns = {bank.site: np.array([column[name] for name in bank.concepts]) for bank in detector.banks}
        self._dtype = DTYPES[detector.dtype]
        self._scores = scores

    def take(self, site: str, held: Float[Tensor, "k d"], numbers: Int[np.ndarray, " k"]) -> None:
        if site in self._banks:
            activations = self._banks[site].activations(held.cpu().to(self._dtype)).numpy()
            self._scores[np.ix_(numbers, self._columns[site])] = activations


def attention_shares(
    backbone: Backbone,
    drawn: Drawn,
    anatomies: Sequence[Anatomy],
    chosen: Bool[np.ndarray, "tokens c"],
) -> AttentionShares:
    """Measure the attention that goes to chosen tokens, such as SuperActivators, in one forward pass a batch.

    Queries are the content tokens of samples that have a chosen token; keys are all places, special tokens too.

    Parameters
    ----------
    backbone : Backbone
    drawn : Drawn
    anatomies : sequence of Anatomy
        Blocks without heads are passed over.
    chosen : bool array of shape (tokens, concepts)

    Returns
    -------
    AttentionShares
    """
    offsets = drawn.encoding.offsets
    asking = segment_any(chosen, offsets)[segment_ids(offsets)]
    counts = [0 if anatomy.heads is None else anatomy.heads.n_heads for anatomy in anatomies]
    found = AttentionShares(counts, chosen.shape[1])
    here: list[OnePass] = []
    marks: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def marked(pieces: int, sequence: int) -> tuple[Tensor, Tensor]:
        if (pieces, sequence) not in marks:
            shown = here[-1].shown(pieces, sequence)
            held = np.where(shown[..., None] >= 0, chosen[np.maximum(shown, 0)], False)
            rows, numbers = here[-1].places(sequence)
            asked = np.zeros((pieces * sequence, chosen.shape[1]), dtype=np.float32)
            asked[rows] = asking[numbers]
            queries = torch.from_numpy(asked).reshape(pieces, sequence, -1)
            marks[pieces, sequence] = torch.from_numpy(held.astype(np.float32)), queries
        return marks[pieces, sequence]

    def watch(block: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
            if not isinstance(weights, Tensor):
                raise ModelError(f"{type(module).__name__} gives no attention in block {block}")
            keys, queries = (held.to(weights.device) for held in marked(weights.shape[0], weights.shape[2]))
            found.add(block, weights, keys, queries)

        return hook

    handles = [
        anatomy.heads.weighing.register_forward_hook(watch(block))
        for block, anatomy in enumerate(anatomies)
        if anatomy.heads is not None
    ]
    last = [site_name(backbone.n_blocks - 1, backbone.n_blocks)]
    with hooks(handles), eager_attention(backbone):
        for one, inputs in passes(backbone, drawn):
            here.append(one)
            marks.clear()

            def locate(site: str, raw: Tensor, one: OnePass = one) -> None:
                one.places(raw.shape[1])

            backbone.runner.run(inputs, last, locate)
            here.pop()
    return found


@contextmanager
def without_head(heads: Heads, head: int) -> Iterator[None]:
    """Take one head's result out, before the output projection, inside a ``with`` block."""
    begin, end = head * heads.head_width, (head + 1) * heads.head_width

    def hook(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        mixed = args[0].clone()
        mixed[..., begin:end] = 0
        return (mixed, *args[1:])

    with hooks([heads.output.register_forward_pre_hook(hook)]):
        yield


def scores_without(
    backbone: Backbone, drawn: Drawn, heads: Heads, head: int, detector: Detector
) -> Float[np.ndarray, "tokens c"]:
    """Score tokens with one head taken out, in one forward pass a batch."""
    scores = np.zeros((drawn.encoding.n_tokens, len(detector.concepts)), np.float32)
    score = _Scorer(detector, scores)
    with without_head(heads, head):
        for one, inputs in passes(backbone, drawn):

            def take(site: str, raw: Tensor, one: OnePass = one) -> None:
                rows, numbers = one.places(raw.shape[1])
                flat = raw.reshape(-1, raw.shape[-1])
                held = flat.index_select(0, torch.from_numpy(rows).to(flat.device)).float()
                score.take(site, held, numbers)

            backbone.runner.run(inputs, detector.sites, take)
    return scores
