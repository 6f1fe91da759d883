"""Which screen of a run a number opens. Each is imported when it is opened first."""

from textual.app import App
from textual.screen import Screen

from qig_core.rundir.lineage import relatives
from qig_tui.screens.runs import RunsScreen
from qig_tui.screens.watch import Watch


def pane(number: str, watch: Watch, app: App[int]) -> Screen[None] | None:
    """A new screen over the run screen; None where there is nothing to show, which is then said."""
    match number:
        case "2":
            from qig_tui.screens.basin import BasinScreen

            return BasinScreen(watch)
        case "3":
            from qig_tui.screens.safety import SafetyScreen

            return SafetyScreen(watch)
        case "4":
            from qig_tui.screens.checkpoints import CheckpointsScreen

            return CheckpointsScreen(watch)
        case "5":
            from qig_tui.screens.compare import CompareScreen

            below = next((screen for screen in app.screen_stack if isinstance(screen, RunsScreen)), None)
            others = relatives(watch.run) if below is None or not below.marked else below.marked_runs()
            return CompareScreen(
                [watch.run, *(run for run in others if run.id != watch.run.id)],
                memory=watch.memory,
                places=None if below is None else below.places,
                setup=watch.setup,
            )
        case "6":
            from qig_tui.screens.notes_pane import NotesPane

            return NotesPane(watch)
        case "7":
            from qig_tui.screens.program import ProgramScreen

            return ProgramScreen(watch)
    return None
