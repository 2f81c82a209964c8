"""Freed memory goes back to the system.

glibc keeps freed memory for itself, so after POST /free the process would look as large as before. `malloc_trim` returns it.
Other systems' allocators return memory by themselves, or have no such function.
"""

import ctypes
import threading
import time
from collections.abc import Callable
from functools import cache
from queue import SimpleQueue

DELAYS = (0.5, 5.0)  # seconds after a model was dropped: its tensors are freed soon, and later those that it shared
_asked: SimpleQueue[None] = SimpleQueue()  # its put may be called in a finalizer, at any place of the program: it takes no lock


def trimmer() -> Callable[[int], int] | None:
    """glibc's malloc_trim, or None on a system without it."""
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim  # ctypes lets other threads run meanwhile
    except (AttributeError, OSError, TypeError):  # another libc; Windows raises TypeError for None
        return None
    return trim


TRIM = trimmer()


def give_back() -> None:
    """Return freed memory to the system a moment later, after `start`. Calls in quick succession count as one."""
    if TRIM is not None:
        _asked.put(None)


def work() -> None:
    """Wait for the next `give_back`, and do it."""
    _asked.get()
    for delay in DELAYS:
        time.sleep(delay)
        while not _asked.empty():
            _asked.get()
        if TRIM is not None:
            TRIM(0)


@cache
def start() -> None:
    """Start the thread that does what `give_back` asks for, once. A finalizer cannot do it: it may run while a thread starts."""
    if TRIM is not None:
        threading.Thread(target=_forever, name="StylerDALLE memory", daemon=True).start()


def _forever() -> None:
    while True:
        work()
