"""Silence for calls into transformers: what matters is raised as an error of ours, the rest is noise."""

from __future__ import annotations

import logging as levels
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.utils import logging as hub_logging
from transformers.utils import logging


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Turn off log lines, progress bars and warnings of transformers inside a ``with`` block; restore them after."""
    verbosity, hub_verbosity = logging.get_verbosity(), hub_logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity(levels.CRITICAL)
    hub_logging.set_verbosity(levels.CRITICAL)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        hub_logging.set_verbosity(hub_verbosity)
        if bars:
            with warnings.catch_warnings():  # it complains where an environment variable keeps the bars off
                warnings.simplefilter("ignore")
                logging.enable_progress_bar()
