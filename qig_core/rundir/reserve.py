"""A little of the disk kept back for a run's last word: where the disk is full, how it ended could not be written."""

import contextlib
import os
from pathlib import Path

RESERVED_BYTES = 64 * 1024
"""Beside the size of the manifest as it was at the start."""


def keep(path: Path, size_bytes: int) -> None:
    """Take up space in a file of its own. A disk that refuses has none to keep: the run goes on without."""
    try:
        with open(path, "wb", buffering=0) as file:
            # Random: a file system that compresses would keep nothing back for zeros.
            content = memoryview(os.urandom(size_bytes))
            while content:
                content = content[file.write(content) :]
    except OSError:
        release(path)


def release(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
