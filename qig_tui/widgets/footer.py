"""The last line: how honest the picture is on the left, which keys do what on the right."""

from collections.abc import Iterable, Sequence

from rich.cells import cell_len
from textual.strip import Strip

from qig_tui.picture import RunPicture
from qig_tui.text import duration, grouped, percent, safe, size
from qig_tui.widgets.lines import Lines, Part


class HonestyFooter(Lines):
    """A count that is not zero and should be is shown as a warning."""

    DEFAULT_CSS = """
    HonestyFooter { height: 1; background: $panel; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._picture: RunPicture | None = None
        self._keys: Sequence[tuple[str, str]] = ()

    def show(self, picture: RunPicture, keys: Sequence[tuple[str, str]]) -> None:
        self._picture, self._keys = picture, keys
        self.redraw()

    def lines(self, width: int, height: int) -> Iterable[Strip]:
        if self._picture is None:
            return []
        left = _honesty(self._picture, width)
        room = width - sum(cell_len(text) for _, text in left) - 3
        right: list[Part] = []
        for key, label in self._keys:
            need = cell_len(key) + cell_len(label) + 1 + (2 if right else 0)
            if need > room:
                break
            right += [("text", "  " if right else ""), ("strong", key), ("dim", f" {label}")]
            room -= need
        return [self.strip(("text", " "), *left, ("text", " " * (room + 1)), *right, width=width)]


def _honesty(picture: RunPicture, width: int) -> list[Part]:
    history = picture.history
    bad = history.bad + picture.journal.bad
    if picture.problem is not None:
        return [("critical", f"! {safe(picture.problem, max(width - 6, 10))}")]
    if width < 60:
        return [("dim", f"{grouped(history.read)} read"), *([("warning", f" · {bad} bad")] if bad else [])]
    parts: list[Part] = [
        ("dim", f"{grouped(history.read)} read · "),
        ("warning" if bad else "dim", f"{grouped(bad)} bad"),
        ("dim", " · "),
        ("warning" if history.late else "dim", f"{grouped(history.late)} late"),
    ]
    if picture.backfilled is not None:
        parts.append(("accent", f" · reading earlier steps {percent(picture.backfilled)}"))
    if width >= 100 and not picture.ended:
        lag = "" if picture.lag_s is None else f" · lag {duration(picture.lag_s)}"
        parts.append(("dim", f"{lag} · {size(picture.bytes_per_s)}/s"))
    return parts
