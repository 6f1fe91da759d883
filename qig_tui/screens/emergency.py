"""One emergency: cause, stages, conditions, the samples around it, where every thread stood. Changes nothing."""

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import Button

from qig_core.rundir.layout import RunDir
from qig_core.rundir.values import is_run_id
from qig_tui.screens.dialog import Dialog
from qig_tui.sources.emergencies import Emergency, EmergencyDetail, read_detail
from qig_tui.widgets.emergency_view import EmergencyView


class EmergencyScreen(Dialog[int | None]):
    """Reads the files in a worker. Dismissed with the step that somebody wants to go to, or None."""

    # Focusing scrolls, and the box around a button with the keys has keys of its own, which take a second to scroll.
    AUTO_FOCUS = ""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("g", "go", "go there", tooltip="Show the run as it was when this happened"),
        Binding("enter", "cancel", "close", show=False),
        Binding("up", "scroll(-1)", "up", show=False),
        Binding("down", "scroll(1)", "down", show=False),
        Binding("pageup", "page(-1)", "a page up", show=False),
        Binding("pagedown,space", "page(1)", "a page down", show=False),
        Binding("home", "start", "to the start", show=False),
        Binding("end", "finish", "to the end", show=False),
    ]

    def __init__(self, run: RunDir, brief: Emergency) -> None:
        super().__init__(f"Emergency {brief.id}")
        self._run = run
        self._brief = brief
        self.detail: EmergencyDetail | None = None
        """None: not read yet."""

    def compose_body(self) -> ComposeResult:
        yield EmergencyView(id="emergency")

    def compose_buttons(self) -> ComposeResult:
        yield Button("Close  esc", id="cancel", compact=True)
        yield Button("Go there  g", id="go", compact=True)

    def on_mount(self) -> None:
        self.query_one("#go").display = self._brief.step is not None
        self.run_worker(self._read, thread=True, exclusive=True, group="emergency")

    def _read(self) -> None:
        # Whatever an event names as its id: only a plain name is looked for.
        known = is_run_id(self._brief.id)
        found = read_detail(self._run, self._brief) if known else EmergencyDetail(brief=self._brief)
        self.app.call_from_thread(self._show, found)

    def _show(self, found: EmergencyDetail) -> None:
        if self.is_mounted:
            self.detail = found
            self.query_one(EmergencyView).show(found)

    def action_go(self) -> None:
        if self._brief.step is not None:
            self.dismiss(self._brief.step)

    def action_scroll(self, lines: int) -> None:
        self.query_one("#dialog", VerticalScroll).scroll_relative(y=lines, animate=False)

    def action_page(self, pages: int) -> None:
        box = self.query_one("#dialog", VerticalScroll)
        box.scroll_relative(y=pages * (box.size.height - 2), animate=False)

    def action_start(self) -> None:
        self.query_one("#dialog", VerticalScroll).scroll_home(animate=False)

    def action_finish(self) -> None:
        self.query_one("#dialog", VerticalScroll).scroll_end(animate=False)
