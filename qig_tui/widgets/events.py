"""What happened, newest first: by severity and by words, with routine folded."""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.strip import Strip

from qig_core.rundir.schema import Event
from qig_tui.events_filter import LEVELS, Listing, NotUnderstood, Row, parse
from qig_tui.journal import SEVERITY_GLYPHS, at_step, sentence
from qig_tui.text import clip, clock, grouped, pad, pad_left, safe
from qig_tui.widgets.lines import Lines, Part

_TONES = {"info": "dim", "warning": "warning", "critical": "critical"}
_KIND, _STEP = 10, 8
_LEVEL_TONES = dict(zip(LEVELS, ("dim", "warning", "critical"), strict=True))


class EventList(Lines, can_focus=True):
    """At the top it follows; anywhere else it stays at its place while newer ones come, and says how many."""

    KEYS: ClassVar[tuple[Binding, ...]] = (
        Binding("v", "severity", "severity", tooltip="All events, warnings and critical ones, or critical ones only"),
        Binding("f", "ask_filter", "find events", tooltip="Filter the events by words, kind, severity or step"),
    )
    """For the screen to bind and to hand back: a widget's own BINDINGS work only while the focus is within it."""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "move(-1)", "newer", show=False),
        Binding("down", "move(1)", "older", show=False),
        Binding("pageup", "page(-1)", "a page newer", show=False),
        Binding("pagedown", "page(1)", "a page older", show=False),
        Binding("home", "newest", "newest", tooltip="To the newest event, following", show=False),
        Binding("end", "oldest", "oldest", show=False),
        Binding("enter", "choose", "whole event", tooltip="All that is recorded of the event", show=False),
        Binding("escape", "leave", "leave the events", show=False),
    ]

    class Chosen(Message):
        """Somebody wants to see all of an event."""

        def __init__(self, event: Event, count: int) -> None:
            super().__init__()
            self.event = event
            self.count = count
            """How many of its kind stand in its row; it is the newest of them."""

    class FilterWanted(Message):
        """Somebody wants to type a filter."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._aside = ""
        self._events: Sequence[Event] = ()
        self._listing = Listing()
        self._top = 0
        """The row in the first line, and the one that the keys are at, counted from the newest."""
        self._at = 0

    def show(self, found: Sequence[Event], aside: str = "") -> None:
        """The events so far, the oldest first; cheap where none has come.

        Args:
            aside: what else stands in the heading, of a panel for which there is no room.
        """
        if aside != self._aside:
            self._aside = aside
            self._draw()
        if self._listing.knows(found):
            return
        self._events = found
        for rows in self._listing.follow(found):
            if self._top or self._at:
                self._top += self._top < rows
                self._at += self._at < rows
        self._draw()

    def filter(self, text: str) -> str | None:
        """Show the events that a filter matches; what is wrong with it in a sentence, and the one before stays."""
        try:
            wanted = parse(text)
        except NotUnderstood as error:
            return str(error)
        if wanted.text != self._listing.wanted.text:
            self._listing.choose(self._events, wanted=wanted)
            self.action_newest()
        return None

    def lines(self, width: int, height: int) -> Iterable[Strip]:
        rows = self._listing.rows
        yield self._title(width)
        if not rows:
            words = f"none of {grouped(self._listing.total)} is shown" if self._listing.total else "nothing yet"
            yield self.strip(("dim", words))
        shown = islice(reversed(rows), self._top, self._top + height - 1)
        for number, row in enumerate(shown, self._top):
            yield self._row(row, width, marked=self.has_focus and number == self._at)

    def _title(self, width: int) -> Strip:
        listing = self._listing
        left: list[Part] = [("strong", "EVENTS")]
        if listing.level != LEVELS[0]:
            left.append((_LEVEL_TONES[listing.level], f"  {listing.level}"))
        if listing.wanted.tests:
            left.append(("accent", f"  '{clip(safe(listing.wanted.text), max(width // 3, 8))}'"))
        above = f"{grouped(self._top)} newer above · " if self._top else ""
        part = f"{grouped(listing.shown)} of " if listing.is_chosen else ""
        return self.heading(width, left, [("dim", f"{self._aside}{above}{part}{grouped(listing.total)}")])

    def _row(self, row: Row, width: int, *, marked: bool) -> Strip:
        event = row.event
        tone = _TONES.get(event.severity, "dim")
        glyph = SEVERITY_GLYPHS.get(event.severity, "·")
        loud = "text" if tone == "dim" else tone
        kind = pad(safe(event.kind, _KIND), _KIND)
        at = at_step(event) if row.count == 1 else f"×{grouped(row.count)}"
        front = f"{clock(event.t)} " if width >= 34 else ""
        if width >= 70:
            step = pad_left(at, _STEP) + "  "
        else:
            step = "" if row.count == 1 else f"{at}  "
        used = len(front) + 2 + _KIND + 1 + len(step)
        return self.strip(
            ("dim", front),
            (tone, glyph),
            ("cursor", "▸" if marked else " "),
            (loud, f"{kind} "),
            ("dim", step),
            (loud, pad(_said(row), max(width - used, 0))),
            width=width,
        )

    @property
    def _room(self) -> int:
        return max(self.size.height - 1, 1)

    def _draw(self) -> None:
        """Draw the place that is looked at, or the nearest that there is; out of sight the place stays what it was."""
        if not self.size.height:
            return
        count, room = len(self._listing.rows), self._room
        self._at = max(min(self._at, count - 1), 0)
        self._top = min(max(self._top, self._at - room + 1), self._at, max(count - room, 0))
        self.redraw()

    def _scroll(self, rows: int) -> None:
        """Move what is in sight, and the place of the keys with it."""
        self._top = min(max(self._top + rows, 0), max(len(self._listing.rows) - self._room, 0))
        # Back at the top it follows again, wherever the keys were.
        self._at = (
            min(max(self._at, self._top), self._top + self._room - 1) if self._top and self.has_focus else self._top
        )
        self._draw()

    def on_resize(self, event: events.Resize) -> None:
        self._draw()

    def on_focus(self) -> None:
        self.redraw()

    def on_blur(self) -> None:
        self._at = self._top
        self.redraw()

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self._scroll(2)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self._scroll(-2)

    def on_click(self, event: events.Click) -> None:
        event.stop()
        row = self._top + event.y - 1
        if event.y and row < len(self._listing.rows):
            self._at = row
            self._draw()
            self.action_choose()

    def action_severity(self) -> None:
        """All, warnings and worse, critical only, in a circle."""
        following = LEVELS[(LEVELS.index(self._listing.level) + 1) % len(LEVELS)]
        self._listing.choose(self._events, level=following)
        self.action_newest()

    def action_ask_filter(self) -> None:
        self.post_message(self.FilterWanted())

    def action_move(self, rows: int) -> None:
        self._at += rows
        self._top = min(self._top, max(self._at, 0))
        self._draw()

    def action_page(self, pages: int) -> None:
        self.action_move(pages * self._room)

    def action_newest(self) -> None:
        self._top = self._at = 0
        self._draw()

    def action_oldest(self) -> None:
        self.action_move(len(self._listing.rows))

    def action_choose(self) -> None:
        rows = self._listing.rows
        if rows:
            row = rows[-1 - self._at]
            self.post_message(self.Chosen(row.event, row.count))

    def action_leave(self) -> None:
        self.screen.set_focus(None)


def _said(row: Row) -> str:
    """An event's sentence, or what there is to say of all in a row."""
    if row.count == 1:
        return sentence(row.event)
    if row.event.kind == "pruned":
        # Their steps are when it was done, not what is gone.
        return row.reason or ""
    steps = [grouped(step) for step in (row.first_step, row.last_step) if step is not None]
    where = "" if not steps else f"step {steps[0]}" if steps[0] == steps[-1] else f"steps {steps[0]} … {steps[-1]}"
    if row.event.kind == "ocean":
        return f"{where}; the newest: {sentence(row.event)}"
    return ", ".join(part for part in (where, row.reason) if part)
