"""All that is recorded of one event, as it stands in the file; nothing is asked or changed here."""

import time
from collections.abc import Iterator
from typing import Any, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import Static

from qig_core.rundir.schema import Event
from qig_tui.journal import SEVERITY_GLYPHS, sentence
from qig_tui.screens.dialog import Dialog
from qig_tui.text import ABSENT, grouped, pad, safe

_MAX_LINES = 400
_MAX_DEPTH = 6
_VALUE = 2000
_KEY = 16
_INLINE = 60
"""A list whose values take no more cells stands in one line."""


class EventScreen(Dialog[None]):
    # Focusing scrolls: the first lines would be out of sight where there are many.
    AUTO_FOCUS = ""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "cancel", "close", show=False),
        Binding("up", "scroll(-1)", "up", show=False),
        Binding("down", "scroll(1)", "down", show=False),
        Binding("pageup", "page(-1)", "a page up", show=False),
        Binding("pagedown", "page(1)", "a page down", show=False),
        Binding("home", "start", "to the start", show=False),
    ]

    def __init__(self, event: Event, count: int = 1) -> None:
        """Args: count: how many such events stand in the row that it is the newest of."""
        super().__init__(safe(event.kind, 40))
        self._event = event
        self._count = count

    def compose_body(self) -> ComposeResult:
        yield Static(self._text(), id="text")

    def on_mount(self) -> None:
        self.query_one("#cancel").focus(scroll_visible=False)

    def _text(self) -> Text:
        event = self._event
        glyph = SEVERITY_GLYPHS.get(event.severity, "·")
        text = Text(sentence(event), style="bold")
        text.append("\n\n")
        known = {
            "severity": f"{glyph} {safe(event.severity, 40)}",
            "time": _when(event.t),
            "step": ABSENT if event.step is None else grouped(event.step),
            "session": ABSENT if event.session is None else safe(event.session, 80),
            "record": f"{event.seq} of events.jsonl",
        }
        if event.stream is not None:
            known["stream"] = safe(event.stream, 80)
        if self._count > 1:
            known["in its row"] = f"the newest of {grouped(self._count)}; a filter by its kind shows each"
        for key, value in known.items():
            text.append(pad(key, _KEY), style="dim")
            text.append(f"{value}\n")
        lines = [line for _, line in zip(range(_MAX_LINES + 1), laid_out(event.data), strict=False)]
        if lines:
            text.append("\n")
        for key, value in lines[:_MAX_LINES]:
            text.append(pad(key, max(_KEY, len(key) + 1)), style="dim")
            text.append(f"{value}\n")
        if len(lines) > _MAX_LINES:
            text.append("… more than is shown; all of it stands in events.jsonl\n", style="dim")
        text.rstrip()
        return text

    def action_scroll(self, lines: int) -> None:
        self.query_one("#dialog", VerticalScroll).scroll_relative(y=lines, animate=False)

    def action_page(self, pages: int) -> None:
        box = self.query_one("#dialog", VerticalScroll)
        box.scroll_relative(y=pages * box.size.height, animate=False)

    def action_start(self) -> None:
        self.query_one("#dialog", VerticalScroll).scroll_home(animate=False)


def laid_out(value: Any, indent: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """Data of JSON as lines of a key and a value; what is nested stands indented below its key."""
    pairs = value.items() if isinstance(value, dict) else ((f"{i}", part) for i, part in enumerate(value))
    for key, part in pairs:
        name = f"{indent}{safe(key, 40)}"
        short = _short(part)
        if short is not None:
            first, *rest = short
            yield name, first
            yield from (("", line) for line in rest)
        elif depth >= _MAX_DEPTH:
            yield name, "… nested deeper than is shown"
        else:
            yield name, ""
            yield from laid_out(part, f"{indent}  ", depth + 1)


def _short(value: Any) -> list[str] | None:
    """A value in lines of its own; None where it has parts that want theirs."""
    if isinstance(value, dict):
        return None if value else ["{}"]
    if isinstance(value, list):
        if not value:
            return ["[]"]
        if any(isinstance(part, dict | list) for part in value):
            return None
        joined = ", ".join(_plain(part, _INLINE) for part in value[: _INLINE // 2])
        return [joined] if len(joined) <= _INLINE and len(value) <= _INLINE // 2 else None
    if isinstance(value, str):
        # A traceback is read by its lines.
        if not value:
            return ['""']
        return [safe(line, _VALUE) for line in value[: 10 * _VALUE].expandtabs(4).splitlines()[:_MAX_LINES]]
    return [_plain(value, _VALUE)]


def _plain(value: Any, cells: int) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return safe(repr(value) if isinstance(value, float) else value, cells)


def _when(t: float) -> str:
    """Local date and time, to the millisecond."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(t)) + f".{int(1000 * (t % 1)):03d}"
    except (OverflowError, ValueError, OSError):
        return ABSENT
