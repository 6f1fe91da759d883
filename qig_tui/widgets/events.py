"""What happened, newest first."""

from collections.abc import Iterable, Sequence
from itertools import islice

from textual import events
from textual.strip import Strip

from qig_core.rundir.schema import Event
from qig_tui.journal import SEVERITY_GLYPHS, at_step, sentence
from qig_tui.text import clock, grouped, pad, pad_left, safe
from qig_tui.widgets.lines import Lines

_TONES = {"info": "dim", "warning": "warning", "critical": "critical"}


class EventList(Lines):
    """The wheel scrolls; at the top it follows."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._events: Sequence[Event] = ()
        self._offset = 0
        self._mark: tuple[int, int] | None = None

    def show(self, found: Sequence[Event]) -> None:
        mark = (len(found), found[-1].seq if found else -1)
        if mark != self._mark:
            self._mark, self._events = mark, found
            self.redraw()

    def lines(self, width: int, height: int) -> Iterable[Strip]:
        count = len(self._events)
        self._offset = min(self._offset, max(count - height + 1, 0))
        above = f"{self._offset} newer above  " if self._offset else ""
        yield self.heading(width, [("strong", "EVENTS")], [("dim", f"{above}{grouped(count)}")])
        if not count:
            yield self.strip(("dim", "nothing yet"))
        for event in islice(reversed(self._events), self._offset, self._offset + height - 1):
            yield self._row(event, width)

    def _row(self, event: Event, width: int) -> Strip:
        tone = _TONES.get(event.severity, "dim")
        glyph = SEVERITY_GLYPHS.get(event.severity, "·")
        loud = "text" if tone == "dim" else tone
        kind = pad(safe(event.kind, 10), 10)
        step = pad_left(at_step(event), 8) + "  " if width >= 70 else ""
        front = f"{clock(event.t)} " if width >= 34 else ""
        used = len(front) + 2 + 11 + len(step)
        return self.strip(
            ("dim", front),
            (tone, f"{glyph} "),
            (loud, f"{kind} "),
            ("dim", step),
            ("text" if tone == "dim" else tone, pad(sentence(event), max(width - used, 0))),
            width=width,
        )

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self._offset += 2
        self.redraw()

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self._offset = max(self._offset - 2, 0)
        self.redraw()
