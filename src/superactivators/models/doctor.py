"""Self-check: does a backbone do with its model what this package claims? Every check runs the model itself."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from superactivators.data.dataset import ImageSample, Sample, TextSample
from superactivators.models.backbone import Backbone
from superactivators.models.collect import to_device
from superactivators.models.layers import EMBED, LayerSpec
from superactivators.models.text import TextReader
from superactivators.models.vision import ImageReader

FP16_MAX = 65504.0

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""How far a state may move with the batch it is in, as a share of its norm."""

_TEXTS = (
    "A plain sentence about a dog, a house and the sea.",
    "  Leading blanks,\ttabs\t\tand   runs of blanks; na\u00efve caf\u00e9s, co\u0301mbining marks.",
    "Emoji \U0001f600\U0001f389 and \u65e5\u672c\u8a9e, \u0939\u093f\u0928\u094d\u0926\u0940, "
    "\u20ac5\u00bd \u2014 unbelievably hyper-tokenised!",
    "Short.",
    "Some more words, so that the lengths in a batch differ and some of the texts must be padded a good deal more.",
)


@final
@dataclass(frozen=True, slots=True)
class Check:
    """One finding.

    Attributes
    ----------
    name : str
    passed : bool
    measured : float
        The figure that decides, as the sentence explains.
    sentence : str
    """

    name: str
    passed: bool
    measured: float
    sentence: str


@final
@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All findings about a backbone.

    Attributes
    ----------
    backbone : str
    checks : tuple of Check
    store_dtype : str
        Smallest dtype that holds the states seen: ``"float16"`` or ``"bfloat16"``.
    """

    backbone: str
    checks: tuple[Check, ...]
    store_dtype: str

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    def as_dict(self) -> dict[str, Any]:
        """Give everything as JSON values."""
        return {
            "backbone": self.backbone,
            "passed": self.passed,
            "store_dtype": self.store_dtype,
            "checks": [asdict(check) for check in self.checks],
        }

    def __str__(self) -> str:
        lines = [f"{self.backbone}: {'all checks passed' if self.passed else 'SOME CHECKS FAILED'}"]
        lines += [
            f"  {'ok  ' if check.passed else 'FAIL'} {check.name}: {check.sentence} [{check.measured:.3g}]"
            for check in self.checks
        ]
        return "\n".join(lines)


def diagnose(backbone: Backbone) -> Diagnosis:
    """Check a backbone on built-in samples.

    Parameters
    ----------
    backbone : Backbone

    Returns
    -------
    Diagnosis
        Its `passed` says whether everything is as claimed; printing it shows the findings.

    Notes
    -----
    Checked are: hooks leave the output bit-equal; every site arises once; stopping early gives bit-equal states;
    neither the batch nor the side of the padding moves a state; changing a patch moves its own token most; token
    characters are those of the text; special tokens are not scored; states are finite and fit a small dtype.
    """
    samples = _texts(backbone) if backbone.modality == "text" else _images(backbone)
    states = _states(backbone, samples, ["embed", "all", "final_norm"])
    checks = [
        _hooks_harmless(backbone, samples),
        _fired_once(backbone, samples, states),
        _early_stop(backbone, samples),
        _batch_free(backbone, samples, states),
    ]
    if isinstance(backbone.reader, TextReader):
        checks += [
            _padding_free(backbone, backbone.reader, samples, states),
            _offsets_right(backbone, backbone.reader, samples),
            _no_specials(backbone, backbone.reader, samples),
        ]
    elif isinstance(backbone.reader, ImageReader):
        checks += [_geometry_proven(backbone.reader), _patches_in_place(backbone, backbone.reader)]
    finite, largest = _range(states)
    checks.append(finite)
    store = "float16" if largest.measured <= FP16_MAX else "bfloat16"
    return Diagnosis(backbone.name, (*checks, largest), store)


# ---------------------------------------------------------------------- samples and states


def _texts(backbone: Backbone) -> list[Sample]:
    return [TextSample(f"doctor-{number}", text) for number, text in enumerate(_TEXTS)]


def _images(backbone: Backbone) -> list[Sample]:
    generator = np.random.default_rng(0)
    return [
        ImageSample(f"doctor-{number}", _noise(generator, height, width))
        for number, (height, width) in enumerate(((240, 320), (330, 220), (200, 200)))
    ]


def _noise(generator: np.random.Generator, height: int, width: int) -> np.ndarray:
    return generator.integers(0, 256, (height, width, 3), dtype=np.uint8)


def _states(
    backbone: Backbone,
    samples: Sequence[Sample],
    sites: LayerSpec,
    *,
    max_batch_tokens: int = 2048,
    stop_early: bool = True,
) -> dict[str, list[Tensor]]:
    """States per site and sample, in the order of the samples; the sample state is the last row of each."""
    encoding = backbone.encode(samples)
    found: dict[str, dict[int, Tensor]] = {}
    for batch in backbone.capture(samples, encoding, sites, max_batch_tokens=max_batch_tokens, stop_early=stop_early):
        for site, tokens in batch.tokens.items():
            for place, row in enumerate(batch.rows.tolist()):
                own = tokens[int(batch.offsets[place]) : int(batch.offsets[place + 1])]
                found.setdefault(site, {})[row] = torch.cat([own, batch.samples[site][place : place + 1]])
    return {site: [rows[number] for number in range(len(samples))] for site, rows in found.items()}


def _largest_gap(first: dict[str, list[Tensor]], second: dict[str, list[Tensor]]) -> float:
    """Largest distance between corresponding states, as a share of the norm of the first; 0 if all bits are equal."""
    worst = 0.0
    for site, rows in first.items():
        for one, other in zip(rows, second[site], strict=True):
            gap = (one.double() - other.double()).norm(dim=1) / one.double().norm(dim=1).clamp_min(1e-12)
            worst = max(worst, float(gap.max()))
    return worst


# ---------------------------------------------------------------------- checks


def _hooks_harmless(backbone: Backbone, samples: Sequence[Sample]) -> Check:
    encoding = backbone.encode(samples)
    worst = 0.0
    for batch in backbone.batches(samples, encoding, max_batch_tokens=2048):
        for forward in batch.passes:
            inputs = to_device(forward.inputs, backbone.device, backbone.dtype)
            outputs = [
                backbone.runner.run(inputs, sites, lambda site, states: None).last_hidden_state
                for sites in ((), backbone.resolve_layers(["embed", "all", "final_norm"]))
            ]
            worst = max(worst, float((outputs[0].double() - outputs[1].double()).abs().max()))
    return Check("hooks", worst == 0, worst, "largest change of the model's output when hooks are set; must be 0")


def _fired_once(backbone: Backbone, samples: Sequence[Sample], states: dict[str, list[Tensor]]) -> Check:
    expected = backbone.n_blocks + 2
    got = sum(len(rows) == len(samples) for rows in states.values())
    return Check("sites", got == expected, got, f"sites that arose once per forward pass; must be {expected}")


def _early_stop(backbone: Backbone, samples: Sequence[Sample]) -> Check:
    sites = [EMBED, "first", "middle"]
    gap = _largest_gap(_states(backbone, samples, sites), _states(backbone, samples, sites, stop_early=False))
    return Check("early stop", gap == 0, gap, "largest change of states when later blocks are left out; must be 0")


def _batch_free(backbone: Backbone, samples: Sequence[Sample], states: dict[str, list[Tensor]]) -> Check:
    alone = _states(backbone, samples, ["embed", "all", "final_norm"], max_batch_tokens=1)
    gap, limit = _largest_gap(alone, states), TOLERANCE[backbone.dtype]
    return Check(
        "batch", gap <= limit, gap, f"largest change of a state, relative to its norm, in a batch; at most {limit:g}"
    )


def _padding_free(
    backbone: Backbone, reader: TextReader, samples: Sequence[Sample], states: dict[str, list[Tensor]]
) -> Check:
    side = reader.padding_side
    try:
        reader.padding_side = "left" if side == "right" else "right"
        other = _states(backbone, samples, ["embed", "all", "final_norm"])
    finally:
        reader.padding_side = side
    gap, limit = _largest_gap(states, other), TOLERANCE[backbone.dtype]
    return Check(
        "padding",
        gap <= limit,
        gap,
        f"largest change of a state, relative to its norm, when padding changes sides; at most {limit:g}",
    )


def _offsets_right(backbone: Backbone, reader: TextReader, samples: Sequence[Sample]) -> Check:
    """Count what is wrong with token characters, by other means than those that verified them at encoding.

    Letters, numbers, punctuation and symbols must lie in a token (marks and control signs may be dropped), and a token
    over plain ASCII must decode to what stands there.
    """
    encoding = backbone.encode(samples)
    assert encoding.chars is not None and encoding.token_ids is not None  # noqa: S101, PT018
    wrong = 0
    for number, sample in enumerate(samples):
        assert isinstance(sample, TextSample)  # noqa: S101
        rows = slice(int(encoding.offsets[number]), int(encoding.offsets[number + 1]))
        chars, ids = encoding.chars[rows], encoding.token_ids[rows].tolist()
        wrong += int(((chars < 0) | (chars > len(sample.text))).sum())
        chars = np.clip(chars, 0, len(sample.text))
        covered = np.zeros(len(sample.text) + 1, dtype=np.int64)
        np.add.at(covered, chars[:, 0], 1)
        np.add.at(covered, chars[:, 1], -1)
        solid = np.array([unicodedata.category(char)[0] in "LNPS" for char in sample.text])
        wrong += int((solid & (np.cumsum(covered)[:-1] <= 0)).sum())
        for token, (start, end) in zip(ids, chars.tolist(), strict=True):
            cut = sample.text[start:end].strip().casefold()
            if cut.isascii() and cut and token != reader.tokenizer.unk_token_id:
                decoded = unicodedata.normalize("NFD", reader.tokenizer.decode([token]).strip().casefold())
                decoded = "".join(char for char in decoded if not unicodedata.combining(char))
                if "\ufffd" not in decoded:  # some bytes of a character say nothing by themselves
                    wrong += int(cut not in (decoded, decoded.removeprefix("##")))
    return Check(
        "characters", wrong == 0, wrong, "characters of tricky texts in no token, or tokens on wrong ones; must be 0"
    )


def _no_specials(backbone: Backbone, reader: TextReader, samples: Sequence[Sample]) -> Check:
    encoding = backbone.encode(samples)
    assert encoding.token_ids is not None  # noqa: S101
    found = int(np.isin(encoding.token_ids, reader.special_ids).sum())
    return Check("special tokens", found == 0, found, "special tokens among those that are scored; must be 0")


def _geometry_proven(reader: ImageReader) -> Check:
    return Check(
        "geometry",
        True,
        reader.geometry_error,
        "largest distance between derived and measured pixel positions, as a share of the side; measured at loading",
    )


def _patches_in_place(backbone: Backbone, reader: ImageReader) -> Check:
    """Change the pixels of single patches of a non-square image and see which token moves most."""
    generator = np.random.default_rng(1)
    height, width = 30 * reader.patch[0], 40 * reader.patch[1]
    pixels = _noise(generator, height, width)
    plain = ImageSample("doctor-plain", pixels)
    encoding = backbone.encode([plain])
    assert encoding.grids is not None  # noqa: S101
    rows, columns = (int(size) for size in encoding.grids[0])
    cells = {0, columns - 1, (rows - 1) * columns, rows * columns - 1, (rows // 3) * columns + (2 * columns) // 3}
    chosen = sorted(cells & set(range(encoding.n_tokens)))
    changed: list[Sample] = [plain]
    for cell in chosen:
        left, top, right, bottom = (
            np.clip(encoding.boxes()[cell], 0, [width, height, width, height]).round().astype(int)
        )
        copy = pixels.copy()
        copy[top:bottom, left:right] = 255 - copy[top:bottom, left:right]
        changed.append(ImageSample(f"doctor-{cell}", copy))
    misses = 0
    for site in (EMBED, "block[0]"):
        states = _states(backbone, changed, [site])[site]
        for cell, moved in zip(chosen, states[1:], strict=True):
            shift = (moved[:-1].double() - states[0][:-1].double()).norm(dim=1)
            misses += int(int(shift.argmax()) != cell)
    return Check(
        "patches",
        misses == 0,
        misses,
        f"of {2 * len(chosen)} changed patches, those that moved another token more; must be 0",
    )


def _range(states: dict[str, list[Tensor]]) -> tuple[Check, Check]:
    values = [rows for site in states.values() for rows in site]
    bad = sum(int((~torch.isfinite(rows)).sum()) for rows in values)
    top = max(float(rows.double().abs().nan_to_num(posinf=float("inf")).max()) for rows in values)
    advice = "float16 holds them" if top <= FP16_MAX else "store them as bfloat16 or float32, float16 would overflow"
    return (
        Check("finite", bad == 0, bad, "values of states that are infinite or not a number; must be 0"),
        Check("range", bool(np.isfinite(top)), top, f"largest value of a state; {advice}"),
    )
