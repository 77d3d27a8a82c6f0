"""Let the C library keep the memory of one batch for the next.

glibc gives an array of more than 32 MB back to the system as soon as it is freed, and the next batch has every page of
it cleared and mapped again: at 224 pixels that takes two thirds of a forward pass (benchmarks/imagenet_net.py). This
holds for a whole process, so the commands do it and the library leaves it to its caller.
"""

from __future__ import annotations

import ctypes
import os

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of mallopt(3)
_MOST = 2**31 - 1  # bytes; what a C int holds
_OWN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Keep freed memory in the process, and return whether it is kept.

    Nothing is changed where the C library is not glibc, or where the user has set its allocator by one of its
    environment variables.
    """
    if any(name in os.environ for name in _OWN):
        return False
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018  # another C library may have a mallopt that does nothing
        mallopt = libc.mallopt
    except (OSError, TypeError, AttributeError):  # no such function; Windows has no CDLL(None)
        return False
    return bool(mallopt(_TRIM_THRESHOLD, _MOST) and mallopt(_MMAP_MAX, 0))
