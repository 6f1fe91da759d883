"""All that is known of one checkpoint; nothing is asked or changed here."""

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Static

from qig_tui.checkpoints.facts import Section
from qig_tui.screens.reading import ReadingDialog
from qig_tui.text import pad, safe

_KEY = 18


class CheckpointScreen(ReadingDialog[None]):
    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "cancel", "close", show=False, tooltip="Close")]

    def __init__(self, name: str, sections: Sequence[Section]) -> None:
        super().__init__(safe(name, 60))
        self._sections = sections

    def compose_body(self) -> ComposeResult:
        yield Static(self._text(), id="text")

    def _text(self) -> Text:
        text = Text()
        for section in self._sections:
            text.append(f"{section.title}\n", style="bold")
            for fact in section.facts:
                text.append(pad(fact.key, _KEY), style="dim")
                text.append(f"{fact.value}\n", style="bold" if fact.tone in ("critical", "warning") else "")
            text.append("none\n\n" if not section.facts else "\n", style="dim")
        text.rstrip()
        return text
