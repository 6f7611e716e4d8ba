"""Options of the prompt baseline: which chat model is asked, where it runs, and what is asked."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from string import Formatter
from typing import Any, final
from urllib.parse import urlsplit

from superactivators.data.dataset import SPLITS, Modality
from superactivators.errors import StudyError, allowed

FIELDS = ("concept", "description", "text", "concepts")
"""What a template may contain in braces."""
_DTYPES = ("float32", "float16", "bfloat16")
_FIXED = ("model", "messages", "stream", "n")
"""Fields of a request that `PromptOptions.extra` may not change."""


@final
@dataclass(frozen=True)
class PromptOptions:
    """Which chat model is asked, and how.

    Attributes
    ----------
    model : str
        Name of the model at the endpoint; without an endpoint a folder or hub id of a ``transformers`` chat model, or
        of a vision-language model for images.
    endpoint : str or None
        Base URL of an OpenAI-compatible server, such as ``"http://localhost:8000/v1"``. None: the model runs here.
    api_key_env : str or None
        Name of the environment variable that holds the key. The key itself is never kept.
    splits : sequence of str
        Whose samples are asked about; kept as a tuple.
    max_tokens : int
        Longest answer, in tokens. Models that reason before they answer need hundreds or thousands.
    concurrency : int
        Endpoint: requests in flight at once.
    batch : int
        Local: questions of one forward batch.
    retries : int
        Endpoint: how often one question is sent again.
    timeout : float
        Endpoint: longest silence, in seconds, before a request counts as failed.
    price_in, price_out : float or None
        Price of a million tokens read and written, in any currency; both or none.
    template : str or None
        The question, with ``{concept}`` or ``{description}``, for texts also ``{text}``, and if wanted ``{concepts}``
        (all names, separated by commas). None: a short question that asks for yes or no.
    system : str or None
        System message; ``""`` for none. None: a short instruction.
    descriptions : mapping of str to str
        What a concept means, by concept; may lack some.
    extra : mapping
        Endpoint: further fields of the request, such as ``{"reasoning_effort": "low"}``; null removes one that is sent
        by default (``temperature``, ``max_tokens``). Local: variables of the chat template, such as
        ``{"enable_thinking": false}``.
    image_side : int or None
        Larger images are made smaller so that their longer side has this many pixels. None: sent as they are.
    revision, device, dtype : str or None
        Local: branch, tag or commit of a hub id; where the model runs; in which numbers.

    Raises
    ------
    StudyError
        If a value is of a wrong type or out of range, or values contradict each other.
    """

    model: str
    endpoint: str | None = None
    api_key_env: str | None = None
    splits: Sequence[str] = ("test",)
    max_tokens: int = 64
    concurrency: int = 8
    batch: int = 8
    retries: int = 6
    timeout: float = 120.0
    price_in: float | None = None
    price_out: float | None = None
    template: str | None = None
    system: str | None = None
    descriptions: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    image_side: int | None = None
    revision: str | None = None
    device: str | None = None
    dtype: str | None = None

    def __post_init__(self) -> None:
        _text("model", self.model, some=True)
        for name in ("endpoint", "api_key_env", "template", "system", "revision", "device", "dtype"):
            if getattr(self, name) is not None:
                _text(name, getattr(self, name), some=name != "system", shown=name != "api_key_env")
        for name, least in (("max_tokens", 1), ("concurrency", 1), ("batch", 1), ("retries", 0)):
            _whole(name, getattr(self, name), least)
        if self.image_side is not None:
            _whole("image_side", self.image_side, 16)
        _number("timeout", self.timeout, above=True)
        for name in ("price_in", "price_out"):
            if getattr(self, name) is not None:
                _number(name, getattr(self, name), above=False)
        if (self.price_in is None) != (self.price_out is None):
            raise StudyError("prompt: give both price_in and price_out (per million tokens), or none of them")
        self._check_splits()
        self._check_place()
        self._check_mappings()
        if self.template is not None:
            template_fields(self.template)
            if self.descriptions and "description" not in template_fields(self.template):
                raise StudyError("prompt: the template has no {description}, so the descriptions would not be used")

    def _check_splits(self) -> None:
        given: object = self.splits
        if not isinstance(given, list | tuple) or not all(isinstance(split, str) for split in given):
            raise StudyError(f"prompt: splits must be a list of names, such as ['test']; got {given!r}")
        object.__setattr__(self, "splits", tuple(dict.fromkeys(self.splits)))
        if not self.splits:
            raise StudyError("prompt: name at least one split, such as 'test'")
        for split in self.splits:
            if split not in SPLITS:
                raise StudyError(f"prompt: unknown split {split!r}; {allowed(split, SPLITS)}")

    def _check_place(self) -> None:
        if self.dtype is not None and self.dtype not in _DTYPES:
            raise StudyError(f"prompt: unknown dtype {self.dtype!r}; {allowed(self.dtype, _DTYPES)}")
        if self.endpoint is None:
            if self.api_key_env is not None:
                raise StudyError("prompt: api_key_env is for an endpoint; give its base URL, or leave the key out")
            return
        for name in ("revision", "device", "dtype"):
            if getattr(self, name) is not None:
                raise StudyError(f"prompt: {name} is for a local model; leave it out, or leave the endpoint out")
        check_endpoint(self.endpoint)
        # Whoever writes the key itself here must not read it again in a log of the error.
        if self.api_key_env is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,63}", self.api_key_env):
            raise StudyError(
                "prompt: api_key_env must be the name of an environment variable in capitals, such as OPENAI_API_KEY, "
                "not the key itself"
            )

    def _check_mappings(self) -> None:
        pairs = self.descriptions.items() if isinstance(self.descriptions, Mapping) else [(None, None)]
        if not all(isinstance(name, str) and isinstance(text, str) and text.strip() for name, text in pairs):
            raise StudyError("prompt: descriptions must map concept names to texts that are not empty")
        if not isinstance(self.extra, Mapping) or not all(isinstance(name, str) for name in self.extra):
            raise StudyError(f"prompt: extra must map names of request fields to JSON values; got {self.extra!r}")
        for name in self.extra:
            if name in _FIXED:
                raise StudyError(f"prompt: extra may not set {name!r}; it is set by the baseline itself")
        try:
            json.dumps(dict(self.extra), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise StudyError(f"prompt: extra holds what is not JSON ({error})") from None

    def to_json(self) -> dict[str, Any]:
        """All options as JSON types."""
        content = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return content | {
            "splits": list(self.splits),
            "descriptions": dict(self.descriptions),
            "extra": dict(self.extra),
        }


def check_endpoint(url: str) -> None:
    """Refuse what is no base URL, and credentials inside one; raises ``StudyError``."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good:
        raise StudyError("prompt: endpoint must be a URL such as https://api.openai.com/v1 or http://localhost:8000/v1")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise StudyError(
            "prompt: endpoint must be a plain base URL without user, password or '?…'; "
            "put the key into an environment variable and name it in api_key_env"
        )
    if parts.path.rstrip("/").endswith("/completions"):
        raise StudyError("prompt: endpoint must be the base URL; leave out /chat/completions, which is added to it")


def template_fields(template: str) -> set[str]:
    """Names in braces of a template.

    Raises
    ------
    StudyError
        If a brace stands alone, or a field is unknown or has a format.
    """
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise StudyError(f"prompt: the template has a fault ({error}); write {{{{ and }}}} for plain braces") from None
    found: set[str] = set()
    for _, name, form, conversion in parts:
        if name is None:
            continue
        if name not in FIELDS:
            raise StudyError(f"prompt: the template has an unknown field {{{name}}}; {allowed(name, FIELDS)}")
        if form or conversion:
            raise StudyError(f"prompt: the template's field {{{name}}} may have no format; write {{{name}}} alone")
        found.add(name)
    return found


def check_template(template: str, modality: Modality) -> None:
    """Refuse a template that leaves out the concept or the text, or wants a text of images; raises ``StudyError``."""
    found = template_fields(template)
    if not found & {"concept", "description"}:
        raise StudyError("prompt: the template has no {concept}, so every question of a sample would be the same")
    if modality == "text" and "text" not in found:
        raise StudyError("prompt: the template has no {text}, so the model would not see the sample")
    if modality == "image" and "text" in found:
        raise StudyError("prompt: the template has {text}, but the samples are images, which go along by themselves")


def _text(name: str, value: object, *, some: bool, shown: bool = True) -> None:
    if not isinstance(value, str) or (some and not value.strip()):
        given = f"; got {value!r}" if shown else ""
        raise StudyError(f"prompt: {name} must be a text{' that is not empty' if some else ''}{given}")


def _whole(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise StudyError(f"prompt: {name} must be a whole number, at least {least}; got {value!r}")


def _number(name: str, value: object, *, above: bool) -> None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not good or value < 0 or (above and value == 0):  # type: ignore[operator]
        raise StudyError(f"prompt: {name} must be a number {'above' if above else 'of at least'} 0; got {value!r}")
