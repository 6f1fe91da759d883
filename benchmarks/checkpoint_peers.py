"""The state that is saved, the limits of the machine, and how others save it. Nothing of ours is measured here."""

import errno
import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

from qig_core.rundir.mounts import mount_of

CHUNK = 8 << 20
READ_BUFFER = 2 << 20
_NOT_A_DISK = ("tmpfs", "ramfs")

warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)


def transformer_state(*, width: int, layers: int, vocabulary: int, context: int = 1024) -> dict[str, Any]:
    """A decoder's parameters and its AdamW after one step: random float32, the shapes of a GPT, a counter a tensor."""
    generator = torch.Generator().manual_seed(0)
    shapes: dict[str, tuple[int, ...]] = {"wte.weight": (vocabulary, width), "wpe.weight": (context, width)}
    for layer in range(layers):
        for name, inner, outer in (
            ("attn.qkv", width, 3 * width),
            ("attn.proj", width, width),
            ("mlp.fc", width, 4 * width),
            ("mlp.proj", 4 * width, width),
        ):
            shapes |= {f"h.{layer}.{name}.weight": (outer, inner), f"h.{layer}.{name}.bias": (outer,)}
        for norm in ("ln_1", "ln_2"):
            shapes |= {f"h.{layer}.{norm}.{what}": (width,) for what in ("weight", "bias")}
    shapes |= {f"ln_f.{what}": (width,) for what in ("weight", "bias")}
    model = {name: nn.Parameter(torch.randn(shape, generator=generator)) for name, shape in shapes.items()}
    for parameter in model.values():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizer = torch.optim.AdamW(model.values(), lr=1e-4)
    optimizer.step()
    optimizer.zero_grad()
    return {
        "model": {name: parameter.detach() for name, parameter in model.items()},
        "optimizer": optimizer.state_dict(),
    }


def tensors_of(tree: object, path: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor below dictionaries and lists, under its dotted path."""
    if isinstance(tree, torch.Tensor):
        yield path[1:], tree
    elif isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from tensors_of(value, f"{path}.{key}")
    elif isinstance(tree, list):
        for number, value in enumerate(tree):
            yield from tensors_of(value, f"{path}.{number}")


def copying(tree: object) -> Callable[[], None]:
    """The limit of staging: copy_ of every tensor into its place in one flat float32 buffer that is there already."""
    tensors = [tensor for _, tensor in tensors_of(tree)]
    flat = torch.zeros(sum(tensor.numel() for tensor in tensors))
    places = [
        place.view(tensor.shape)
        for place, tensor in zip(flat.split([tensor.numel() for tensor in tensors]), tensors, strict=True)
    ]

    def copy() -> None:
        for place, tensor in zip(places, tensors, strict=True):
            place.copy_(tensor)

    return copy


def write_raw(path: Path, content: memoryview) -> None:
    """The limit of saving: write(2) in 8 MB pieces and one fsync."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        for begin in range(0, len(content), CHUNK):
            piece = content[begin : begin + CHUNK]
            while piece:
                piece = piece[os.write(fd, piece) :]
        os.fsync(fd)
    finally:
        os.close(fd)


def replace_raw(path: Path, content: bytes) -> None:
    """The limit of publishing something small: a temporary file, fsync, rename, fsync of the directory."""
    temporary = path.with_name(f".{path.name}")
    write_raw(temporary, memoryview(content))
    temporary.rename(path)
    fsync(path.parent)


def read_raw(paths: Iterable[Path], buffer: bytearray) -> int:
    """The limit of verifying: preadv(2) of every file into one buffer. Returns how many bytes that were."""
    size = 0
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        try:
            offset = 0
            while got := os.preadv(fd, [buffer], offset):
                offset += got
            size += offset
        finally:
            os.close(fd)
    return size


def drop_from_cache(paths: Iterable[Path]) -> None:
    """Ask the kernel to forget the files' pages; whether it does is for `cached` to say."""
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)


def cached(path: Path) -> bool:
    """Whether the middle of a file is in memory. One place only: asking may begin to read what is around it."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.preadv(fd, [bytearray(1)], os.fstat(fd).st_size // 2, os.RWF_NOWAIT)
        return True
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        return True
    finally:
        os.close(fd)


def fsync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def torch_save(tree: object, path: Path) -> None:
    torch.save(tree, path)


def torch_save_durable(tree: object, path: Path) -> None:
    torch.save(tree, path)
    fsync(path)


def safetensors_save_durable(tree: object, path: Path) -> None:
    safetensors.torch.save_file(dict(tensors_of(tree)), path)
    fsync(path)


def dcp_save(tree: dict[str, Any], path: Path) -> None:
    """One process, no process group. Its writer fsyncs each file by default, but no directory."""
    dcp.save(tree, storage_writer=dcp.FileSystemWriter(path), no_dist=True)


class DcpStaging:
    """dcp.async_save with a stager that is kept, so that its buffers are used again; a call returns when it does."""

    def __init__(self, tree: dict[str, Any], path: Path) -> None:
        self._tree, self._path = tree, path
        self._stager = DefaultStager(StagingOptions(False, False, False, False))
        self._pending: Any = None

    def __call__(self) -> None:
        self._pending = dcp.async_save(
            self._tree, storage_writer=dcp.FileSystemWriter(self._path), async_stager=self._stager, no_dist=True
        )

    def settle(self) -> None:
        """Wait for its writing, and delete that."""
        if self._pending is not None:
            self._pending.result()
            self._pending = None
            shutil.rmtree(self._path)

    def close(self) -> None:
        self.settle()
        self._stager.close()


def torch_load(path: Path) -> object:
    return torch.load(path, weights_only=True)


def safetensors_load(path: Path) -> dict[str, torch.Tensor]:
    """load_file maps the file and reads nothing yet: each tensor is copied, as the others give memory of its own."""
    return {name: tensor.clone() for name, tensor in safetensors.torch.load_file(path).items()}


def refusal(folder: Path, needed: int) -> str | None:
    """Why nothing can be measured in this folder, in a sentence; None where it can."""
    if not folder.is_dir():
        return f"{str(folder)!r} is no folder: make it, or name another by --folder"
    mount = mount_of(folder)
    if mount is not None and mount.kind in _NOT_A_DISK:
        return f"{str(folder)!r} is in memory ({mount.kind}): name a folder on a disk by --folder"
    free = shutil.disk_usage(folder).free
    if free < needed:
        free_gb, needed_gb = free / 1e9, needed / 1e9
        return f"{str(folder)!r} has {free_gb:.1f} GB free, {needed_gb:.1f} GB are needed: name another by --folder"
    return None
