"""Where the files and models of the paper are on this machine: a TOML file, or built-in stand-ins for a smoke run."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from superactivators.errors import StudyError, allowed
from superactivators.paper.catalogue import DATASETS, MODELS
from superactivators.study.settings import StudySettings

SECTIONS = ("states", "concepts", "detection", "prompt", "attribution", "run")
"""Sections of a study file that a sources file may hold for all studies."""


@final
@dataclass(frozen=True)
class Sources:
    """What is known of this machine's files.

    Attributes
    ----------
    data, models : mapping of str to dict
        Section ``[data]`` or ``[model]`` of a study file, by the paper's name; it replaces what the catalogue says.
    common : mapping of str to dict
        Further sections, for all studies.
    stand_ins : bool
        Whether they only stand in for the paper's data and models.
    """

    data: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    models: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    common: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    stand_ins: bool = False

    @staticmethod
    def load(path: Path) -> Sources:
        """Read a TOML file with ``[data.NAME]``, ``[models.NAME]`` and sections of a study file; docs/paper.md.

        A relative path of data or a model is looked for beside the file, then in the working folder.

        Raises
        ------
        StudyError
            If it cannot be read, or names something that the paper does not have.
        """
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise StudyError(f"{path}: no such file; see docs/paper.md for what it holds") from None
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
            raise StudyError(f"{path}: cannot be read as TOML in UTF-8 ({error})") from None
        known = ("data", "models", *SECTIONS)
        for name, section in content.items():
            if name not in known:
                raise StudyError(f"{path}: unknown section [{name}]; {allowed(name, known)}")
            if not isinstance(section, dict):
                raise StudyError(f"{path}: {name} must be a section [{name}]; got {section!r}")
        for group, names in (("data", DATASETS), ("models", MODELS)):
            for name, section in content.get(group, {}).items():
                if name not in names:
                    raise StudyError(f"{path}: unknown [{group}.{name}]; {allowed(name, names)}")
                if not isinstance(section, dict):
                    raise StudyError(f"{path}: {group}.{name} must be a section [{group}.{name}]; got {section!r}")
        data = {name: _beside(path, section, "path") for name, section in content.get("data", {}).items()}
        models = {name: _beside(path, section, "name") for name, section in content.get("models", {}).items()}
        return Sources(data, models, {name: content[name] for name in SECTIONS if name in content})

    def study(self, data: str, model: str, needed: Mapping[str, dict[str, Any]]) -> StudySettings | None:
        """Put the settings of one study together; None if nobody said where its data are.

        Parameters
        ----------
        data, model : str
            The paper's names.
        needed : mapping of str to dict
            Sections that the wanted tables ask for; what the sources file says wins.

        Raises
        ------
        StudyError
            If a section has faults.
        """
        given = self.data.get(data, {})
        if "path" not in given and "name" not in given:
            return None
        known = {} if "name" in given else {"format": DATASETS[data].format, "options": dict(DATASETS[data].options)}
        if given.get("format", known.get("format")) != known.get("format"):
            known = {}  # another format has other options
        own = dict(MODELS[model].settings)
        named = self.models.get(model, {})
        if "name" in named:  # another model may have other depths, but not another processor
            own.pop("processor", None)
        content: dict[str, dict[str, Any]] = {"data": {**known, **given}, "model": {**own, **named}}
        for name in SECTIONS:
            if name == "attribution" and name not in needed:
                continue  # costly, and no table asks for it
            section = {**deepcopy(needed.get(name, {})), **self.common.get(name, {})}
            if section:
                content[name] = section
        if not content["data"].get("format"):  # "" stands for the open formats
            content["data"].pop("format", None)
        return StudySettings.of(content, f"paper study {data}/{model}")


def _beside(file: Path, section: dict[str, Any], key: str) -> dict[str, Any]:
    value = section.get(key)
    if not isinstance(value, str) or Path(value).is_absolute() or not (file.parent / value).exists():
        return dict(section)
    return {**section, key: str(file.parent / value)}


def stand_ins() -> Sources:
    """Give built-in data and small packaged models in place of the paper's, so that everything runs in minutes."""
    data: dict[str, dict[str, Any]] = {}
    for number, (name, paper) in enumerate(DATASETS.items()):
        image = paper.modality == "image"
        data[name] = {
            "name": "scenes" if image else "passages",
            "size": 40 if image else 80,
            "seed": number,
            "min_positives": 2,
            "concepts": ["red", "blue", "cube", "sphere"] if image else ["joy", "anger", "gratitude", "surprise"],
        }
    models: dict[str, dict[str, Any]] = {}
    for number, (name, model) in enumerate(MODELS.items()):
        bundled = "bundled:dinov2-small" if model.modality == "image" else "bundled:minilm"
        depths = [["50%", "100%"], ["75%", "100%"], ["34%", "100%"]][number % 3]
        models[name] = {"name": bundled, "layers": depths, "geometry": "processor", "dtype": "float32"}
        if model.modality == "image":  # a quarter of the patches
            models[name]["processor"] = {"size": {"shortest_edge": 126}, "crop_size": {"height": 112, "width": 112}}
    common: dict[str, dict[str, Any]] = {
        "concepts": {"clusters": 24, "sample_clusters": 8, "separators_per_concept": 2},
        "detection": {"resamples": 60},
        "attribution": {
            "samples": 3,
            "cal_samples": 3,
            "budget": 12,
            "steps": 2,
            "sanity_samples": 0,
            "examples": 2,
            "options": {"integrated-gradients": {"steps": 4, "max_steps": 4}, "mfaba": {"steps": 2}},
        },
    }
    return Sources(data, models, common, stand_ins=True)
