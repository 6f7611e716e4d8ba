"""The study file: TOML, checked in full, unknown keys refused with the nearest valid one (docs/study.md)."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from superactivators.baselines.prompt_options import PromptOptions
from superactivators.detection.tail import DELTAS
from superactivators.errors import StudyError, allowed

LayerSpec: TypeAlias = str | int | float | list[str | int | float]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class DataSettings(_Section):
    """``[data]``: a path with its format, or a registered data set (``name``); concepts, how tokens are labelled."""

    path: str | None = None
    format: str | None = None
    options: dict[str, Any] = {}
    name: str | None = None
    size: int | None = Field(default=None, gt=0)
    seed: int | None = Field(default=None, ge=0)
    concepts: list[str] | None = None
    min_positives: int = Field(default=5, ge=1)
    text_rule: Literal["overlap", "word"] = "overlap"
    patch_rule: Literal["any"] | Annotated[float, Field(gt=0, le=1)] = "any"
    supervision: Literal["tokens", "samples"] = "tokens"

    @model_validator(mode="after")
    def _one_source(self) -> DataSettings:
        if (self.path is None) == (self.name is None):
            raise ValueError("give either 'path' (a folder) or 'name' (a registered data set)")
        if self.path is not None and (self.size is not None or self.seed is not None):
            raise ValueError("'size' and 'seed' are for registered data sets, not for a path")
        if self.path is None and self.format is not None:
            raise ValueError("'format' says how a path is to be read; a registered data set has none")
        if self.path is not None and self.options and self.format is None:
            raise ValueError("'options' are for a 'format' or a registered data set; name the format of the path")
        return self


class ModelSettings(_Section):
    """``[model]``: which backbone, which layers, how inputs are prepared."""

    name: str
    layers: LayerSpec = "all"
    device: str | None = None
    dtype: Literal["float32", "float16", "bfloat16"] | None = None
    geometry: Literal["processor", "squash"] = "processor"
    tower: Literal["vision", "language"] | None = None
    processor: dict[str, Any] = {}
    long_texts: Literal["window", "truncate", "error"] = "window"
    revision: str | None = None


class StatesSettings(_Section):
    """``[states]``: how states are kept."""

    dtype: Literal["float16", "bfloat16", "float32"] = "float16"
    batch_tokens: int = Field(default=4096, gt=0)


class SaeSettings(_Section):
    """``[concepts.sae]``: where the sparse autoencoder is, and which layer's states it was trained on."""

    path: str
    site: str | None = None
    revision: str | None = None
    k: int | None = Field(default=None, gt=0)
    threshold: float | None = None
    input_scale: float | None = Field(default=None, gt=0)
    centred: bool | None = None


class ConceptsSettings(_Section):
    """``[concepts]``: which kinds of vectors are learned."""

    kinds: list[str] | Literal["all"] = ["mean", "linear"]
    clusters: int = Field(default=1000, ge=1)
    sample_clusters: int = Field(default=50, ge=1)
    cluster_metric: Literal["euclidean", "cosine"] = "euclidean"
    separators_per_concept: int = Field(default=16, ge=0)
    sae: SaeSettings | None = None
    memory_mib: int = Field(default=1024, gt=0)

    @field_validator("kinds")
    @classmethod
    def _some(cls, kinds: list[str] | str) -> list[str] | str:
        if not kinds:
            raise ValueError("name at least one kind")
        return kinds


class DetectionSettings(_Section):
    """``[detection]``: which methods are compared, at which sparsity levels, with how many resamples."""

    methods: list[str] | Literal["all", "default"] = "default"
    deltas: list[Annotated[float, Field(allow_inf_nan=False)]] = list(DELTAS)
    resamples: int = Field(default=1000, ge=0)
    min_tokens: int = Field(default=3, ge=1)
    intervals: Literal["nested", "fixed"] = "nested"


class PromptSettings(_Section):
    """``[prompt]``: the chat model that the method ``prompt`` asks; see `PromptOptions` for every key."""

    model: str
    endpoint: str | None = None
    api_key_env: str | None = None
    splits: list[str] = ["test"]
    max_tokens: int = 64
    concurrency: int = 8
    batch: int = 8
    retries: int = 6
    timeout: float = 120.0
    price_in: float | None = None
    price_out: float | None = None
    template: str | None = None
    system: str | None = None
    descriptions: dict[str, str] = {}
    extra: dict[str, Any] = {}
    image_side: int | None = None
    revision: str | None = None
    device: str | None = None
    dtype: str | None = None

    def options(self) -> PromptOptions:
        """Give what the baseline takes; raises ``StudyError`` if values are out of range or contradict each other."""
        return PromptOptions(**{**self.model_dump(), "splits": tuple(self.splits)})


class AttributionSettings(_Section):
    """``[attribution]``: where in drawn samples the concepts are, by which explainers; left out unless it is there."""

    kind: str | None = None
    explainers: list[str] | Literal["all"] = "all"
    samples: int = Field(default=100, ge=0)
    cal_samples: int = Field(default=60, ge=0)
    budget: int = Field(default=256, ge=2)
    steps: int = Field(default=10, ge=1)
    hiding: str | None = None
    sanity_samples: int = Field(default=10, ge=0)
    examples: int = Field(default=16, ge=0)
    options: dict[str, dict[str, Any]] = {}


class RunSettings(_Section):
    """``[run]``: the seed of everything random, the protocol, and checks that are not to be shown."""

    seed: int = Field(default=0, ge=0)
    protocol: Literal["default", "paper"] = "default"
    silence: list[str] = []


class StudySettings(_Section):
    """A whole study file; see docs/study.md for every key.

    Attributes
    ----------
    data, model, states, concepts, detection, prompt, attribution, run
        One section each. Only ``data`` (``path`` or ``name``) and ``model.name`` are required.
    """

    data: DataSettings
    model: ModelSettings
    states: StatesSettings = StatesSettings()
    concepts: ConceptsSettings = ConceptsSettings()
    detection: DetectionSettings = DetectionSettings()
    prompt: PromptSettings | None = None
    attribution: AttributionSettings | None = None
    run: RunSettings = RunSettings()

    @staticmethod
    def of(content: dict[str, Any], source: str = "study settings") -> StudySettings:
        """Check a dictionary.

        Raises
        ------
        StudyError
            With one line for every fault.
        """
        try:
            return StudySettings.model_validate(content)
        except ValidationError as error:
            lines: dict[str, str] = {}
            for fault in error.errors():
                place, message = _line(fault)
                # A key that allows several types has one fault for each of them.
                lines[place] = f"{lines[place]}, or {message}" if place in lines else f"{source}: {place}{message}"
            raise StudyError("\n".join(lines.values())) from None

    @staticmethod
    def load(path: Path) -> StudySettings:
        """Read a TOML file; a relative data or model path is looked for beside it, then in the working folder.

        Raises
        ------
        StudyError
            If the file cannot be read, is not TOML, or has faults.
        """
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise StudyError(f"{path}: no such study file; give the path of a TOML file") from None
        except (OSError, UnicodeDecodeError) as error:
            raise StudyError(f"{path}: cannot be read ({error}); give a TOML file in UTF-8") from None
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise StudyError(f"{path}: is not TOML ({error})") from None
        settings = StudySettings.of(content, str(path))
        found: dict[str, dict[str, Any]] = {
            "data": {"path": _beside(path, settings.data.path)},
            "model": {"name": _beside(path, settings.model.name)},
        }
        if settings.concepts.sae is not None:
            sae = settings.concepts.sae
            found["concepts"] = {"sae": sae.model_copy(update={"path": _beside(path, sae.path)})}
        if settings.prompt is not None and settings.prompt.endpoint is None:
            found["prompt"] = {"model": _beside(path, settings.prompt.model)}
        return settings.model_copy(
            update={name: getattr(settings, name).model_copy(update=update) for name, update in found.items()}
        )


def _beside(study: Path, name: str | None) -> str | None:
    if name is None or Path(name).is_absolute() or not (study.parent / name).exists():
        return name
    return str(study.parent / name)


def _line(fault: Any) -> tuple[str, str]:
    """Place and message of one fault."""
    skipped = ("function-", "list[")
    place = [part for part in fault["loc"] if not (isinstance(part, str) and part.startswith(skipped))]
    section = StudySettings.model_fields.get(str(place[0])) if place else None
    # an optional section is a union of its model and None
    models = [] if section is None else [section.annotation, *get_args(section.annotation)]
    known = [name for model in models for name in getattr(model, "model_fields", ())]
    if fault["type"] == "extra_forbidden":
        if len(place) == 1:
            return f"unknown section [{place[0]}]; ", allowed(place[0], StudySettings.model_fields)
        return f"unknown key {place[-1]!r} in [{place[0]}]; ", allowed(place[-1], known)
    if fault["type"] == "missing":
        what = f"section [{place[0]}]" if len(place) == 1 else f"key {place[1]!r} in [{place[0]}]"
        return what, " is missing"
    where = f"[{place[0]}] {place[1]}" if len(place) > 1 else f"[{place[0]}]" if place else "the file"
    message = fault["msg"].removeprefix("Value error, ").removeprefix("Input ").split(" or instance of ")[0]
    given = "" if isinstance(fault["input"], dict) else f"; got {fault['input']!r}"
    return f"{where}: ", f"{message}{given}"
