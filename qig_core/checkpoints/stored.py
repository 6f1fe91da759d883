"""The tensors of checkpoints and of weight files by name: what each is, and its bytes a piece at a time. No torch.

It looks and opens; it verifies nothing and changes nothing.
"""

import os
import stat
from collections.abc import Callable, Hashable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from qig_core.checkpoints.catalog import Found
from qig_core.checkpoints.tensorfile import TensorEntry, read_header
from qig_core.errors import CheckpointError, MissingExtra
from qig_core.rundir.reader import open_regular
from qig_core.rundir.schema import CheckpointManifest

SUFFIX = ".safetensors"
TORCH_SUFFIXES = (".pt", ".pth", ".bin")
"""Of state dicts that torch.save wrote."""
STATE = "state.json"


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """One tensor under one name."""

    dtype: str
    """As the safetensors format names it, or as torch does where the format has no name for it."""
    shape: tuple[int, ...]
    """Of a complex tensor with a last axis of (real, imaginary); its type is that of the parts."""
    nbytes: int
    place: Hashable
    """Equal for the names of one and the same memory (tied weights)."""
    parts_of: str | None = None
    """The complex type, where the file itself names it."""
    read: Callable[[memoryview, int], None]
    """Fill a buffer with the bytes from an offset on. Raises: CheckpointError, they cannot be read."""


@dataclass(kw_only=True)
class Opened:
    """A checkpoint or a file whose tensors can be read; a context manager that closes it."""

    label: str
    manifest: CheckpointManifest | None
    """None for a file that belongs to no checkpoint."""
    tensors: dict[tuple[str, str], StoredTensor] = field(default_factory=dict)
    """By (KEY, NAME) as in KEY.safetensors; KEY is "" for a file of its own. Tied weights stand under each name."""
    tied: dict[tuple[str, str], str] = field(default_factory=dict)
    """Further names of a tensor, to the one under which its bytes are stored."""
    state_fd: int | None = None
    """state.json, where the checkpoint has one."""
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> "Opened":
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()


def open_checkpoint(found: Found) -> Opened:
    """The tensors of a checkpoint that a look finds complete. Its bytes are not verified.

    Raises:
        CheckpointError: not complete, or a file of it cannot be read.
    """
    if found.status != "COMPLETE" or found.manifest is None:
        problems = "; ".join(found.problems)
        raise CheckpointError(f"checkpoint {found.name!r} is not read, it is {found.status}: {problems}")
    opened = Opened(label=f"{found.manifest.run}@{found.name}", manifest=found.manifest)
    with ExitStack() as stack:
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            folder = os.open(found.path, flags | os.O_DIRECTORY)
            stack.callback(os.close, folder)
            for file in found.manifest.files:
                if file.path != STATE and not file.path.endswith(SUFFIX):
                    continue
                fd = os.open(file.path, flags | os.O_NONBLOCK, dir_fd=folder)
                stack.callback(os.close, fd)
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise CheckpointError(f"{str(found.path / file.path)!r} is not a regular file")
                if file.path == STATE:
                    opened.state_fd = fd
                else:
                    _take(opened, file.path.removesuffix(SUFFIX), fd, str(found.path / file.path))
        except OSError as error:
            raise CheckpointError(f"{str(found.path)!r} cannot be read: {error.strerror}") from error
        opened._stack = stack.pop_all()
    return opened


def open_file(path: Path) -> Opened:
    """The tensors of a .safetensors file, or of a state dict that torch.save wrote (needs torch).

    Raises:
        CheckpointError: absent, or not such a file. MissingExtra: it takes torch, which is not installed.
    """
    opened = Opened(label=str(path), manifest=None)
    if path.suffix != SUFFIX:
        if find_spec("torch") is None:
            raise MissingExtra(f"reading {str(path)!r} needs torch; install it with: pip install 'qig-tui[train]'")
        from qig_core.checkpoints.foreign import stored_tensors  # imports torch

        opened.tensors.update({("", name): tensor for name, tensor in stored_tensors(path).items()})
        return opened
    with ExitStack() as stack:
        try:
            fd = open_regular(path)
            stack.callback(os.close, fd)
            _take(opened, "", fd, str(path))
        except OSError as error:
            raise CheckpointError(f"{str(path)!r} cannot be read: {error.strerror}") from error
        opened._stack = stack.pop_all()
    return opened


def tied_names(names: Mapping[str, object], metadata: Mapping[str, str]) -> dict[str, str]:
    """Further names of tensors, as checkpoints and other writers of the format put them into a file's metadata."""
    return {name: kept for name, kept in metadata.items() if kept in names and name not in names}


def _take(opened: Opened, key: str, fd: int, path: str) -> None:
    try:
        entries, metadata = read_header(fd, os.fstat(fd).st_size)
    except ValueError as error:
        raise CheckpointError(f"{path!r} is no safetensors file: {error}") from error
    for entry in entries:
        opened.tensors[key, entry.name] = _stored(fd, entry, path)
    for name, kept in tied_names({entry.name: entry for entry in entries}, metadata).items():
        opened.tensors[key, name] = opened.tensors[key, kept]
        opened.tied[key, name] = kept


def _stored(fd: int, entry: TensorEntry, path: str) -> StoredTensor:
    parts = entry.dtype == "C64"
    return StoredTensor(
        dtype="F32" if parts else entry.dtype,
        shape=(*entry.shape, 2) if parts else entry.shape,
        parts_of="complex64" if parts else None,
        nbytes=entry.end - entry.start,
        place=(fd, entry.start, entry.end, entry.name),
        read=partial(_read, fd, entry.start, f"{path!r}: tensor {entry.name!r}"),
    )


def _read(fd: int, start: int, what: str, buffer: memoryview, offset: int) -> None:
    position = start + offset
    try:
        while buffer and (got := os.preadv(fd, [buffer], position)):
            buffer = buffer[got:]
            position += got
    except OSError as error:
        raise CheckpointError(f"{what} cannot be read: {error.strerror}") from error
    if buffer:
        raise CheckpointError(f"{what} was cut short while it was read")
