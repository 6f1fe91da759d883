"""Text as bytes: where it comes from, how it is split, which window a step sees. No model, no global random state.

Split rule: the last tenth of the bytes, in one piece, is held out. A batch is a pure function of (seed, step), so the
position in the data is the step alone and nothing needs saving.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import blake3
import numpy as np
from numpy.typing import NDArray

from qig_core.errors import CorpusError

Bytes: TypeAlias = NDArray[np.uint8]
Tokens: TypeAlias = NDArray[np.int64]

SPLIT_RULE = "held out: the last len//10 bytes"
MIN_SIZE_BYTES = 4096


@dataclass(frozen=True, kw_only=True, eq=False)
class Corpus:
    """Bytes to learn from and bytes kept apart; compare two by `digest`."""

    name: str
    train: Bytes
    heldout: Bytes
    digest: str
    """blake3, hex, of the split rule, a NUL and all bytes in order."""
    num_files: int
    num_skipped: int
    """Files met inside a folder that are not text."""

    @property
    def size_bytes(self) -> int:
        return self.train.size + self.heldout.size


def default_corpus() -> Corpus:
    """The language reference that CPython carries (pydoc_data.topics), values joined in sorted key order.

    It differs between CPython versions, and so does its digest.
    """
    from pydoc_data.topics import topics  # 0.7 MB of text, read when asked for

    text = "\n".join(topics[key] for key in sorted(topics))
    return _split("pydoc_data.topics", text.encode(), num_files=1, num_skipped=0)


def load_corpus(paths: list[Path]) -> Corpus:
    """Text files, and the text files of folders (recursive, sorted by path, hidden names skipped), joined by newlines.

    Args:
        paths: in this order. A file named here must be UTF-8 text; inside a folder other files are skipped and counted.

    Raises:
        CorpusError: a path is missing, unreadable, neither file nor folder, binary (holds NUL or is not UTF-8), or a
            folder without text; or all of it is empty or shorter than 4096 bytes.
    """
    if not paths:
        raise CorpusError("no corpus path given: name at least one text file or folder")
    pieces: list[bytes] = []
    num_skipped = 0
    for path in paths:
        if path.is_dir():
            found = 0
            for file in _files_under(path):
                content = _read(file)
                if _why_not_text(content) is None:
                    pieces.append(content)
                    found += 1
                else:
                    num_skipped += 1
            if not found:
                raise CorpusError(f"no text file in folder {str(path)!r} (hidden and binary files are skipped)")
        else:
            content = _read(path)
            reason = _why_not_text(content)
            if reason is not None:
                raise CorpusError(f"{str(path)!r} is not text: {reason}; name UTF-8 text files only")
            pieces.append(content)
    names = ", ".join(str(path) for path in paths)
    return _split(names, b"\n".join(pieces), num_files=len(pieces), num_skipped=num_skipped)


def batch(data: Bytes, *, seed: int, step: int, batch_size: int, context: int) -> Tokens:
    """[batch_size, context + 1] windows of `data` at uniform offsets: a pure function of (seed, step).

    Source: the counter-based Philox generator (Salmon et al. 2011), key = seed, upper counter words = step.

    Raises:
        CorpusError: data is shorter than one window.
        ValueError: seed or step is negative.
    """
    if seed < 0 or step < 0:
        raise ValueError(f"seed {seed} and step {step} must not be negative")
    last = _last_offset(data, context)
    # Raw words, because numpy keeps a bit generator's stream for ever and a Generator's methods only for a while. The
    # remainder favours early offsets by less than one part in 2^30.
    words = np.random.Philox(key=seed, counter=step << 128).random_raw(batch_size)
    return _windows(data, (words % np.uint64(last + 1)).astype(np.int64), context + 1)


def probe_batch(heldout: Bytes, n: int = 8, *, context: int) -> Tokens:
    """[n, context] evenly spaced windows of the held-out bytes: the fixed text every measurement looks at."""
    last = _last_offset(heldout, context)
    return _windows(heldout, np.linspace(0, last, n).astype(np.int64), context)


def heldout_batches(heldout: Bytes, *, num_batches: int, batch_size: int, context: int) -> list[Tokens]:
    """`num_batches` arrays [batch_size, context + 1], evenly spaced over the held-out bytes; always the same."""
    last = _last_offset(heldout, context)
    offsets = np.linspace(0, last, num_batches * batch_size).astype(np.int64)
    return [_windows(heldout, part, context + 1) for part in offsets.reshape(num_batches, batch_size)]


def _last_offset(data: Bytes, context: int) -> int:
    last = data.size - context - 1
    if last < 0:
        raise CorpusError(f"{data.size} bytes are too few for a window of context + 1 = {context + 1}: use more text")
    return int(last)


def _windows(data: Bytes, offsets: Tokens, length: int) -> Tokens:
    return np.asarray(data[offsets[:, None] + np.arange(length)], dtype=np.int64)


def _split(name: str, content: bytes, *, num_files: int, num_skipped: int) -> Corpus:
    if not content.strip():
        raise CorpusError(f"{name!r} is empty: there is nothing to learn from")
    if len(content) < MIN_SIZE_BYTES:
        raise CorpusError(f"{name!r} is too short: {len(content)} bytes, at least {MIN_SIZE_BYTES} are needed")
    digest = blake3.blake3(SPLIT_RULE.encode() + b"\0" + content).hexdigest()
    data: NDArray[Any] = np.frombuffer(content, dtype=np.uint8)  # read-only, like the bytes it views
    cut = data.size - data.size // 10
    return Corpus(
        name=name,
        train=data[:cut],
        heldout=data[cut:],
        digest=digest,
        num_files=num_files,
        num_skipped=num_skipped,
    )


def _files_under(folder: Path) -> list[Path]:
    def refuse(error: OSError) -> None:
        raise CorpusError(f"cannot read folder {str(error.filename)!r}: {error.strerror}") from error

    found: list[Path] = []
    for parent, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in files if not name.startswith(".")]
    return sorted(path for path in found if path.is_file())


def _read(path: Path) -> bytes:
    try:
        # A pipe or a device would block or never end.
        if path.exists() and not path.is_file():
            raise CorpusError(f"{str(path)!r} is neither a file nor a folder")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise CorpusError(f"no such file or folder: {str(path)!r}") from error
    except OSError as error:
        raise CorpusError(f"cannot read {str(path)!r}: {error.strerror}") from error


def _why_not_text(content: bytes) -> str | None:
    if b"\0" in content:
        return f"a NUL byte at offset {content.index(0)}"
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"not UTF-8 at offset {error.start}"
    return None
