"""Every key that works now, generated from the bindings; what the mouse does; what the marks mean."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from textwrap import wrap
from typing import ClassVar

from rich.cells import cell_len
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import ActiveBinding, Binding, BindingType
from textual.widgets import Static

from qig_core.rundir.liveness import GLYPHS, Word
from qig_tui import journal
from qig_tui.screens.dialog import Dialog
from qig_tui.text import pad

COMMANDS, CHARTS, EVENTS, NOTES, TIME = "Commands to this run", "Charts", "Events", "Notes", "Time"
SCREENS, LOOK, MOVING = "Screens", "Look", "Moving around"
_GROUPS = (COMMANDS, SCREENS, CHARTS, EVENTS, NOTES, TIME, LOOK, MOVING)
_GROUP_OF = {
    **dict.fromkeys(("ask", "send", "pin", "tag", "prune"), COMMANDS),
    **dict.fromkeys(("charts", "choose_metrics"), CHARTS),
    "events": EVENTS,
    **dict.fromkeys(("edit", "open_note", "contents"), NOTES),
    **dict.fromkeys(("hop", "leap", "first", "now", "speed", "freeze"), TIME),
    "stream": LOOK,
    "pane": SCREENS,
    **dict.fromkeys(("back", "close", "leave", "suspend_process", "copy_text"), MOVING),
    **dict.fromkeys(("select_cursor", "move", "page", "go"), MOVING),
}
_MOVES_LIKE = ("cursor_", "scroll_", "focus_", "page_")
_IN_OUR_WORDS = {
    "focus_next": ("next", "To the next that takes keys: a table, a list, a button"),
    "focus_previous": ("before", "To the one before"),
    "copy_text": ("copy", "Copy what is marked; where nothing is, leave as q does"),
    "command_palette": ("palette", "Search actions, metrics, checkpoints, runs, themes"),
}
"""Of Textual's own keys."""
_KEY_CELLS = 12
_NAME_CELLS = 14
_WIDTH, _WIDTH_SHARE, _FRAME = 116, 0.96, 7
"""Of the dialog, as its style sheet says, and what its border, padding and scroll bar take of it."""

WORDS = {
    Word.LIVE: "steps come as they should",
    Word.SLOW: "the last step takes long",
    Word.BUSY: "evaluates, saves or restores",
    Word.PAUSED: "waits until it may go on",
    Word.SILENT: "no heartbeat comes any more",
    Word.HUNG: "it beats or is there, and makes no step",
    Word.EXITED: "over, with its exit code",
    Word.KILLED: "the process is gone without an end",
}
STATES = {
    "unarmed": "not judged yet, or no more",
    "ok": "within its limit",
    "unjudged": "beside a value that nobody judges",
    "warning": "beyond a limit that warns",
    "critical": "beyond a limit that matters",
}
OTHERS = {
    "✓": "done; a checkpoint with all its files",
    "○ COMPLETE": "a checkpoint with all its files, whose bytes were not read yet",
    "‖": "the picture is held still",
    "┈ ▐": "a reference line or a limit; beside the values the band of one",
    "× ↑ ↓": "on a chart's edge: nan; inf; -inf, or a value that a logarithm has no place for",
    "→ ↑ ↓": "beside a name: where the newest values go",
    "╷": "below the first chart: the regime that begins there",
    "━━──": "in SAFETY: how much of the way to the limit is left",
    "grey": "of a line: a branch that the run went back from; beside a smooth line: the values themselves",
    "▸ ◆": "in the list of runs: the cursor; marked",
    "…": "cut, or still at it",
}
_ON_CHARTS = (
    ("wheel", "zoom", "Around the step under the pointer"),
    ("click", "cursor", "Read every chart at this step"),
    ("wheel", "events", "Older and newer events"),
)
_ON_TABLES = (("click", "sort", "On a heading: order by that column"), ("click", "row", "To this row; again opens it"))
_TABLE_ACTIONS = ("select_cursor", "cursor_move")
_ALWAYS = (
    ("drag", "select", "Marks text, where it can be marked; ctrl+c copies it"),
    ("shift+drag", "select", "As your terminal does it"),
)


@dataclass
class Row:
    """One action: its keys, its name, what it does."""

    keys: list[str] = field(default_factory=list)
    name: str = ""
    does: str = ""


def group_of(binding: Binding) -> str:
    """Where an action is listed."""
    action = _plain(binding.action)
    return MOVING if action.startswith(_MOVES_LIKE) else _GROUP_OF.get(action, LOOK)


def _plain(action: str) -> str:
    """Its name without where it is done and with what."""
    return action.partition("(")[0].rpartition(".")[2]


def sections(bindings: Iterable[ActiveBinding], display: Callable[[Binding], str]) -> dict[str, list[Row]]:
    """The groups with their actions, each once with all its keys, in the order of the bindings.

    Args:
        display: a binding's key as it is written.
    """
    found: dict[str, dict[str, Row]] = {group: {} for group in _GROUPS}
    for active in bindings:
        binding = active.binding
        if not (binding.tooltip or binding.description) or binding.key.startswith("super+"):
            continue
        # A widget's own word stands in place of what it inherited.
        row = found[group_of(binding)].setdefault(binding.action.removeprefix("app."), Row())
        key = display(binding)
        if key not in row.keys:
            row.keys.append(key)
        if not row.does:
            action = _plain(binding.action)
            # Where a screen says itself what these do there, it is right.
            is_said = action.startswith("focus_") and bool(binding.tooltip)
            ours = None if is_said else _IN_OUR_WORDS.get(action)
            own = (binding.description, binding.tooltip) if binding.tooltip else ("", binding.description)
            row.name, row.does = ours or own
    return {group: list(rows.values()) for group, rows in found.items() if rows}


class HelpScreen(Dialog[None]):
    """A list that scrolls; the keys that opened it close it."""

    # Focusing scrolls: the first keys would be out of sight where the dialog is higher than the screen.
    AUTO_FOCUS = ""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark,q", "cancel", "close", tooltip="Close the help", show=False),
        Binding("up", "scroll('scroll_up')", "up", tooltip="One line up", show=False),
        Binding("down", "scroll('scroll_down')", "down", tooltip="One line down", show=False),
        Binding("pageup", "scroll('scroll_page_up')", "page up", tooltip="One page up", show=False),
        Binding("pagedown,space", "scroll('scroll_page_down')", "page down", tooltip="One page down", show=False),
        Binding("home", "scroll('scroll_home')", "top", tooltip="To the first line", show=False),
        Binding("end", "scroll('scroll_end')", "end", tooltip="To the last line", show=False),
    ]

    def __init__(self, bindings: Mapping[str, ActiveBinding]) -> None:
        super().__init__("Keys")
        self._filled = 0
        """For which width its text was laid out."""
        self._active = bindings

    def compose_body(self) -> ComposeResult:
        # At once and not after mounting: that would lay the dialog out a second time.
        self._filled = self._room()
        yield Static(self._text(self._filled), id="text")

    def on_mount(self) -> None:
        self.query_one("#cancel").focus(scroll_visible=False)

    def on_resize(self) -> None:
        self._fill()

    def _room(self) -> int:
        """Cells of a line of text."""
        return min(int(_WIDTH_SHARE * self.app.size.width), _WIDTH) - _FRAME

    def _fill(self) -> None:
        width = self._room()
        if width != self._filled:
            self._filled = width
            self.say(self._text(width))

    def _text(self, width: int) -> Text:
        found = sections(self._active.values(), self._key)
        text = Text()
        for group, rows in found.items():
            _heading(text, group)
            for row in rows:
                _line(text, " ".join(row.keys), row.name, row.does, width)
        _heading(text, "The mouse")
        on_tables = (
            _ON_TABLES
            if any(name in a.binding.action for a in self._active.values() for name in _TABLE_ACTIONS)
            else ()
        )
        for how, name, does in (*(_ON_CHARTS if CHARTS in found else ()), *on_tables, *_ALWAYS):
            _line(text, how, name, does, width)
        for heading, marks in (
            ("The run", {f"{GLYPHS[word]} {word}": phrase for word, phrase in WORDS.items()}),
            ("Its limits", {f"{journal.GLYPHS[state]} {state}": phrase for state, phrase in STATES.items()}),
            ("Other marks", OTHERS),
        ):
            _heading(text, heading)
            for mark, phrase in marks.items():
                _line(text, mark, "", phrase, width)
        text.rstrip()
        return text

    def _key(self, binding: Binding) -> str:
        return binding.key_display or self.app.get_key_display(binding).replace("^", "ctrl+")

    def action_scroll(self, how: str) -> None:
        getattr(self.query_one("#dialog"), how)(animate=False)


def _heading(text: Text, words: str) -> None:
    text.append(f"{words}\n" if not text else f"\n{words}\n", style="bold underline")


def _line(text: Text, keys: str, name: str, does: str, width: int) -> None:
    front = f"{keys} " if cell_len(keys) >= _KEY_CELLS else pad(keys, _KEY_CELLS)
    text.append(front, style="bold")
    indent = cell_len(front)
    if name:
        text.append(f"{name} " if cell_len(name) >= _NAME_CELLS else pad(name, _NAME_CELLS))
        indent = _KEY_CELLS + _NAME_CELLS
    for i, line in enumerate(wrap(does, max(width - indent, 20))):
        text.append(f"{' ' * indent if i else ''}{line}\n")
