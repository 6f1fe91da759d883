"""What every dialog is: a box in the middle, text that is never markup, escape to leave."""

from collections.abc import Iterable
from functools import lru_cache
from typing import ClassVar, Self, TypeVar

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.color import Color
from textual.containers import Horizontal, VerticalScroll
from textual.geometry import Region
from textual.renderables.background_screen import BackgroundScreen
from textual.screen import ModalScreen
from textual.widgets import Button, Static

R = TypeVar("R")
_SLIM = 74
"""Columns below which buttons have no room beside one another."""


@lru_cache(maxsize=4096)
def _dimmed(style: Style, color: Color) -> Style:
    fore, back = (
        None if c is None else (Color.from_rich_color(c) + color).rich_color for c in (style.color, style.bgcolor)
    )
    return style.clear_meta_and_links() + Style.from_color(fore, back)


class _Below(BackgroundScreen):
    """The screen below, dimmed once: Textual draws it anew for each of the paintings that opening a dialog takes, and
    mixes the colours of each of a thousand segments.
    """

    _drawn: list[Segment] | None = None

    @classmethod
    def process_segments(cls, segments: Iterable[Segment], color: Color) -> Iterable[Segment]:
        for text, style, control in segments:
            yield Segment(text, _dimmed(style or Style.null(), color), control)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self._drawn is None:
            self._drawn = list(super().__rich_console__(console, options))  # type: ignore[arg-type]  # only segments
        return self._drawn


class Dialog(ModalScreen[R]):
    """Subclasses fill `#dialog`; a title, a body that may scroll, buttons below."""

    CSS_PATH = "dialog.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "close", tooltip="Close the dialog and change nothing"),
        Binding("ctrl+c", "cancel", "close", tooltip="Close the dialog and change nothing", show=False),
        Binding("left", "app.focus_previous", "button before", tooltip="To the button before", show=False),
        Binding("right", "app.focus_next", "next button", tooltip="To the next button", show=False),
    ]

    def __init__(self, title: str) -> None:
        super().__init__()
        self._title = title
        self._below: _Below | None = None
        self._below_size = self.size

    def on_resize(self) -> None:
        # No breakpoints: they would have the styles of every dialog worked out once more.
        if self.has_class("-slim") != (self.size.width < _SLIM):
            self.toggle_class("-slim")

    def render(self) -> RenderableType:
        shown = super().render()
        if not isinstance(shown, BackgroundScreen):
            return shown
        if self._below is None or self._below_size != self.size:
            self._below, self._below_size = _Below(shown.screen, shown.color), self.size
        return self._below

    def refresh(self, *regions: Region, repaint: bool = True, layout: bool = False, recompose: bool = False) -> Self:
        if regions:
            # So Textual says that the screen below has changed.
            self._below = None
        return super().refresh(*regions, repaint=repaint, layout=layout, recompose=recompose)

    def notify_style_update(self) -> None:
        self._below = None
        super().notify_style_update()

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="dialog", can_focus=False) as box:
            box.border_title = Text(self._title)
            yield from self.compose_body()
            with Horizontal(id="buttons"):
                yield from self.compose_buttons()

    def compose_body(self) -> ComposeResult:
        yield Static(Text(""), id="text")

    def compose_buttons(self) -> ComposeResult:
        yield Button("Close  esc", id="cancel", compact=True)

    def say(self, text: Text) -> None:
        self.query_one("#text", Static).update(text)

    def on_button_pressed(self, event: Button.Pressed) -> None:
        event.stop()
        action = getattr(self, f"action_{(event.button.id or '').replace('-', '_')}", None)
        if action is not None:
            action()

    def action_cancel(self) -> None:
        self.dismiss(None)
