"""Every key that works now, generated from the bindings."""

from collections.abc import Mapping

from rich.text import Text
from textual.binding import ActiveBinding

from qig_tui.screens.dialog import Dialog
from qig_tui.text import pad

_GLYPHS = {
    "●": "live, or ok",
    "◐": "slow",
    "◑": "busy: evaluates, saves, restores",
    "‖": "paused, or frozen",
    "○": "silent; a limit that is not armed, or watched no more",
    "▲": "warning",
    "✖": "critical; hung or killed",
    "■": "exited",
}


class HelpScreen(Dialog[None]):
    # Focusing scrolls: the first keys would be out of sight where the dialog is higher than the screen.
    AUTO_FOCUS = ""

    def __init__(self, bindings: Mapping[str, ActiveBinding]) -> None:
        super().__init__("Keys")
        self._active = bindings

    def on_mount(self) -> None:
        rows: dict[str, tuple[list[str], str, str]] = {}
        for active in self._active.values():
            binding = active.binding
            if not binding.show or not (binding.tooltip or binding.description):
                continue
            key = binding.key_display or self.app.get_key_display(binding)
            keys, _, _ = rows.setdefault(binding.action, ([], binding.description, binding.tooltip))
            if key not in keys:
                keys.append(key)
        text = Text()
        for keys, description, tooltip in rows.values():
            text.append(f"{pad(' '.join(keys), 12)}", style="bold")
            text.append(f"{pad(description, 14)}")
            text.append(f"{tooltip}\n", style="dim")
        if any(action.startswith("charts(") for action in rows):
            text.append(f"{pad('wheel click', 12)}", style="bold")
            text.append(f"{pad('charts', 14)}")
            text.append("Zoom around the pointer; set the cursor\n", style="dim")
        text.append("\n")
        for glyph, meaning in _GLYPHS.items():
            text.append(f"{glyph} ", style="bold")
            text.append(f"{meaning}   ", style="dim")
        self.say(text)
        self.query_one("#cancel").focus(scroll_visible=False)
