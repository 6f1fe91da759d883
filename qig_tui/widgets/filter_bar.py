"""A line to type a filter into: every key is passed on, enter keeps what stands there, escape takes it away."""

from typing import ClassVar

from rich.text import Text
from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.message import Message
from textual.widgets import Input, Static


class FilterBar(Horizontal):
    """Hidden until `open` is called. What is wrong with a filter is told beside it by whoever applies it (`say`)."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "clear", "no filter", tooltip="Take the filter away", show=False),
    ]
    DEFAULT_CSS = """
    FilterBar { height: 1; display: none; background: $panel; padding: 0 1; }
    FilterBar.-open { display: block; }
    FilterBar > #filter-name { width: auto; color: $foreground-muted; }
    FilterBar > #filter-said { width: auto; max-width: 60%; margin-left: 2; color: $foreground-muted; }
    FilterBar > #filter-said.-wrong { color: $error; }
    FilterBar > Input { width: 1fr; height: 1; border: none; padding: 0; background: $panel; }
    FilterBar > Input:focus { border: none; background-tint: transparent; }
    """

    class Changed(Message):
        """The text is another one; empty: no filter."""

        def __init__(self, bar: "FilterBar", text: str) -> None:
            super().__init__()
            self.bar = bar
            self.text = text

        @property
        def control(self) -> "FilterBar":
            return self.bar

    class Closed(Message):
        """Typing is over: the focus is free."""

        def __init__(self, bar: "FilterBar") -> None:
            super().__init__()
            self.bar = bar

        @property
        def control(self) -> "FilterBar":
            return self.bar

    def __init__(self, name: str, hint: str, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._name = name
        self._hint = hint

    def compose(self) -> ComposeResult:
        yield Static(Text(f"{self._name} / "), id="filter-name")
        yield Input(placeholder=self._hint, select_on_focus=False)
        yield Static(Text(""), id="filter-said")

    @property
    def text(self) -> str:
        return self.query_one(Input).value.strip()

    @property
    def is_typed_into(self) -> bool:
        return self.query_one(Input).has_focus

    def open(self) -> None:
        """Show the line and type into it."""
        self.add_class("-open")
        self.query_one(Input).focus()

    def say(self, words: str, *, wrong: bool = False) -> None:
        """What the filter does, or why it cannot be applied; plain text."""
        said = self.query_one("#filter-said", Static)
        said.set_class(wrong, "-wrong")
        said.update(Text(words))

    def action_clear(self) -> None:
        self.query_one(Input).value = ""
        self.remove_class("-open")
        self.post_message(self.Closed(self))

    @on(Input.Changed)
    def pass_on(self, event: Input.Changed) -> None:
        event.stop()
        self.post_message(self.Changed(self, event.value.strip()))

    @on(Input.Submitted)
    def keep(self, event: Input.Submitted) -> None:
        event.stop()
        self.set_class(bool(self.text), "-open")
        self.post_message(self.Closed(self))

    def on_click(self, event: events.Click) -> None:
        event.stop()
        self.open()
