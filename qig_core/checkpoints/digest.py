"""blake3 of a stream, and SHA-256 on demand, computed beside the reading or writing of it. No disk."""

import hashlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import blake3

_INLINE = 1 << 17
"""Below this many bytes a hand-over to the other thread costs more than hashing here."""


class StreamDigest:
    """A blake3 digest whose updates run one after another in one further thread. A context manager.

    One thread and not blake3's own pool: that pool does not survive a fork, and a worker forked from a trainer that
    has saved once would hang in it.

    Args:
        behind: how many buffers may wait while `feed` returns; the hash of what is written last can then run during
            its fsync.
        sha256: digest by SHA-256 as well.
    """

    def __init__(self, behind: int = 1, *, sha256: bool = False) -> None:
        self._hash = blake3.blake3()
        self._sha256 = hashlib.sha256() if sha256 else None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="qig-digest")
        self._pending: deque[Future[object]] = deque()
        self._behind = behind

    def feed(self, buffer: bytes | memoryview) -> None:
        """Add the buffer. It must not change before `behind` further calls, or `hexdigest`, have returned."""
        self._settle(self._behind - 1)
        if len(buffer) >= _INLINE or self._pending:
            try:
                self._pending.append(self._pool.submit(self._update, buffer))
                return
            except RuntimeError:  # the interpreter is shutting down and starts no thread
                self._settle(0)
        self._update(buffer)

    def hexdigest(self) -> str:
        self._settle(0)
        return str(self._hash.hexdigest())

    def sha256(self) -> str | None:
        """Hex; None where it was not asked for."""
        self._settle(0)
        return self._sha256.hexdigest() if self._sha256 is not None else None

    def _update(self, buffer: bytes | memoryview) -> None:
        self._hash.update(buffer)
        if self._sha256 is not None:
            self._sha256.update(buffer)

    def _settle(self, left: int) -> None:
        while self._pending and self._pending[0].done():
            self._pending.popleft().result()
        while len(self._pending) > left:
            self._pending.popleft().result()

    def __enter__(self) -> "StreamDigest":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()
