"""Tokens that stand for pictures, as the tokenizer of a model writes them."""

from __future__ import annotations

from superactivators.errors import ModelError
from superactivators.models.families.family import ImageParts


def added_tokens(parts: ImageParts, *ids: int) -> tuple[str, ...]:
    """Give the texts of tokens that were added to a vocabulary for pictures.

    Parameters
    ----------
    parts : ImageParts
    *ids : int
        As the model's config names them.

    Raises
    ------
    ModelError
        If the tokenizer has no such added token, so that it belongs to another model.
    """
    added = parts.tokenizer.added_tokens_decoder
    missing = [number for number in ids if number not in added]
    if missing:
        raise ModelError(
            f"{parts.name}: its config says that token {missing[0]} stands for pictures, but the tokenizer has no such "
            "added token; save the tokenizer that belongs to the model into its folder"
        )
    return tuple(str(added[number].content) for number in ids)
