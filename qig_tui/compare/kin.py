"""How runs descend from one another: forks as a tree, sessions and rewinds beneath each run. Pure; lines of parts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len

from qig_core.rundir.lineage import Lineage, WentBack
from qig_tui.text import clip, grouped, safe

Part = tuple[str, str]
_MOST_LINES = 6
"""Of one kind beneath a run, the newest."""
_HOW = {"restore": "restored by a command", "soft_reset": "soft reset"}


@dataclass(frozen=True, kw_only=True)
class Member:
    """One of the runs that are compared."""

    id: str
    name: str
    letter: str
    tone: str
    state: str
    first: int | None
    last: int | None
    """Steps, where it has any."""
    lineage: Lineage | None
    note: str = ""
    """Why it cannot be read."""


@dataclass
class _Node:
    id: str
    member: Member | None = None
    from_step: int | None = None
    from_checkpoint: str | None = None
    problem: str = ""
    children: list["_Node"] = field(default_factory=list)


@dataclass(frozen=True)
class KinLine:
    """One line of the tree."""

    left: list[Part]
    member: Member | None = None
    """On the line that names it: whose bar is drawn beside it."""
    forks: tuple[int, ...] = ()
    """Steps at which another run goes on from it."""
    is_fork: bool = False


def family(members: Sequence[Member]) -> list[KinLine]:
    """The tree, a run below the one it was forked from; those that descend from no other stand at the left edge."""
    lines: list[KinLine] = []
    met: set[str] = set()
    for root in _roots(members):
        lines += _drawn(root, "", "", met)
    return lines


def _roots(members: Sequence[Member]) -> list[_Node]:
    nodes: dict[str, _Node] = {}
    parents: dict[str, str] = {}
    for member in members:
        nodes.setdefault(member.id, _Node(member.id)).member = member
        lineage = member.lineage
        below = nodes[member.id]
        if lineage is None:
            continue
        began = lineage.sessions[0] if lineage.sessions else None
        for depth, ancestor in enumerate(lineage.ancestors):
            if below.id in parents:
                break
            parents[below.id] = ancestor.run
            below.from_checkpoint = ancestor.checkpoint
            if depth == 0 and began is not None:
                below.from_step = began.step
            above = nodes.setdefault(ancestor.run, _Node(ancestor.run))
            above.problem = ancestor.problem
            above.children.append(below)
            below = above
    roots = [node for node in nodes.values() if node.id not in parents]
    # In a circle everybody has a parent: it is cut where it is met first.
    reached = {node.id for root in roots for node in _all(root, set())}
    for node in nodes.values():
        if node.id not in reached:
            roots.append(node)
            reached |= {one.id for one in _all(node, set())}
    return roots


def _all(node: _Node, met: set[str]) -> Iterator[_Node]:
    todo = [node]
    while todo:
        one = todo.pop()
        if one.id not in met:
            met.add(one.id)
            yield one
            todo += one.children


def _drawn(root: _Node, prefix: str, branch: str, met: set[str]) -> list[KinLine]:
    lines: list[KinLine] = []
    todo = [(root, prefix, branch)]
    while todo:
        node, prefix, branch = todo.pop()
        if node.id in met:
            lines.append(KinLine([("dim", f"{prefix}{branch}"), ("dim", f"{safe(node.id, 40)}: met before, a circle")]))
            continue
        met.add(node.id)
        children = node.children
        forks = tuple(child.from_step for child in children if child.from_step is not None)
        lines.append(KinLine(_named(node, prefix + branch), node.member, forks, is_fork=bool(branch)))
        below = prefix + {"├─ ": "│  ", "└─ ": "   ", "": ""}[branch]
        stem = "│  " if children else "   "
        if node.member is not None and node.member.lineage is not None:
            for words in _story(node.member.lineage):
                lines.append(KinLine([("dim", f"{below}{stem}"), ("dim", words)]))
        for i, child in reversed(list(enumerate(children))):
            todo.append((child, below, "└─ " if i + 1 == len(children) else "├─ "))
    return lines


def _named(node: _Node, before: str) -> list[Part]:
    member = node.member
    at = "" if node.from_step is None else f" at {grouped(node.from_step)}"
    fork: list[Part] = []
    if before and node.from_checkpoint:
        fork = [("dim", f"  {safe(node.from_checkpoint, 40)}")]
    if member is None:
        why = f": {node.problem}" if node.problem else ""
        said_of: Part = ("dim", f"  not compared{why}")
        return [("dim", before), ("dim", f"○ {safe(node.id, 60)}{'  fork' + at if before else ''}"), *fork, said_of]
    steps = f"  fork{at}" if before else ""
    if member.first is not None and member.last is not None:
        first = steps if steps and node.from_step is not None else f"{steps}  {grouped(member.first)}"
        steps = f"{first} → {grouped(member.last)}"
    said: Part = ("critical", f"  ✖ {member.note}") if member.note else ("dim", f"  {member.state}")
    named: list[Part] = [("dim", before), (member.tone, f"━ {member.letter} "), ("strong", member.name)]
    return [*named, ("text", steps), said, *fork]


def _story(lineage: Lineage) -> list[str]:
    """Its later sessions and its rewinds, in the order of time."""
    told = [(back.t, _went_back(back)) for back in lineage.went_back]
    for number, session in enumerate(lineage.sessions[1:], start=2):
        origin = "the beginning" if session.checkpoint is None else safe(session.checkpoint, 40)
        at = "" if session.step is None else f", step {grouped(session.step)}"
        told.append((session.t, f"↻ session {number} from {origin}{at}"))
    told.sort(key=lambda one: one[0])
    left_out = len(told) - _MOST_LINES
    return ([f"… {left_out} earlier"] if left_out > 0 else []) + [words for _, words in told[-_MOST_LINES:]]


def _went_back(back: WentBack) -> str:
    left, to = ("?" if step is None else grouped(step) for step in (back.from_step, back.to_step))
    how = _HOW.get(back.how, safe(back.how, 24))
    return f"↩ {left} → {to}  {how}" + (f", {safe(back.checkpoint, 40)}" if back.checkpoint else "")


def bar_of(line: KinLine, cells: int, ends: tuple[int, int]) -> list[Part]:
    """The steps of a run as a line on the axis of all; a tick where it was forked, an arrow where it went back to."""
    member = line.member
    if member is None or member.first is None or member.last is None or cells < 2:
        return []
    low, high = ends
    span = max(high - low, 1)

    def cell(step: int) -> int:
        return min(max((step - low) * (cells - 1) // span, 0), cells - 1)

    start, end = cell(member.first), cell(member.last)
    row = ["┗" if line.is_fork else "━", *["━"] * (end - start)]
    back: Mapping[int, str] = {}
    if member.lineage is not None:
        back = {cell(b.to_step): "↩" for b in member.lineage.went_back if b.to_step is not None}
    for at, mark in {**{cell(step): "┳" for step in line.forks}, **back}.items():
        if start <= at <= end:
            row[at - start] = mark
    return [("text", " " * start), (member.tone, "".join(row)), ("text", " " * (cells - 1 - end))]


def clipped(parts: Sequence[Part], cells: int) -> list[Part]:
    """The parts in exactly so many cells."""
    out: list[Part] = []
    rest = sum(cell_len(text) for _, text in parts)
    if rest <= cells:
        return [*parts, ("text", " " * (cells - rest))]
    for tone, text in parts:
        rest -= cell_len(text)
        if cell_len(text) >= cells or rest == 0:
            out.append((tone, clip(f"{text}{'…' if rest else ''}", cells)))
            return [*out, ("text", " " * (cells - cell_len(out[-1][1])))]
        out.append((tone, text))
        cells -= cell_len(text)
    return out
