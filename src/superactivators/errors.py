"""The exceptions of the package; catching the root catches all of them.

::

    SuperActivatorsError
    ├── DataError          a data set, sample, span, mask or label is wrong
    ├── ModelError         a model cannot be loaded, or does not behave as claimed
    ├── StoreError         a folder of ours is missing, foreign, damaged or of another version
    ├── StudyError         a study file or an option asks for something impossible
    └── CalibrationError   a threshold is missing, cannot be fitted, or is used on the split it was fitted on

Each message says what was wrong, what was given, what is allowed and what to do next, on one line; several faults
found together follow as further lines.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SuperActivatorsError(Exception):
    """Root of every error that a user can mend."""


class DataError(SuperActivatorsError, ValueError):
    """A data set, sample, span, mask or label is wrong."""


class ModelError(SuperActivatorsError, ValueError):
    """A model cannot be loaded, or does not behave as claimed."""


class StoreError(SuperActivatorsError, ValueError):
    """A folder of ours is missing, foreign, damaged or of another version."""


class StudyError(SuperActivatorsError, ValueError):
    """A study file or an option asks for something impossible."""


class CalibrationError(SuperActivatorsError, ValueError):
    """A threshold is missing, cannot be fitted, or is used on the split it was fitted on."""


def allowed(given: object, options: Iterable[str]) -> str:
    """Say which names are allowed and which of them is nearest to the one given.

    Parameters
    ----------
    given : object
        What the user wrote.
    options : iterable of str
        The valid names.

    Returns
    -------
    str
        For example ``"did you mean 'mean'? Known: linear, mean"``.
    """
    names = sorted(options)
    near = difflib.get_close_matches(str(given), names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}Known: {', '.join(names) or 'none'}"
