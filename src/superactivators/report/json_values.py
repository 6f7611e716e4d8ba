"""From arrays to JSON, and from JSON into a page: short numbers, no NaN, nothing that could end a script element."""

from __future__ import annotations

import json
from typing import Any

import numpy as np


def plain(value: Any, digits: int = 4) -> Any:
    """Turn arrays, numbers and containers of them into JSON types.

    Parameters
    ----------
    value : object
        Array, number, string, None, or mapping or sequence of these.
    digits : int
        Significant digits of floating-point numbers.

    Returns
    -------
    object
        Numbers that are not finite become None; mapping keys become strings; anything else unknown becomes its text.
    """
    if isinstance(value, np.ndarray):
        return _plain_array(value, digits)
    if isinstance(value, dict):
        return {str(name): plain(item, digits) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, digits) for item in value]
    if isinstance(value, float | np.floating):
        return _plain_array(np.array([value], dtype=np.float64), digits)[0]
    if isinstance(value, np.integer | np.bool_):
        return value.item()
    return value if value is None or isinstance(value, str | int | bool) else str(value)


def _plain_array(values: np.ndarray, digits: int) -> Any:
    if not np.issubdtype(values.dtype, np.floating):
        return values.tolist()
    wide = values.astype(np.float64)
    finite = np.isfinite(wide)
    safe = np.where(finite, wide, 0.0)
    with np.errstate(divide="ignore"):
        size = np.where(safe == 0, 0, np.floor(np.log10(np.abs(safe))))
    unit = 10.0 ** (digits - 1 - np.clip(size, -280, 280))
    short = (np.rint(safe * unit) / unit).astype(object)
    short[~finite] = None
    return short.tolist()


def embeddable(payload: Any) -> str:
    """Write JSON that may stand inside an HTML script element.

    Only ASCII comes out, and ``<``, ``>`` and ``&`` are escaped, so that no text can end the element or be taken for
    markup, and U+2028 or lone surrogates do no harm.
    """
    text = json.dumps(payload, allow_nan=False, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
