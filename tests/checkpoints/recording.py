"""What a program does to one folder, step by step, and what a power cut may leave of it. No torch.

A `Recorder` stands in the place of the few calls of `os` by which files come and go (pathlib and shutil end there too)
while they go through; a `Replay` knows after each step what is durable and gives the images of the disk that may be
found at the next boot. Not a file system: what is never rewritten in place, linked or moved to another folder by the
programs under test is not modelled, and `Replay.tree` beside the real folder shows that nothing went past.
"""

import os
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Union

Tree = dict[str, Union["Tree", bytes]]
"""A folder by its names: folders and contents of files."""
Where = tuple[str, ...]
"""A path below the recorded folder."""

_SHORT = [
    (re.compile(r"\.(.+)\.[0-9a-f]{12}\.tmp"), r"\1"),
    (re.compile(r"(\.tmp|\.bad|\.del)-.*"), r"\1"),
    (re.compile(r"step-\d{8}-[0-9a-f]{6}"), "final"),
]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One call that changes something, or makes it durable."""

    index: int
    call: str
    """open (that creates), write, fsync, rename, unlink, mkdir or rmdir."""
    where: Where
    to: Where = ()
    data: bytes = b""

    @property
    def name(self) -> str:
        """The same in every run: "write model.bin", "fsync .tmp", "rename to final"."""
        last = (self.to or self.where or ("run",))[-1]
        for pattern, short in _SHORT:
            last = pattern.sub(short, last)
        return f"{self.call} {'to ' if self.to else ''}{last}"


Hook = Callable[[Step], int | None]
"""Called before each step. It may raise what the system would, or say how many bytes of a write go through."""


class Recorder:
    """Records what this process does below `root` while it is entered. One at a time, one thread.

    Args:
        root: a folder; all in it counts as durable when the recorder is entered.
    """

    def __init__(self, root: Path, hook: Hook | None = None) -> None:
        self._root = os.path.realpath(root)
        self.hook = hook
        self.initial: Tree = read_tree(root)
        self.steps: list[Step] = []
        """Those that the system did not refuse."""
        self._count = 0
        self._real: dict[str, Any] = {}

    @property
    def names(self) -> list[str]:
        return [step.name for step in self.steps]

    def __enter__(self) -> "Recorder":
        for name in ("open", "write", "fsync", "mkdir", "rmdir", "unlink", "remove", "rename", "replace"):
            self._real[name] = getattr(os, name)
        os.open, os.write, os.fsync = self._open, self._write, self._fsync
        os.mkdir, os.rmdir = self._on_path("mkdir"), self._on_path("rmdir")
        os.unlink, os.remove = self._on_path("unlink"), self._on_path("remove")
        os.rename, os.replace = self._renaming("rename"), self._renaming("replace")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for name, real in self._real.items():
            setattr(os, name, real)

    def _where(self, path: Any, folder: int | None = None) -> Where | None:
        text = os.readlink(f"/proc/self/fd/{path}") if isinstance(path, int) else os.fsdecode(path)
        base = os.readlink(f"/proc/self/fd/{folder}") if folder is not None else os.getcwd()
        text = os.path.normpath(os.path.join(base, text))
        if text != self._root and not text.startswith(self._root + "/"):
            return None
        return tuple(text[len(self._root) :].split("/")[1:])

    def _do(self, step: Step, real: Callable[[], Any]) -> Any:
        self._count += 1
        if self.hook is not None:
            self.hook(step)
        result = real()
        self.steps.append(step)
        return result

    def _step(self, call: str, where: Where, **more: Any) -> Step:
        return Step(index=self._count, call=call, where=where, **more)

    def _open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        def real() -> Any:
            return self._real["open"](path, flags, mode, dir_fd=dir_fd)

        where = self._where(path, dir_fd)
        if where is None or not flags & os.O_CREAT or os.path.lexists(os.path.join(self._root, *where)):
            assert where is None or not flags & os.O_TRUNC, f"{where} is rewritten in place"
            return int(real())
        return int(self._do(self._step("open", where), real))

    def _write(self, fd: int, data: Any) -> int:
        where = self._where(fd)
        if where is None:
            return int(self._real["write"](fd, data))
        content = bytes(data)
        step = self._step("write", where, data=content)
        self._count += 1
        let_through = self.hook(step) if self.hook is not None else None
        done = int(self._real["write"](fd, content if let_through is None else content[:let_through]))
        self.steps.append(Step(index=step.index, call="write", where=where, data=content[:done]))
        return done

    def _fsync(self, fd: int) -> None:
        where = self._where(fd)
        if where is None:
            self._real["fsync"](fd)
        else:
            self._do(self._step("fsync", where), lambda: self._real["fsync"](fd))

    def _on_path(self, name: str) -> Callable[..., None]:
        def call(path: Any, *args: Any, dir_fd: int | None = None) -> None:
            def real() -> Any:
                self._real[name](path, *args, dir_fd=dir_fd)

            where = self._where(path, dir_fd)
            if where is None:
                real()
            elif name != "mkdir" or not os.path.lexists(os.path.join(self._root, *where)):
                self._do(self._step("unlink" if name == "remove" else name, where), real)
            else:
                real()  # refused by the system: it is there

        return call

    def _renaming(self, name: str) -> Callable[..., None]:
        def call(source: Any, target: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None) -> None:
            def real() -> Any:
                self._real[name](source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

            where, to = self._where(source, src_dir_fd), self._where(target, dst_dir_fd)
            assert (where is None) == (to is None), f"{source} is moved across the border of what is recorded"
            if where is None or to is None:
                real()
            else:
                self._do(self._step("rename", where, to=to), real)

        return call


@dataclass
class _Node:
    """A file or a folder: as it is, and what of it is durable."""

    is_folder: bool
    content: bytes = b""
    durable: bytes = b""
    entries: dict[str, "_Node"] = field(default_factory=dict)
    durable_entries: dict[str, "_Node"] = field(default_factory=dict)
    pending: list[tuple[int, str, str, "_Node | None"]] = field(default_factory=list)
    """Changes of names since the last fsync: number, name that goes, name that comes and what it names."""

    def change(self, number: int, goes: str, comes: str = "", node: "_Node | None" = None) -> None:
        self.pending.append((number, goes, comes, node))
        _apply(self.entries, goes, comes, node)

    def as_of(self, number: int) -> dict[str, "_Node"]:
        """The names when the changes before `number` have reached the disk."""
        entries = dict(self.durable_entries)
        for one, goes, comes, node in self.pending:
            if one < number:
                _apply(entries, goes, comes, node)
        return entries

    def sync(self) -> None:
        self.durable, self.durable_entries, self.pending = self.content, dict(self.entries), []


def _apply(entries: dict[str, _Node], goes: str, comes: str, node: _Node | None) -> None:
    entries.pop(goes, None)
    if node is not None:
        entries[comes] = node


Cut = tuple[Callable[[_Node, int], dict[str, _Node]], Callable[[_Node], bytes]]
"""What is found again: the names of a folder (at a depth), the bytes of a file."""


class Replay:
    """The disk after a number of steps. Begin with none and `apply` one after another."""

    def __init__(self, recorder: Recorder) -> None:
        self._root = _durable(recorder.initial)
        self._number = 0

    def apply(self, step: Step) -> None:
        node = self._root
        *folders, last = step.where or ("",)
        for name in folders:
            node = node.entries[name]
        self._number += 1
        match step.call:
            case "open" | "mkdir":
                node.change(self._number, "", last, _Node(step.call == "mkdir"))
            case "unlink" | "rmdir":
                node.change(self._number, last)
            case "rename":
                assert step.to[:-1] == step.where[:-1], f"{step.where} is moved to another folder"
                node.change(self._number, last, step.to[-1], node.entries[last])
            case "write":
                node.entries[last].content += step.data
            case "fsync":
                (node.entries[last] if step.where else node).sync()

    @property
    def tree(self) -> Tree:
        """What running programs see."""
        return _image(self._root, _kept)

    def images(self, seed: int, draws: int) -> Iterator[tuple[str, Tree]]:
        """What a power cut may leave, each with a word for it."""
        yield "nothing that was not made durable", _image(self._root, _strict)
        yield "the names, not the bytes", _image(self._root, (_kept[0], _strict[1]))
        yield "everything (a kill)", _image(self._root, _kept)
        yield "the names of the outer folders", _image(self._root, (_by_depth(outer=True), _strict[1]))
        yield "the names of the inner folders", _image(self._root, (_by_depth(outer=False), _kept[1]))
        for draw in range(draws):
            chance = random.Random(f"{seed} {draw}")
            yield f"draw {draw} of {seed}", _image(self._root, _drawn(chance, self._number, in_order=draw % 2 == 0))


def _by_depth(*, outer: bool) -> Callable[[_Node, int], dict[str, _Node]]:
    """The names in the run's folder and in checkpoints/, or those below, as a running program sees them."""
    return lambda folder, depth: folder.entries if (depth < 2) == outer else folder.durable_entries


def _drawn(chance: random.Random, steps: int, *, in_order: bool) -> Cut:
    """Changes of names up to a moment, one for all folders as a journal keeps them or one for each; some of the bytes.

    A file may also be found with its length but zeros where its bytes were not written yet.
    """
    moment = chance.randint(0, steps + 1)

    def entries(folder: _Node, depth: int) -> dict[str, _Node]:
        return folder.as_of(moment if in_order else chance.randint(0, steps + 1))

    def content(file: _Node) -> bytes:
        kept = file.content[: chance.randint(len(file.durable), len(file.content))]
        return kept.ljust(len(file.content), b"\0") if chance.random() < 0.3 else kept

    return entries, content


_strict: Cut = (lambda folder, depth: folder.durable_entries, lambda file: file.durable)
_kept: Cut = (lambda folder, depth: folder.entries, lambda file: file.content)


def _image(node: _Node, cut: Cut, depth: int = 0) -> Tree:
    return {
        name: _image(inner, cut, depth + 1) if inner.is_folder else cut[1](inner)
        for name, inner in sorted(cut[0](node, depth).items())
    }


def _durable(tree: Tree) -> _Node:
    node = _Node(True)
    for name, inner in tree.items():
        node.entries[name] = _durable(inner) if isinstance(inner, dict) else _Node(False, inner, inner)
    node.sync()
    return node


def read_tree(folder: Path) -> Tree:
    return {path.name: read_tree(path) if path.is_dir() else path.read_bytes() for path in sorted(folder.iterdir())}


def write_tree(tree: Tree, folder: Path) -> None:
    folder.mkdir(parents=True)
    for name, inner in tree.items():
        if isinstance(inner, dict):
            write_tree(inner, folder / name)
        else:
            (folder / name).write_bytes(inner)
