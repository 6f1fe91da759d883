"""A Markdown file on a screen of its own: a run's notes, or the guide to the numbers."""

from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import Static

from qig_tui.text import safe
from qig_tui.widgets.notes_view import READ_ONLY, NotesView

GUIDE = (Path(__file__).parent.parent / "guide.md").resolve()
"""What the numbers mean; it comes with the package."""


class NotesScreen(Screen[None]):
    """Args: may_edit: whether the file may be written and another one be opened; `why_not` says why not."""

    CSS_PATH = "notes.tcss"
    AUTO_FOCUS = "#notes-page"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", "close", tooltip="Back to where you came from"),
        Binding("home", "end_of_page(0)", "top", tooltip="To the first line", show=False),
        Binding("end", "end_of_page(1)", "end", tooltip="To the last line", show=False),
    ]

    def __init__(self, path: Path, *, title: str, may_edit: bool, why_not: str = READ_ONLY) -> None:
        super().__init__()
        self._path = path
        self._title = title
        self._may_edit = may_edit
        self.view = NotesView(path, may_edit=may_edit, why_not=why_not)

    def compose(self) -> ComposeResult:
        yield Static(Text(""), id="notes-title")
        yield self.view
        yield Static(self._hint(), id="notes-hint")

    @property
    def is_drawn(self) -> bool:
        return self.view.is_drawn

    @on(NotesView.Shown)
    def name_it(self, event: NotesView.Shown) -> None:
        title = Text(self._title, style="bold")
        if event.path != self._path:
            title.append(f"  {safe(event.path.name, 120)}", style="not bold")
        self.query_one("#notes-title", Static).update(title)

    def _hint(self) -> Text:
        keys = [("e", "edit"), ("o", "open")] if self._may_edit else [("", "read only")]
        text = Text(no_wrap=True, overflow="ellipsis")
        for key, word in [*keys, ("T", "contents"), ("esc", "close"), ("?", "help")]:
            text.append(f"{key} " if key else "", style="bold")
            text.append(f"{word}   ")
        text.rstrip()
        return text

    def action_end_of_page(self, last: int) -> None:
        page = self.view.page
        if last:
            page.action_scroll_end()
        else:
            page.action_scroll_home()

    def action_close(self) -> None:
        if len(self.app.screen_stack) > 2:
            self.dismiss(None)
