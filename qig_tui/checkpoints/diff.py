"""What `qig-core checkpoints diff` found, as lines to read. No Textual; nothing that stands in it is trusted."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.cells import cell_len
from rich.text import Text

from qig_tui.checkpoints.columns import written
from qig_tui.text import ABSENT, clip, duration, grouped, number, pad, pad_left, safe, thin_bar

_MOST = 400
"""Rows of a kind that are shown."""
_BAR = 10
_KEY = 14


def diff_text(result: Mapping[str, Any], width: int, now: float) -> Text:
    """The whole comparison in so many cells: basins first, then tensors by how much they changed, then the rest."""
    text = Text()
    tensors = _dict(result.get("tensors"))
    _line(text, "A", safe(result.get("a"), width))
    _line(text, "B", safe(result.get("b"), width))
    _line(text, "basin", _basin(_dict(result.get("basin"))))
    _line(text, "tensors", _counts(tensors))
    state = _dict(result.get("state"))
    _line(text, "plain state", _state(state))
    if result.get("equal") is True:
        text.append("\n● Tensors and plain state are the same, bit by bit.\n", style="bold")
    _tensors(text, _rows(tensors.get("changed")), width)
    _others(text, tensors, width)
    _table(text, "METRICS", ("metric", "A", "B", "B − A"), _metrics(_rows(result.get("metrics"))), width)
    sides = [(row.get("id"), row.get("a"), row.get("b")) for row in _rows(result.get("conditions"))]
    _table(text, "CONDITIONS", ("condition", "A", "B"), sides, width)
    facts = [(row.get("name"), _fact(row, "a", now), _fact(row, "b", now)) for row in _rows(result.get("facts"))]
    _table(text, "FACTS", ("fact", "A", "B"), facts, width)
    paths = [(row.get("path"), row.get("a"), row.get("b")) for row in _rows(state.get("paths"))]
    _table(text, "PLAIN STATE", ("path", "A", "B"), paths, width)
    text.rstrip()
    return text


def by_change(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The largest relative change first; those without one after them, by how many of their elements differ."""

    def place(row: dict[str, Any]) -> tuple[bool, float, float, str]:
        change = _float(row.get("relative_change"))
        return change is None, -(change or 0.0), -(_float(row.get("differing")) or 0.0), str(row.get("name"))

    return sorted(rows, key=place)


def _tensors(text: Text, rows: Sequence[dict[str, Any]], width: int) -> None:
    if not rows:
        return
    order = by_change(rows)
    largest = max((_float(row.get("relative_change")) or 0.0 for row in order), default=0.0)
    longest = max(cell_len(safe(row.get("name"), 48)) for row in order[:_MOST])
    name = max(min(width - 60, longest), 16)
    text.append("\n" + clip("TENSORS that changed, by |A − B| / |A|", width) + "\n", style="bold")
    head = f"{pad('', name)} {pad_left('|A−B|/|A|', 10)} {pad('', _BAR)} {pad_left('max |A−B|', 10)}"
    head = f"{head} {pad_left('|A|', 9)} {pad_left('|B|', 9)}"
    text.append(f"{clip(head, width)}\n", style="dim")
    for row in order[:_MOST]:
        change = _float(row.get("relative_change"))
        share = change / largest if change is not None and largest > 0 and math.isfinite(largest) else 0.0
        filled, rest = thin_bar(share, _BAR)
        text.append(f"{pad(safe(row.get('name'), name), name)} ")
        text.append(f"{pad_left(number(change), 10)} ", style="bold")
        text.append(filled)
        text.append(f"{rest} ", style="dim")
        if change is None:
            said = f"{_count(row.get('differing'))} of {_count(row.get('elements'))} elements differ"
            said += f"; {safe(row['reason'], 60)}" if row.get("reason") else ""
            text.append(f"{pad(safe(said, 120), max(width - name - _BAR - 13, 0))}\n", style="dim")
        else:
            more = f"{pad_left(number(_float(row.get('max_abs_change'))), 10)} "
            norms = " ".join(pad_left(number(_float(row.get(key))), 9) for key in ("norm_a", "norm_b"))
            text.append(pad(more + norms, max(width - name - _BAR - 13, 0)) + "\n")
    if len(order) > _MOST:
        text.append(f"and {grouped(len(order) - _MOST)} more: qig-core checkpoints diff shows all\n", style="dim")


def _others(text: Text, tensors: Mapping[str, Any], width: int) -> None:
    """Tensors that only one side has, or that are of another type or shape there."""
    rows: list[tuple[object, ...]] = [
        (row.get("name"), _type(row.get("a")), _type(row.get("b"))) for row in _rows(tensors.get("retyped"))
    ]
    rows += [(row.get("name"), _type(row), None) for row in _rows(tensors.get("only_a"))]
    rows += [(row.get("name"), None, _type(row)) for row in _rows(tensors.get("only_b"))]
    _table(text, "TENSORS of another shape, or on one side only", ("tensor", "A", "B"), rows, width)


def _table(text: Text, title: str, head: tuple[str, ...], rows: Sequence[tuple[object, ...]], width: int) -> None:
    if not rows:
        return
    first = max(min(width // 3, 40), 12)
    cells = max((width - first - len(head)) // (len(head) - 1), 8)
    text.append(f"\n{clip(title, width)}\n", style="bold")
    text.append(pad(head[0], first) + "".join(f" {pad(word, cells)}" for word in head[1:]) + "\n", style="dim")
    for row in rows[:_MOST]:
        text.append(pad(safe(row[0], first), first))
        text.append("".join(f" {pad(_cell(value, cells), cells)}" for value in row[1:]) + "\n")
    if len(rows) > _MOST:
        text.append(f"and {grouped(len(rows) - _MOST)} more\n", style="dim")


def _cell(value: object, cells: int) -> str:
    return ABSENT if value is None else number(value) if isinstance(value, float) else safe(value, cells)


def _line(text: Text, key: str, value: str) -> None:
    text.append(pad(key, _KEY), style="dim")
    text.append(f"{value}\n")


def _state(state: Mapping[str, Any]) -> str:
    paths = state.get("differing")
    return "equal" if state.get("equal") else f"differs at {_count(paths)} {'path' if paths == 1 else 'paths'}"


def _basin(basin: Mapping[str, Any]) -> str:
    distance = _float(basin.get("distance_rad"))
    if distance is None:
        return f"{ABSENT} ({safe(basin.get('reason') or 'not compared', 120)})"
    return f"{number(distance)} rad apart (Fisher–Rao)"


def _counts(tensors: Mapping[str, Any]) -> str:
    kinds = {"changed": "changed", "retyped": "of another shape or type", "only_a": "only in A", "only_b": "only in B"}
    counts = [(len(_rows(tensors.get(key))), words) for key, words in kinds.items()]
    said = [f"{_count(tensors.get('equal'))} equal bit by bit"]
    return ", ".join(said + [f"{grouped(count)} {words}" for count, words in counts if count])


def _metrics(rows: Sequence[dict[str, Any]]) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = []
    for row in rows:
        kinds = _dict(row.get("nonfinite"))
        sides = [kinds.get(side) or number(_float(row.get(side))) for side in ("a", "b")]
        found.append((row.get("name"), *sides, number(_float(row.get("difference")))))
    return found


def _fact(row: Mapping[str, Any], side: str, now: float) -> object:
    value = row.get(side)
    number_there = _float(value)
    if row.get("name") == "t" and number_there is not None:
        return written(number_there, now)
    return duration(number_there) if row.get("name") == "training_s" and number_there is not None else value


def _type(row: object) -> str:
    found = _dict(row)
    return f"{found.get('dtype')} {found.get('shape')}"


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _rows(value: object) -> list[dict[str, Any]]:
    return list(_only_rows(value)) if isinstance(value, list) else []


def _only_rows(values: Sequence[object]) -> Iterator[dict[str, Any]]:
    for value in values:
        if isinstance(value, dict):
            yield value


def _float(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _count(value: object) -> str:
    return grouped(value) if isinstance(value, int) else ABSENT
