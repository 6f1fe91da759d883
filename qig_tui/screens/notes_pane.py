"""The notes of a run."""

from textual.app import ComposeResult

from qig_tui.screens.pane import Pane
from qig_tui.screens.watch import Watch
from qig_tui.widgets.notes_view import NotesView

_READ_ONLY = "this dashboard is read-only"
_WEB = "in a browser no file of this machine is reached"


class NotesPane(Pane):
    """`notes.md` of the run that is watched; the same in the past as now."""

    CSS_PATH = "notes.tcss"
    NUMBER = "6"
    AUTO_FOCUS = "#notes-page"
    OFFERED = ("1", "e", "o", "T")

    def __init__(self, watch: Watch) -> None:
        super().__init__(watch)
        self._setup = watch.setup

    @property
    def offered(self) -> tuple[str, ...]:
        may_edit = not (self._setup.read_only or self._setup.web)
        return self.OFFERED if may_edit else ("1", "T")

    def compose_body(self) -> ComposeResult:
        may_edit = not (self._setup.read_only or self._setup.web)
        why_not = _WEB if self._setup.web else _READ_ONLY
        yield NotesView(self.run_dir.notes, may_edit=may_edit, why_not=why_not, id="notes")

    @property
    def is_settled(self) -> bool:
        """Whether all that is shown stands."""
        return self.query_one(NotesView).is_drawn

    def draw_body(self, *, slow: bool, fresh: bool) -> None:
        """Nothing in the notes moves with the run."""
