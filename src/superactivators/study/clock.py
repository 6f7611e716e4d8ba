"""Time, memory and messages of a run."""

from __future__ import annotations

import ctypes
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import final


@final
class Clock:
    """Seconds by stage, with a line to whoever wants to follow.

    Parameters
    ----------
    say : callable
        Called with a short line when work begins; does nothing by default.

    Attributes
    ----------
    seconds : dict of str to float
        Sum by stage; stages that were skipped are absent.
    """

    def __init__(self, say: Callable[[str], None] = lambda message: None) -> None:
        self.say = say
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str, message: str) -> Iterator[None]:
        """Say what begins, and add the block's seconds to the stage."""
        self.say(message)
        start = time.perf_counter()
        try:
            yield
        finally:
            _give_back_memory()
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - start, 3)


def peak_memory() -> int:
    """Largest resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _give_back_memory() -> None:
    """Return freed memory to the system; glibc would keep it, and the next stage could not reuse all of it."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
