"""A verified checkpoint as one safetensors file that other tools open, and what is known of it as JSON beside it.

It reads and writes bytes and builds no value: no torch. The checkpoint is not changed.
"""

import errno
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from qig_core.checkpoints.catalog import Found
from qig_core.checkpoints.comparison import WEIGHTS, basin_of
from qig_core.checkpoints.digest import StreamDigest
from qig_core.checkpoints.plain_state import complex_tensors, read_state
from qig_core.checkpoints.stored import SUFFIX, Opened, StoredTensor, open_checkpoint
from qig_core.checkpoints.tensorfile import METADATA, TensorFile, TensorSource, read_header
from qig_core.checkpoints.verification import Verification, verifying
from qig_core.errors import CheckpointError, RecordWriteError, UsageError
from qig_core.rundir.atomic import encode_document, fsync_directory, write_document
from qig_core.rundir.values import without_surrogates

Row = dict[str, Any]

FORMAT = 1
"""Of the JSON beside the tensors."""

_CHUNK = 4 << 20
_PROGRESS_BYTES = 64 << 20


def check_target(out: Path, found: Found, *, force: bool) -> None:
    """Whether a checkpoint can be exported to there, by a look.

    Raises:
        UsageError: no .safetensors name, no such folder, something is there already (without `force`), or it lies
            among the checkpoints of a run.
    """
    if out.suffix != SUFFIX:
        raise UsageError(f"{str(out)!r}: what is exported is a safetensors file, and its name ends in {SUFFIX}")
    if not os.path.isdir(out.parent):
        raise UsageError(f"{str(out.parent)!r} is not a folder; make it first")
    if out.resolve().is_relative_to(found.path.parent.resolve()):
        raise UsageError(f"{str(out)!r} lies among the checkpoints of a run; export to another place")
    for path in (out, _beside(out)):
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            continue
        except OSError as error:
            raise UsageError(f"{str(path)!r}: {error.strerror}") from error
        if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
            raise UsageError(f"{str(path)!r} is a folder or no regular file")
        if not force:
            raise UsageError(f"{str(path)!r} exists; --force replaces it")


def export(
    found: Found, out: Path, *, keys: Sequence[str] = (), everything: bool = False, force: bool = False
) -> Iterator[Row]:
    """Verify every byte of a checkpoint, then write tensors of it to `out`, and what is known of it to OUT.json.

    Yields {"progress": {"doing": "verify" | "write", "done", "total"}} as it goes, at last {"result": what OUT.json
    says}: the checkpoint's manifest without its list of files, the basin as numbers whose sum is 1, and
        exported: path, size, blake3, tensors, keys, tied (further names of a tensor; its bytes stand under each),
        complex (name to type: stored with a last axis of real and imaginary part), nonfinite (names).

    Args:
        keys: top-level keys of the state; of one the tensors keep their names, of several they are called KEY.NAME.
            The default is "model".
        everything: all keys, KEY.NAME.

    Raises:
        UsageError: as `check_target`; no such key; two tensors would have one name.
        CheckpointError: the checkpoint is not complete, or cannot be read.
        RecordWriteError: the disk refused; nothing of it is left, and what was there before is untouched.
    """
    check_target(out, found, force=force)
    with open_checkpoint(found) as opened:
        chosen = _choose(opened, keys, everything)
        names = _names(opened, chosen, joined=everything or len(chosen) > 1)
        verified: Verification | None = None
        for report in _verify(found):
            if isinstance(report, Verification):
                verified = report
            else:
                yield report
        assert verified is not None
        file = TensorFile([_source(name, opened.tensors[at]) for name, at in names.items()], metadata={"format": "pt"})
        known = _known(opened, names, chosen, verified.nonfinite)
        known["exported"] |= {"path": out.name, "size": file.nbytes}
        yield from _write(file, {name: opened.tensors[at] for name, at in names.items()}, out, known)
    yield {"result": without_surrogates(known)}


def _beside(out: Path) -> Path:
    return out.with_suffix(".json")


def _choose(opened: Opened, keys: Sequence[str], everything: bool) -> list[str]:
    there = sorted({key for key, _ in opened.tensors})
    if not there:
        raise CheckpointError(f"{opened.label!r} holds no tensors")
    if everything:
        if keys:
            raise UsageError("--all and --key exclude each other")
        return there
    listed = ", ".join(map(repr, there))
    if not keys and WEIGHTS not in there:
        raise UsageError(f"{opened.label!r} has no {WEIGHTS!r}; name with --key, or take with --all, of: {listed}")
    for key in keys:
        if key not in there:
            raise UsageError(f"{opened.label!r} has no tensors under {key!r}; there are {listed}")
    return list(dict.fromkeys(keys)) or [WEIGHTS]


def _names(opened: Opened, keys: Sequence[str], *, joined: bool) -> dict[str, tuple[str, str]]:
    """The exported names, each with where its tensor stands."""
    names: dict[str, tuple[str, str]] = {}
    for at in opened.tensors:
        if at[0] not in keys:
            continue
        name = ".".join(at) if joined else at[1]
        if name in names or name == METADATA:
            raise UsageError(f"two tensors would be called {name!r}; export the keys one by one with --key")
        names[name] = at
    return names


def _source(name: str, tensor: StoredTensor) -> TensorSource:
    def read() -> memoryview:
        whole = memoryview(bytearray(tensor.nbytes))
        tensor.read(whole, 0)
        return whole

    return TensorSource(name=name, dtype=tensor.dtype, shape=tensor.shape, read=read)


def _verify(found: Found) -> Iterator[Row | Verification]:
    steps, said, done = verifying(found), 0, 0
    yield _progress("verify", 0, found.size)
    while True:
        try:
            done = next(steps)
        except StopIteration as stop:
            verified: Verification = stop.value
            break
        if done - said >= _PROGRESS_BYTES:
            said = done
            yield _progress("verify", done, found.size)
    if verified.status != "COMPLETE":
        problems = "; ".join(verified.problems)
        raise CheckpointError(f"checkpoint {found.name!r} is not exported, it is {verified.status}: {problems}")
    yield verified


def _known(opened: Opened, names: dict[str, tuple[str, str]], keys: Sequence[str], nonfinite: Sequence[str]) -> Row:
    """What OUT.json says, but for the file itself."""
    assert opened.manifest is not None
    manifest: Row = msgspec.to_builtins(opened.manifest)
    del manifest["files"], manifest["format"]
    basin, why = basin_of(opened.manifest)
    stored_complex = {at: tensor.parts_of for at, tensor in opened.tensors.items() if tensor.parts_of}
    if opened.state_fd is not None:
        stored_complex |= complex_tensors(read_state(opened.state_fd, opened.label))
    kept = {at: (at[0], opened.tied.get(at, at[1])) for at in names.values()}
    of_stored = {at: name for name, at in names.items()}
    exported = {
        "keys": list(keys),
        "tensors": len(names),
        "tied": {name: of_stored[kept[at]] for name, at in names.items() if at in opened.tied},
        "complex": {name: stored_complex[kept[at]] for name, at in names.items() if kept[at] in stored_complex},
        "nonfinite": [name for name, at in names.items() if ":".join(kept[at]) in nonfinite],
    }
    source = {"run": manifest.pop("run"), "checkpoint": manifest.pop("name")}
    numbers = {"basin": None, "basin_reason": why} if basin is None else {"basin": basin.tolist()}
    return {"format": FORMAT, "source": source, "exported": exported, **manifest, **numbers}


def _write(file: TensorFile, tensors: dict[str, StoredTensor], out: Path, known: Row) -> Iterator[Row]:
    """Both files, whole or not at all; the digest is put into `known`."""
    temporary = out.with_name(f".{out.name}.{secrets.token_hex(6)}.tmp")
    beside = _beside(out)
    replaced = os.path.lexists(beside)
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(temporary, flags, 0o666)
        try:
            yield _progress("write", 0, file.nbytes)
            with StreamDigest() as digest:
                done = said = 0
                for piece in _pieces(file, tensors, fd):
                    digest.feed(piece)
                    done += len(piece)
                    while piece:
                        piece = piece[os.write(fd, piece) :]
                    if done - said >= _PROGRESS_BYTES:
                        said = done
                        yield _progress("write", done, file.nbytes)
                known["exported"]["blake3"] = digest.hexdigest()
            os.fsync(fd)
        finally:
            os.close(fd)
        # The tensors come last: they are never there without what is known of them.
        write_document(beside, encode_document(known))
        try:
            os.replace(temporary, out)
        except OSError:
            if not replaced:
                beside.unlink(missing_ok=True)
            raise
        fsync_directory(out.parent)
    except OSError as error:
        code = errno.errorcode.get(error.errno or 0, "?")
        raise RecordWriteError(f"{str(out)!r} was not written: {error.strerror or error} ({code})") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def _pieces(file: TensorFile, tensors: dict[str, StoredTensor], fd: int) -> Iterator[memoryview]:
    """The file from its first byte to its last. A piece may be overwritten when the next but one is asked for."""
    head = memoryview(next(iter(file)))
    yield head
    # Where each tensor lies is read from the header itself, which is on the disk now.
    os.ftruncate(fd, file.nbytes)
    entries, _ = read_header(fd, file.nbytes)
    buffers = [memoryview(bytearray(_CHUNK)), memoryview(bytearray(_CHUNK))]
    for entry in entries:
        for offset in range(0, entry.end - entry.start, _CHUNK):
            buffers.reverse()
            piece = buffers[0][: entry.end - entry.start - offset]
            tensors[entry.name].read(piece, offset)
            yield piece


def _progress(doing: str, done: int, total: int) -> Row:
    return {"progress": {"doing": doing, "done": done, "total": total}}
