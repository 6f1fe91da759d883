"""What every dialog is: a box in the middle, text that is never markup, escape to leave."""

from collections.abc import Iterable
from functools import lru_cache
from typing import ClassVar, TypeVar

from rich.console import RenderableType
from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.color import Color
from textual.containers import Horizontal, VerticalScroll
from textual.renderables.background_screen import BackgroundScreen
from textual.screen import ModalScreen
from textual.widgets import Button, Static

R = TypeVar("R")


@lru_cache(maxsize=4096)
def _dimmed(style: Style, color: Color) -> Style:
    fore, back = (
        None if c is None else (Color.from_rich_color(c) + color).rich_color for c in (style.color, style.bgcolor)
    )
    return style.clear_meta_and_links() + Style.from_color(fore, back)


class _Below(BackgroundScreen):
    """The screen below, dimmed style by style: Textual mixes the colours of each of a thousand segments anew."""

    @classmethod
    def process_segments(cls, segments: Iterable[Segment], color: Color) -> Iterable[Segment]:
        for text, style, control in segments:
            yield Segment(text, _dimmed(style or Style.null(), color), control)


class Dialog(ModalScreen[R]):
    """Subclasses fill `#dialog`; a title, a body that may scroll, buttons below."""

    CSS_PATH = "dialog.tcss"
    # Textual declares it as an instance variable.
    HORIZONTAL_BREAKPOINTS = [(0, "-slim"), (74, "-wide")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "close", tooltip="Close the dialog and change nothing"),
        Binding("ctrl+c", "cancel", "close", tooltip="Close the dialog and change nothing", show=False),
        Binding("left", "app.focus_previous", "button before", tooltip="To the button before", show=False),
        Binding("right", "app.focus_next", "next button", tooltip="To the next button", show=False),
    ]

    def __init__(self, title: str) -> None:
        super().__init__()
        self._title = title

    def render(self) -> RenderableType:
        shown = super().render()
        return _Below(shown.screen, shown.color) if isinstance(shown, BackgroundScreen) else shown

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
