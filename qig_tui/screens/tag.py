"""A word for a checkpoint, to find it by; one that it has already is taken away."""

import re
from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Button, Input, Static

from qig_tui.screens.dialog import Dialog
from qig_tui.text import safe

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_TAKEN = ("latest", "best", "last-good")


class TagScreen(Dialog[str]):
    """Dismissed with the word, or with None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "confirm", "tag", tooltip="Give the tag, or take it away")
    ]

    def __init__(self, name: str, tags: Sequence[str]) -> None:
        super().__init__(f"Tag {safe(name, 60)}")
        self._tags = tags

    def compose_body(self) -> ComposeResult:
        yield Static(Text(""), id="text")
        yield Input(id="tag", placeholder="letters, digits, . _ -", max_length=100, compact=True)

    def compose_buttons(self) -> ComposeResult:
        yield Button("Cancel  esc", id="cancel", compact=True)
        yield Button("Tag  enter", id="confirm", variant="primary", compact=True)

    def on_mount(self) -> None:
        self._say()
        self.call_after_refresh(self.query_one(Input).focus)

    @on(Input.Submitted)
    def take(self, event: Input.Submitted) -> None:
        event.stop()
        self.action_confirm()

    @on(Input.Changed)
    def look(self, event: Input.Changed) -> None:
        event.stop()
        self._say()

    def action_confirm(self) -> None:
        if self._problem():
            self._say()
        else:
            self.dismiss(self._word)

    @property
    def _word(self) -> str:
        return self.query_one(Input).value.strip()

    def _problem(self) -> str:
        word = self._word
        if not _WORD.fullmatch(word):
            return "A word of letters, digits, '.', '_' and '-' that begins with a letter or a digit."
        if word in _TAKEN or word.isdecimal():
            return f"{word} already means something where a checkpoint is named."
        return ""

    def _say(self) -> None:
        has = ", ".join(safe(tag, 40) for tag in self._tags) or "none"
        text = Text.assemble(
            "A name to find it by, also after an @; one that it has is taken away. ", (f"It has: {has}.", "dim")
        )
        if self._word:
            problem = self._problem()
            verb = "takes away" if self._word in self._tags else "gives it"
            text.append(f"\n✖ {problem}" if problem else f"\n● enter {verb} {self._word}.", style="bold")
        self.query_one("#text", Static).update(text)
