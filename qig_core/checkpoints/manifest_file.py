"""manifest.json of a checkpoint: the commit marker, sealed against its own damage. No payload byte is read here."""

import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path

import blake3
import msgspec

from qig_core.rundir.atomic import encode_document
from qig_core.rundir.layout import CHECKPOINT_MANIFEST, CHECKPOINT_TAGS
from qig_core.rundir.schema import FORMAT, CheckpointManifest, FileEntry

_PLAIN = re.compile(r"[A-Za-z0-9_.-]{1,120}")
_SEAL = re.compile(rb',\n  "seal": "([0-9a-f]{64})"\n}\n\Z')
_MAX_MANIFEST_BYTES = 64 << 20


class NewerFormat(ValueError):
    """Written by a program that knows more than this one: to be left alone."""


class _Formatted(msgspec.Struct):
    format: int = FORMAT


def is_payload_name(name: str) -> bool:
    """Whether a payload file may be called so: no folder, nothing a shell or another system reads differently."""
    return _PLAIN.fullmatch(name) is not None and name not in (".", "..", CHECKPOINT_MANIFEST, CHECKPOINT_TAGS)


def fingerprint(files: Sequence[FileEntry]) -> str:
    """blake3, hex, of the lines "NAME SIZE DIGEST" in sorted order: what a restore is confirmed with."""
    lines = sorted(f"{file.path} {file.size} {file.blake3}\n" for file in files)
    return str(blake3.blake3("".join(lines).encode()).hexdigest())


def encode_sealed(manifest: CheckpointManifest) -> bytes:
    """A manifest as it stands on disk: indented JSON whose last key, `seal`, is the blake3 of every byte before it.

    Raises:
        ValueError: a fact that could not be read back as what the schema says.
    """
    try:
        content = encode_document(manifest)
        msgspec.json.decode(content, type=CheckpointManifest)
    except (TypeError, OverflowError, msgspec.ValidationError) as error:
        raise ValueError(str(error)) from error
    assert content.endswith(b"\n}\n")
    content = content[:-3]
    return content + f',\n  "seal": "{blake3.blake3(content).hexdigest()}"\n}}\n'.encode()


def read_sealed(path: Path) -> CheckpointManifest:
    """A manifest whose seal holds: the blake3 of every byte before it.

    Raises:
        OSError: it cannot be opened or read, or is a link (ELOOP).
        NewerFormat: of a newer format.
        ValueError: damaged, or not a manifest.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > _MAX_MANIFEST_BYTES:
            raise ValueError("not a regular file of a manifest's size")
        content = file.read()
    seal = _SEAL.search(content)
    if seal is None:
        # What a newer format looks like nobody can know here; this one always has its seal.
        _refuse_newer(content)
        raise ValueError("its seal is missing: cut short, changed, or not written by this program")
    if blake3.blake3(content[: seal.start()]).hexdigest() != seal[1].decode():
        raise ValueError("its seal does not match: a byte has changed")
    _refuse_newer(content)
    return msgspec.json.decode(content, type=CheckpointManifest)


def _refuse_newer(content: bytes) -> None:
    try:
        found = msgspec.json.decode(content, type=_Formatted).format
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    if found > FORMAT:
        raise NewerFormat(f"format {found}; this program reads {FORMAT}: upgrade qig-tui")
