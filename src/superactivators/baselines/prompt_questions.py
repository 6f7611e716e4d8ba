"""The questions of the prompt baseline: one for every asked sample and concept (METHOD section 5)."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, final

import numpy as np
from PIL import Image

from superactivators.artefacts import array_fingerprint, fingerprint
from superactivators.baselines.prompt_options import PromptOptions, check_template
from superactivators.data.dataset import ConceptDataset, ImageSample, TextSample
from superactivators.errors import StudyError, allowed
from superactivators.states.labels import Labels

SYSTEM = "You decide whether a concept is present in a given {what}. Answer with yes or no, and nothing else."
# The sample comes first, so that servers which remember common beginnings read it once for all concepts.
_TEXT = 'Text:\n"""\n{text}\n"""\n\n'
_CONCEPT = 'Is the concept "{concept}" present in this WHAT? Answer with yes or no.'
_DESCRIBED = 'Is the concept "{concept}" ({description}) present in this WHAT? Answer with yes or no.'
_PNG_BYTES = 1 << 20
_HELD_PICTURES = 16
CHARACTERS_PER_TOKEN = 4
PIXELS_PER_TOKEN = 750


@final
@dataclass(frozen=True, slots=True)
class Question:
    """One sample and one concept.

    Attributes
    ----------
    row, column : int
        Of the sample and of the concept in the labels.
    sample, concept : str
        Sample id and concept name.
    content : str
        SHA-256 of the text, or of the pixels that are sent.
    key : str
        SHA-256 over everything that the answer depends on.
    """

    row: int
    column: int
    sample: str
    concept: str
    content: str
    key: str


@final
@dataclass(frozen=True, slots=True)
class Reply:
    """What came back for one question.

    Attributes
    ----------
    raw : str
        The answer as it was written.
    finish : str or None
        Why it ended: ``"stop"``, ``"length"`` (cut off), ``"content_filter"``, or what the server says.
    tokens_in, tokens_out : int or None
        Tokens read and written; None if the server does not say.
    seconds : float
        From sending to the answer, without waits before a retry; for a local batch, its time shared out equally.
    served : str or None
        Name of the model that the server says it used.
    """

    raw: str
    finish: str | None
    tokens_in: int | None
    tokens_out: int | None
    seconds: float
    served: str | None = None


@final
class Questionnaire:
    """All questions about the samples of some splits, in the order of samples, then of concepts.

    Parameters
    ----------
    dataset : ConceptDataset
        Holds the texts or images.
    labels : Labels
        Its ids, splits and concepts say what is asked.
    options : PromptOptions

    Raises
    ------
    StudyError
        If the splits hold no sample, a sample of the labels is not in the data set, a description is of an unknown
        concept, or the template does not fit the samples.
    """

    def __init__(self, dataset: ConceptDataset, labels: Labels, options: PromptOptions) -> None:
        self.options, self.concepts, self.modality = options, labels.concepts, dataset.modality
        for name in options.descriptions:
            if name not in labels.concepts:
                raise StudyError(f"prompt: a description is of {name!r}; {allowed(name, labels.concepts)}")
        if options.template is not None:
            check_template(options.template, dataset.modality)
        place = {sample.id: number for number, sample in enumerate(dataset.samples)}
        self.rows = np.flatnonzero(np.isin(labels.splits, options.splits)).tolist()
        if not self.rows or not labels.concepts:
            raise StudyError(f"prompt: no sample of {', '.join(options.splits)} and no concept to ask about")
        missing = [labels.ids[row] for row in self.rows if labels.ids[row] not in place]
        if missing:
            raise StudyError(f"prompt: {len(missing)} labelled samples are not in the data set (first: {missing[0]!r})")
        self._samples = {row: dataset.samples[place[labels.ids[row]]] for row in self.rows}
        self._sent = lru_cache(maxsize=_HELD_PICTURES)(self._encode)

    def __len__(self) -> int:
        return len(self.rows) * len(self.concepts)

    def questions(self, model: str) -> Iterator[Question]:
        """Make all questions.

        Parameters
        ----------
        model : str
            What identifies the model in the keys.
        """
        options = self.options
        fixed = [model, options.max_tokens, dict(options.extra), options.dtype, self.system()]
        for row in self.rows:
            sample = self._samples[row]
            if isinstance(sample, TextSample):
                content = hashlib.sha256(sample.text.encode("utf-8", "surrogatepass")).hexdigest()
            else:
                content = array_fingerprint(np.asarray(self.picture(row)))
            for column, concept in enumerate(self.concepts):
                asked = self.user(row, column)
                if isinstance(sample, TextSample):
                    asked = hashlib.sha256(asked.encode("utf-8", "surrogatepass")).hexdigest()
                key = fingerprint([*fixed, sample.id, content, concept, asked])
                yield Question(row, column, sample.id, concept, content, key)

    def system(self) -> str:
        """Text of the system message; empty for none."""
        given = self.options.system
        return SYSTEM.format(what=self.modality) if given is None else given

    def user(self, row: int, column: int) -> str:
        """Text of the user message."""
        concept = self.concepts[column]
        description = self.options.descriptions.get(concept)
        template = self.options.template
        if template is None:
            asked = (_CONCEPT if description is None else _DESCRIBED).replace("WHAT", self.modality)
            template = (_TEXT if self.modality == "text" else "") + asked
        sample = self._samples[row]
        return template.format(
            concept=concept,
            description=concept if description is None else description,
            concepts=", ".join(self.concepts),
            text=sample.text if isinstance(sample, TextSample) else "",
        )

    def picture(self, row: int) -> Image.Image | None:
        """Image of a sample as it is sent; None for texts."""
        sample = self._samples[row]
        if not isinstance(sample, ImageSample):
            return None
        picture = sample.load_image()
        side = self.options.image_side
        if side is not None and max(picture.size) > side:
            picture.thumbnail((side, side), Image.Resampling.LANCZOS)
        return picture

    def messages(self, question: Question) -> list[dict[str, Any]]:
        """Messages in the form of OpenAI's chat completions; an image goes along as a data URL."""
        user: str | list[dict[str, Any]] = self.user(question.row, question.column)
        if self.modality == "image":
            url = {"type": "image_url", "image_url": {"url": self._sent(question.row)}}
            user = [url, {"type": "text", "text": user}]
        system = self.system()
        first = [{"role": "system", "content": system}] if system else []
        return [*first, {"role": "user", "content": user}]

    def _encode(self, row: int) -> str:
        picture = self.picture(row)
        assert picture is not None  # noqa: S101 (only asked for images)
        held, kind = io.BytesIO(), "png"
        picture.save(held, "PNG")
        if held.tell() > _PNG_BYTES:  # a photograph: almost the same pixels in a fifth of the bytes
            held, kind = io.BytesIO(), "jpeg"
            picture.save(held, "JPEG", quality=95, subsampling=0)
        return f"data:image/{kind};base64,{base64.b64encode(held.getvalue()).decode()}"

    def rough_tokens(self) -> int:
        """Estimate the tokens that all questions read: four characters, or 750 pixels, are about one token."""
        asked = len(self.system()) + 20  # what stands between messages
        total = 0.0
        for row in self.rows:
            sample = self._samples[row]
            for column in range(len(self.concepts)):
                total += (asked + len(self.user(row, column))) / CHARACTERS_PER_TOKEN
            if isinstance(sample, ImageSample):
                wide, high = sample.size()
                side = self.options.image_side
                shrink = 1.0 if side is None else min(1.0, side / max(wide, high))
                total += len(self.concepts) * wide * high * shrink**2 / PIXELS_PER_TOKEN
        return round(total)
