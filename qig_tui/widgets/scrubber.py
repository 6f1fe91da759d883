"""One line over the whole run: where in it one looks, and what happened where. There while somebody is in the past."""

from collections.abc import Iterable, Sequence

from rich.cells import cell_len
from textual import events
from textual.message import Message
from textual.strip import Strip

from qig_tui.text import clock, grouped
from qig_tui.travel import Mark
from qig_tui.view import Ends
from qig_tui.widgets.lines import Lines, Part

_SHAPES = {"checkpoint": ("◆", "accent", 1), "restored": ("↩", "warning", 2), "soft_reset": ("↩", "warning", 2)}
_ALARMS = {"warning": ("▲", "warning", 3), "critical": ("✖", "critical", 4)}
_LEAST = 16
"""Cells that the line must be long to be worth its place."""


class Scrubber(Lines):
    """A click goes to a step, pulling goes on with it."""

    DEFAULT_CSS = """
    Scrubber { height: 1; background: $panel; display: none; }
    Scrubber.-past { display: block; }
    """

    class Wanted(Message):
        """A step was pointed at."""

        def __init__(self, step: int) -> None:
            super().__init__()
            self.step = step

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._ends: Ends = (0, 1)
        self._step: int | None = None
        self._t = 0.0
        self._marks: Sequence[Mark] = ()
        self._speed: int | None = None
        self._line = (0, 1)
        """Where the line begins, and its cells."""
        self._is_held = False

    def show(self, ends: Ends, step: int | None, t: float, marks: Sequence[Mark], speed: int | None) -> None:
        """Args: step: None: nobody is in the past. speed: of the replay; None: none runs."""
        self._ends, self._step, self._t, self._marks, self._speed = ends, step, t, marks, speed
        self.set_class(step is not None, "-past")
        if step is not None:
            self.redraw()

    def lines(self, width: int, height: int) -> Iterable[Strip]:
        if self._step is None:
            return []
        low, high = self._ends
        head: list[Part] = [("cursor", f" ◀ {clock(self._t)}"), ("dim", "  step "), ("strong", grouped(self._step))]
        state = "‖" if self._speed is None else f"▶ {self._speed}×"
        tail: list[Part] = [("dim", f" {grouped(high)}  "), ("cursor", state), ("text", " ")]
        room = width - sum(cell_len(text) for _, text in [*head, *tail]) - 2
        if room < _LEAST:
            return [self.strip(*head, width=width)]
        start = width - room - sum(cell_len(text) for _, text in tail)
        self._line = (start, room)
        cells: list[tuple[str, str, int]] = [("─", "faint", 0)] * room
        here = self._cell(self._step, room)
        cells[:here] = [("━", "accent", 0)] * here
        for mark in self._marks:
            at = self._cell(mark.step, room)
            shape = _ALARMS.get(mark.severity) or _SHAPES.get(mark.kind)
            if low <= mark.step <= high and shape is not None and shape[2] > cells[at][2]:
                cells[at] = shape
        cells[here] = ("●", "cursor", 9)
        return [self.strip(*head, ("text", "  "), *((tone, text) for text, tone, _ in cells), *tail, width=width)]

    def _cell(self, step: int, room: int) -> int:
        low, high = self._ends
        return min(max((step - low) * (room - 1) // max(high - low, 1), 0), room - 1)

    def _want(self, x: int) -> None:
        start, room = self._line
        low, high = self._ends
        share = min(max((x - start) / max(room - 1, 1), 0.0), 1.0)
        self.post_message(self.Wanted(low + round(share * (high - low))))

    def on_mouse_down(self, event: events.MouseDown) -> None:
        self._is_held = True
        self.capture_mouse()
        self._want(event.x)

    def on_mouse_move(self, event: events.MouseMove) -> None:
        if self._is_held:
            self._want(event.x)

    def on_mouse_up(self) -> None:
        self._is_held = False
        self.release_mouse()
