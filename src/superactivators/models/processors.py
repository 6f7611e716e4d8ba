"""Image processors with other settings than those they were saved with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from superactivators.errors import ModelError, allowed
from superactivators.models.failures import first_line
from superactivators.models.quiet import quiet_transformers


def with_settings(processor: Any, given: Mapping[str, Any] | None, name: str) -> Any:
    """Replace settings of an image processor; raises ``ModelError`` for those that it does not have or cannot take."""
    if not given:
        return processor
    read = processor.to_dict()
    known = [setting for setting in read if not setting.startswith("_")]
    for setting in given:
        if setting not in known:
            raise ModelError(f"{name}: its image processor has no setting {setting!r}; {allowed(setting, known)}")
    try:
        with quiet_transformers():
            # made from what was read: given along with the file, older names in it would win (max_pixels, size)
            return type(processor).from_dict({**read, **given})
    except Exception as error:  # transformers raises many kinds
        raise ModelError(f"{name}: its image processor cannot take {dict(given)} ({first_line(error)})") from None
