"""The last line: how honest the picture is on the left, which keys do what on the right."""

from collections.abc import Iterable, Sequence

from rich.cells import cell_len
from textual.strip import Strip

from qig_tui.picture import RunPicture
from qig_tui.text import ABSENT, duration, grouped, percent, safe, size
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
        self._needed = 0

    def show(self, picture: RunPicture, keys: Sequence[tuple[str, str]], *, needed: int) -> None:
        """Args: keys: the most needed first; needed: how many of them are shown at any width, if without a word."""
        self._picture, self._keys, self._needed = picture, keys, needed
        self.redraw()

    def lines(self, width: int, height: int) -> Iterable[Strip]:
        if self._picture is None:
            return []
        needed = list(self._keys[: self._needed])
        worded = sum(cell_len(key) + cell_len(label) + 3 for key, label in needed)
        left = _honesty(self._picture, width, width - worded)
        if sum(cell_len(text) for _, text in left) + sum(cell_len(key) + 2 for key, _ in needed) > width - 2:
            left = []
        room = width - sum(cell_len(text) for _, text in left) - 3
        right: list[Part] = []
        for index, (key, label) in enumerate(self._keys):
            gap = 2 if right else 0
            kept = sum(cell_len(later) + 2 for later, _ in needed[index + 1 :])
            word = f" {label}" if gap + cell_len(key) + cell_len(label) + 1 + kept <= room else ""
            if not word and index >= len(needed):
                break
            right += [("text", " " * gap), ("strong", key), ("dim", word)]
            room -= gap + cell_len(key) + cell_len(word)
        return [self.strip(("text", " "), *left, ("text", " " * max(room + 1, 0)), *right, width=width)]


def _honesty(picture: RunPicture, width: int, room: int) -> list[Part]:
    history = picture.history
    bad = history.bad + picture.journal.bad
    if picture.problem is not None:
        return [("critical", f"! {safe(picture.problem, max(room - 6, 10))}")]
    if width < 60:
        return [("dim", f"{grouped(history.read)} read"), *([("warning", f" · {bad} bad")] if bad else [])]
    parts: list[Part] = [
        ("dim", f"{grouped(history.read)} read · "),
        ("warning" if bad else "dim", f"{grouped(bad)} bad"),
        ("dim", " · "),
        ("warning" if history.late else "dim", f"{grouped(history.late)} late"),
    ]
    if history.dropped_metrics:
        parts.append(("warning", f" · {grouped(len(history.dropped_metrics))} metrics left out"))
    if picture.backfilled is not None:
        parts.append(("accent", f" · reading earlier steps {percent(picture.backfilled)}"))
    if width >= 100 and not picture.ended:
        rate = ABSENT if picture.bytes_per_s is None else f"{size(picture.bytes_per_s)}/s"
        lag = "" if picture.lag_s is None or not picture.watched else f" · lag {duration(picture.lag_s)}"
        parts.append(("dim", f"{lag} · file {rate}"))
    return parts
