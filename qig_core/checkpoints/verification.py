"""Is every byte of a checkpoint what was published, and every number in it finite? No torch; one pass, in chunks."""

import os
import stat
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qig_core.checkpoints.catalog import Found, Status, look, refused
from qig_core.checkpoints.digest import StreamDigest
from qig_core.checkpoints.manifest_file import fingerprint, is_payload_name
from qig_core.checkpoints.tensorfile import BITS, TensorEntry, read_header
from qig_core.errors import CheckpointError
from qig_core.rundir.layout import RunDir
from qig_core.rundir.schema import CheckpointManifest, FileEntry

Progress = Callable[[int, int], None]
"""Called with the bytes read so far and the bytes in all."""

_CHUNK = 2 << 20
_BUFFERS = 4
_GRAVITY: tuple[Status, ...] = ("COMPLETE", "NO-ACCESS", "HASH-MISMATCH", "TORN", "UNREADABLE", "NEWER")
_FLOATS = {"F16": np.float16, "F32": np.float32, "C64": np.float32, "F64": np.float64}
_EXPONENTS = {"BF16": (np.uint16, 0x7F80), "F8_E5M2": (np.uint8, 0x7C), "F8_E4M3": (np.uint8, 0x7F)}
"""Types that numpy lacks: an element is not finite when all of these bits are set."""


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What reading every byte of a checkpoint has shown."""

    name: str
    step: int | None
    status: Status
    problems: tuple[str, ...]
    nonfinite: tuple[str, ...]
    """FILE:TENSOR of each tensor that holds NaN or an infinity. It says nothing against the bytes: a mask may."""
    manifest: CheckpointManifest | None
    tags: tuple[str, ...]
    t: float


def verify(run: RunDir, name: str, progress: Progress | None = None) -> Verification:
    """Sizes, blake3 digests, fingerprint, and whether every tensor is finite. Changes nothing.

    Raises:
        CheckpointError: no checkpoint of that name. What is wrong with one that is there is a value, never raised.
    """
    found = look(run, name)
    if found is None:
        raise CheckpointError(f"no checkpoint {name!r} in {str(run.checkpoints)!r}")
    steps = verifying(found)
    while True:
        try:
            done = next(steps)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]  # what the generator returns
        if progress is not None:
            progress(done, found.size)


def verifying(found: Found) -> Generator[int, None, Verification]:
    """`verify` chunk by chunk: yields the bytes read so far, returns the result."""
    status, problems, nonfinite = found.status, list(found.problems), list[str]()
    done = 0

    def note(grave: Status, problem: str) -> None:
        nonlocal status
        status = max(status, grave, key=_GRAVITY.index)
        if problem not in problems:
            problems.append(problem)

    files = found.manifest.files if found.manifest else []
    if found.manifest and fingerprint(files) != found.manifest.fingerprint:
        note("HASH-MISMATCH", "the fingerprint does not fit the files' digests")
    for file in files:
        if not is_payload_name(file.path):
            continue  # noted by the look already
        scan = _File(file)
        try:
            folder = os.open(found.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                for size in scan.read(folder):
                    done += size
                    yield done
            finally:
                os.close(folder)
        except FileNotFoundError:
            note("TORN", f"{file.path} is missing")
        except OSError as error:
            note(refused(error), f"{file.path} cannot be read: {error.strerror or error}")
        except ValueError as error:
            note("UNREADABLE", f"{file.path} cannot be read: {error}")
        else:
            if scan.size != file.size:
                note("TORN", f"{file.path} has {scan.size} bytes, not {file.size}")
            elif scan.digest != file.blake3 or scan.sha256 != file.sha256:
                note("HASH-MISMATCH", f"{file.path} does not match its digest: a byte has changed")
            elif scan.header_problem:
                note("UNREADABLE", f"{file.path} is no safetensors file: {scan.header_problem}")
            nonfinite += [f"{file.path.removesuffix('.safetensors')}:{tensor}" for tensor in scan.nonfinite]
    return Verification(
        name=found.name,
        step=found.step,
        status=status,
        problems=tuple(problems),
        nonfinite=tuple(nonfinite),
        manifest=found.manifest,
        tags=found.tags,
        t=found.t,
    )


class _File:
    """One pass over one payload file."""

    def __init__(self, file: FileEntry) -> None:
        self._file = file
        self.size = 0
        self.digest = ""
        self.sha256: str | None = None
        self.header_problem = ""
        self.nonfinite: list[str] = []

    def read(self, folder: int) -> Generator[int, None, None]:
        """Read, hash and look at the file; yields the size of each piece.

        Raises:
            OSError: it cannot be opened or read, or is a link (ELOOP). ValueError: not a regular file.
        """
        fd = os.open(self._file.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        try:
            facts = os.fstat(fd)
            if not stat.S_ISREG(facts.st_mode):
                raise ValueError("not a regular file")
            self.size = facts.st_size
            tensors: list[TensorEntry] = []
            if self._file.path.endswith(".safetensors"):
                try:
                    tensors, _ = read_header(fd, facts.st_size)
                except ValueError as error:
                    self.header_problem = str(error)
            yield from self._pass(fd, tensors)
        finally:
            os.close(fd)

    def _pass(self, fd: int, tensors: list[TensorEntry]) -> Generator[int, None, None]:
        # While the other buffers are hashed in their thread one is read and looked at.
        buffers = [memoryview(bytearray(min(_CHUNK, self.size))) for _ in range(_BUFFERS)]
        offset = first = 0
        with StreamDigest(_BUFFERS - 1, sha256=self._file.sha256 is not None) as digest:
            while offset < self.size:
                filling = buffers[0]
                buffers.append(buffers.pop(0))
                wanted = min(len(filling), self.size - offset)
                while first < len(tensors) and tensors[first].end <= offset:
                    first += 1
                wanted = _whole_elements(tensors, first, offset, offset + wanted) - offset
                got = 0
                while got < wanted and (more := os.preadv(fd, [filling[got:wanted]], offset + got)):
                    got += more
                digest.feed(filling[:got])
                if got < wanted:
                    self.size = offset + got  # cut short while it was read
                    break
                self._look(filling[:got], offset, tensors, first)
                offset += got
                yield got
            self.digest, self.sha256 = digest.hexdigest(), digest.sha256()

    def _look(self, piece: memoryview, offset: int, tensors: list[TensorEntry], first: int) -> None:
        end = offset + len(piece)
        for tensor in tensors[first:]:
            if tensor.start >= end:
                return
            part = piece[max(tensor.start - offset, 0) : min(tensor.end - offset, len(piece))]
            if not _all_finite(part, tensor.dtype) and tensor.name not in self.nonfinite[-1:]:
                self.nonfinite.append(tensor.name)


def _whole_elements(tensors: list[TensorEntry], first: int, start: int, end: int) -> int:
    """Where to stop reading so that no element of a tensor is cut in two: `end`, or up to 7 bytes before it."""
    for tensor in tensors[first:]:
        if tensor.start >= end:
            break
        if tensor.end > end:
            whole = end - (end - max(tensor.start, 0)) % (BITS[tensor.dtype] // 8)
            return whole if whole > start else end
    return end


def _all_finite(part: memoryview, dtype: str) -> bool:
    if dtype in _FLOATS:
        values: NDArray[Any] = np.frombuffer(part, dtype=_FLOATS[dtype])
        return bool(np.isfinite(values).all())
    if dtype in _EXPONENTS:
        word, mask = _EXPONENTS[dtype]
        bits: NDArray[Any] = np.frombuffer(part, dtype=word) & word(mask)
        return bool((bits != mask).all())
    return True
