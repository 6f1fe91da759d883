"""A dialog to read: text that may be longer than the screen, moved by the arrows."""

from typing import ClassVar, TypeVar

from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll

from qig_tui.screens.dialog import Dialog

R = TypeVar("R")


class ReadingDialog(Dialog[R]):
    # Focusing scrolls: the first lines would be out of sight where there are many.
    AUTO_FOCUS = ""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "scroll(-1)", "up", show=False, tooltip="A line up"),
        Binding("down,j", "scroll(1)", "down", show=False, tooltip="A line down"),
        Binding("pageup", "page(-1)", "a page up", show=False, tooltip="A page up"),
        Binding("pagedown", "page(1)", "a page down", show=False, tooltip="A page down"),
        Binding("home", "start", "to the start", show=False, tooltip="To the first line"),
        Binding("end", "finish", "to the end", show=False, tooltip="To the last line"),
    ]

    def on_mount(self) -> None:
        self.query_one("#cancel").focus(scroll_visible=False)

    def action_scroll(self, lines: int) -> None:
        self.query_one("#dialog", VerticalScroll).scroll_relative(y=lines, animate=False)

    def action_page(self, pages: int) -> None:
        box = self.query_one("#dialog", VerticalScroll)
        box.scroll_relative(y=pages * box.size.height, animate=False)

    def action_start(self) -> None:
        self.query_one("#dialog", VerticalScroll).scroll_home(animate=False)

    def action_finish(self) -> None:
        self.query_one("#dialog", VerticalScroll).scroll_end(animate=False)
