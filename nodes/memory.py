"""Freed memory goes back to the system.

glibc keeps freed memory for itself, so after POST /free the process would look as large as before. `malloc_trim` returns it.
Other systems' allocators return memory by themselves, or have no such function.
"""

import ctypes
import threading
from collections.abc import Callable

DELAY = 0.5  # seconds after the last model was dropped: its tensors, and those of the others, are freed by then
_lock = threading.Lock()
_timer: threading.Timer | None = None


def trimmer() -> Callable[[int], int] | None:
    """glibc's malloc_trim, or None on a system without it."""
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim  # ctypes lets other threads run meanwhile
    except (AttributeError, OSError, TypeError):  # another libc; Windows raises TypeError for None
        return None
    return trim


TRIM = trimmer()


def give_back() -> None:
    """Return freed memory to the system, DELAY after the last call."""
    global _timer
    if TRIM is None:
        return
    with _lock:
        if _timer is not None:
            _timer.cancel()
        _timer = threading.Timer(DELAY, TRIM, (0,))
        _timer.daemon = True
        _timer.start()
