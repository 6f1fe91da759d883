"""A Markdown document that scrolls, with its formulas in two dimensions.

Not Textual's Markdown: it makes each block a widget, and takes 20 s for 200 KB. Here lines are computed beside the
screen, and only those in sight are drawn.
"""

import asyncio
from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual import events, work
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.selection import Selection
from textual.strip import Strip

from qig_tui.markdown.page import Document, Heading, Page

_TONES = "text strong em strike code code-block math link mark dim rule h1 h2 h3 h4 keyword name string number".split()

_ATTRIBUTES = frozenset({"strong", "em", "strike", "link"})
"""They leave the colour as it is."""


class MarkdownPage(ScrollView, can_focus=True, inherit_bindings=False):
    """Shows what `show` was given; the place is kept when the text or the width changes. Home and end are time's."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "scroll_up", "up", tooltip="One line up", show=False),
        Binding("down,j", "scroll_down", "down", tooltip="One line down", show=False),
        Binding("left", "scroll_left", "left", tooltip="What is wider than the screen: to the left", show=False),
        Binding("right", "scroll_right", "right", tooltip="What is wider than the screen: to the right", show=False),
        Binding("pageup", "page_up", "page up", tooltip="One page up", show=False),
        Binding("pagedown", "page_down", "page down", tooltip="One page down", show=False),
        Binding("g,ctrl+home", "scroll_home", "top", tooltip="To the first line", show=False),
        Binding("G,ctrl+end", "scroll_end", "end", tooltip="To the last line", show=False),
    ]
    COMPONENT_CLASSES: ClassVar[set[str]] = {f"page--{tone}" for tone in _TONES}
    DEFAULT_CSS = """
    MarkdownPage {
        height: 1fr;
        padding: 0 1;
        overflow-y: scroll;
        overflow-x: auto;
        scrollbar-size-vertical: 1;
        scrollbar-size-horizontal: 1;
        background: $background;
    }
    MarkdownPage > .page--text, MarkdownPage > .page--code-block { color: $foreground; }
    MarkdownPage > .page--strong { text-style: bold; }
    MarkdownPage > .page--em { text-style: italic; }
    MarkdownPage > .page--strike { text-style: strike; }
    MarkdownPage > .page--code { color: $text-warning; }
    MarkdownPage > .page--math { color: $text-accent; }
    MarkdownPage > .page--link { text-style: underline; }
    MarkdownPage > .page--mark { color: $text-primary; }
    MarkdownPage > .page--dim, MarkdownPage > .page--rule { color: $foreground-muted; }
    MarkdownPage:ansi > .page--dim, MarkdownPage:ansi > .page--rule { text-style: dim; }
    MarkdownPage > .page--h1 { color: $text-primary; text-style: bold; }
    MarkdownPage > .page--h2 { color: $text-primary; text-style: bold; }
    MarkdownPage > .page--h3 { text-style: bold; }
    MarkdownPage > .page--h4 { text-style: bold italic; }
    MarkdownPage > .page--keyword { color: $text-primary; }
    MarkdownPage > .page--name { color: $text-accent; }
    MarkdownPage > .page--string { color: $text-success; }
    MarkdownPage > .page--number { color: $text-warning; }
    """

    class LaidOut(Message):
        """The lines are there, or others are."""

        def __init__(self, headings: list[Heading]) -> None:
            super().__init__()
            self.headings = headings

    class LinkClicked(Message):
        """Somebody clicked on a link; nothing was opened."""

        def __init__(self, target: str) -> None:
            super().__init__()
            self.target = target

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._source: str | None = None
        self._document: Document | None = None
        self._page = Page()
        self._laid_out_for = 0
        self._styles: dict[str, Style] = {}

    @property
    def is_drawn(self) -> bool:
        """Whether what was given stands there, for the width that there is."""
        return self._document is not None and self._laid_out_for == self._width

    @property
    def _width(self) -> int:
        # The horizontal scroll bar takes no column.
        return self.scrollable_content_region.width

    def show(self, source: str) -> None:
        self._source = source
        self._document = None
        self._lay_out()

    @work(exclusive=True, group="page")
    async def _lay_out(self) -> None:
        """Read and set it on a thread: a long text takes a second."""
        source, width = self._source, self._width
        if source is None or not width:
            return
        document = self._document
        is_new = document is None
        if document is None:
            document = await asyncio.to_thread(Document, source)
        page = await asyncio.to_thread(document.page, width)
        at, length = self.scroll_offset.y, len(self._page.lines)
        self._document, self._page, self._laid_out_for = document, page, width
        self.virtual_size = Size(max(page.width, 1), len(page.lines))
        if length and not is_new:
            self.scroll_to(y=round(at * len(page.lines) / length), animate=False)
        self.refresh()
        self.post_message(self.LaidOut(page.headings))

    def on_resize(self, event: events.Resize) -> None:
        if self._width != self._laid_out_for:
            self._lay_out()

    def to_line(self, line: int) -> None:
        self.scroll_to(y=line, animate=False)

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._styles.clear()

    def _style(self, tone: str) -> Style:
        if tone not in self._styles:
            names = ["text", *(tone.split("+") if tone else ())]
            self._styles[tone] = Style.combine(
                self.get_component_rich_style(f"page--{name}", partial=name in _ATTRIBUTES) for name in names
            )
        return self._styles[tone]

    def render_line(self, y: int) -> Strip:
        left, top = self.scroll_offset
        width, number = self.size.width, y + top
        base = self._style("")
        if number >= len(self._page.lines):
            return Strip.blank(width, base)
        strip = Strip([Segment(span.text, self._style(span.tone)) for span in self._page.lines[number]])
        selection = self.text_selection
        if selection is not None and (marked := selection.get_span(number)) is not None:
            strip = _marked(strip, marked, self.screen.get_component_rich_style("screen--selection"))
        strip = strip.adjust_cell_length(max(self._page.width, width), base)
        return strip.crop(left, left + width).apply_offsets(left, number)

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        text = "\n".join("".join(span.text for span in line).rstrip() for line in self._page.lines)
        return selection.extract(text), "\n"

    def selection_updated(self, selection: Selection | None) -> None:
        self.refresh()

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is None or (line := offset.y + self.scroll_offset.y) >= len(self._page.lines):
            return
        x = offset.x + self.scroll_offset.x
        for span in self._page.lines[line]:
            x -= cell_len(span.text)
            if x < 0:
                if span.target:
                    self.post_message(self.LinkClicked(span.target))
                return

    def action_scroll_up(self) -> None:
        self.scroll_relative(y=-1, animate=False)

    def action_scroll_down(self) -> None:
        self.scroll_relative(y=1, animate=False)

    def action_scroll_left(self) -> None:
        self.scroll_relative(x=-8, animate=False)

    def action_scroll_right(self) -> None:
        self.scroll_relative(x=8, animate=False)

    def action_page_up(self) -> None:
        self.scroll_relative(y=1 - self.size.height, animate=False)

    def action_page_down(self) -> None:
        self.scroll_relative(y=self.size.height - 1, animate=False)

    def action_scroll_home(self) -> None:
        self.scroll_to(y=0, animate=False)

    def action_scroll_end(self) -> None:
        self.scroll_to(y=self.max_scroll_y, animate=False)


def _marked(strip: Strip, span: tuple[int, int], style: Style) -> Strip:
    """With what somebody marked by the mouse, given in characters; to the end where the second is -1."""
    start, end = span
    text = strip.text
    before, to = cell_len(text[:start]), cell_len(text if end == -1 else text[:end])
    pieces = [strip.crop(0, before), strip.crop(before, to).apply_style(style), strip.crop(to)]
    return Strip.join(pieces)
