"""The pages below the charts of a comparison: one at a time, with a cursor that each page keeps. Draws only."""

from collections.abc import Iterable, Sequence
from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding
from textual.message import Message
from textual.strip import Strip

from qig_tui.compare.pages import Page
from qig_tui.text import grouped
from qig_tui.widgets.hued import Hued
from qig_tui.widgets.lines import Part

_CURSOR = "▸"


class ComparePanel(Hued):
    """A line of the pages' names, the page's header, and its rows as far as there is room."""

    KEYS: ClassVar[tuple[Binding, ...]] = (
        Binding("tab", "turn(1)", "page", tooltip="Runs, differences of configuration, lineage"),
        Binding("shift+tab", "turn(-1)", "page before", show=False, tooltip="The page before"),
        Binding("up,k", "move(-1)", "up", key_display="↑", tooltip="The row above"),
        Binding("down,j", "move(1)", "down", key_display="↓", tooltip="The row below"),
        Binding("pageup", "page(-1)", "page up", tooltip="A screenful of rows up"),
        Binding("pagedown", "page(1)", "page down", tooltip="A screenful of rows down"),
    )
    """For the screen to bind and to hand back: nothing here has the focus."""
    DEFAULT_CSS = """
    ComparePanel { height: 1fr; background: $background; }
    ComparePanel > .panel--cursor { background: $primary 22%; }
    ComparePanel:ansi > .panel--cursor { background: ansi_default; text-style: reverse; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {"panel--cursor"}

    class Moved(Message):
        """The cursor stands on another row."""

    class Turned(Message):
        """Another page is in sight."""

    class Opened(Message):
        """A row was clicked twice."""

    def __init__(self, pages: Sequence[Page], *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._pages = pages
        self._at = 0
        self._cursors = [0] * len(pages)
        self._tops = [0] * len(pages)
        self._count = 0
        self._names: list[tuple[int, int]] = []
        """From which cell to which each page's name stands."""

    @property
    def page(self) -> Page:
        return self._pages[self._at]

    @property
    def cursor(self) -> int:
        """The row that the cursor stands on."""
        return self._cursors[self._at]

    def turn(self, page: int) -> None:
        self._at = page % len(self._pages)
        self.redraw()
        self.post_message(self.Turned())

    def action_turn(self, pages: int) -> None:
        self.turn(self._at + pages)

    def action_move(self, rows: int) -> None:
        self.go_to(self.cursor + rows)

    def action_page(self, pages: int) -> None:
        self.go_to(self.cursor + pages * max(self.room - 1, 1))

    def go_to(self, row: int) -> None:
        """Set the cursor on a row; beyond an end is the end."""
        before = self.cursor
        self._cursors[self._at] = min(max(row, 0), max(self._count - 1, 0))
        self.redraw()
        if self.cursor != before:
            self.post_message(self.Moved())

    @property
    def height_wanted(self) -> int:
        """Lines that the page takes, and one below."""
        return self.page.wanted() + 3

    @property
    def room(self) -> int:
        """How many rows are in sight."""
        return max(self.size.height - 2, 1)

    def lines(self, width: int, height: int) -> Iterable[Strip]:
        yield self._tabs(width)
        page = self.page
        yield self.strip(*page.header(width), width=width)
        rows = page.rows(width)
        self._count = len(rows)
        room = max(height - 2, 1)
        cursor = self._cursors[self._at] = min(self.cursor, max(len(rows) - 1, 0))
        top = min(max(self._tops[self._at], cursor - room + 1, 0), cursor, max(len(rows) - room, 0))
        self._tops[self._at] = top
        highlight = self.get_component_rich_style("panel--cursor")
        shade = Style(bgcolor=highlight.bgcolor, reverse=highlight.reverse)
        for y, parts in enumerate(rows[top : top + room], start=top):
            mark = ("strong", f"{_CURSOR} ") if y == cursor else ("text", "  ")
            strip = self.strip(mark, *parts, width=width)
            if y == cursor:
                strip = Strip([Segment(s.text, s.style + shade if s.style else shade) for s in strip])
            yield strip

    def _tabs(self, width: int) -> Strip:
        parts: list[Part] = []
        self._names = []
        for i, page in enumerate(self._pages):
            name = page.title.upper() if i == self._at else page.title
            count = f" {grouped(page.count)}" if page.count else ""
            start = sum(cell_len(text) for _, text in parts)
            parts += [("strong" if i == self._at else "dim", name), ("dim", f"{count}   ")]
            self._names.append((start, start + len(name) + len(count)))
        more = self._count - self.room
        return self.heading(width, [*parts[:-1], ("dim", parts[-1][1].rstrip())], [("dim", "↑ ↓")] if more > 0 else [])

    def on_click(self, event: events.Click) -> None:
        event.stop()
        if event.y == 0:
            for page, (start, end) in enumerate(self._names):
                if start <= event.x < end:
                    self.turn(page)
            return
        row = self._tops[self._at] + event.y - 2
        if event.y >= 2 and row < self._count:
            self.go_to(row)
            if event.chain == 2:
                self.post_message(self.Opened())

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self.action_move(3)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self.action_move(-3)
