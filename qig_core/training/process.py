"""How a training process uses its C libraries. Called before torch is imported; no torch here."""

import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
_LARGEST_KEPT_BYTES = 32 << 20  # the most that glibc takes for M_MMAP_THRESHOLD
_KEEP_BYTES = 1 << 30


def settle() -> None:
    """Let OpenMP's threads sleep soon, and let malloc keep what a step frees.

    Threads that spin for ever take the core from whoever runs beside them, the dashboard first; a spin count that the
    user set stands. Without the second, glibc gives the pages of each step's large tensors back and faults them in
    again at the next. Elsewhere than on glibc the second does nothing.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _KEEP_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES)
