"""The notes screen as a program of its own, for the tests that need a terminal to give away."""

import sys
from pathlib import Path

import qig_tui.app
from qig_tui.app import QigApp
from qig_tui.driver import ThriftyDriver
from qig_tui.screens.notes import NotesScreen


class NotesApp(QigApp):
    CSS_PATH = [Path(qig_tui.app.__file__).with_name("app.tcss")]  # noqa: RUF012 - as Textual has it

    def on_ready(self) -> None:
        self.push_screen(NotesScreen(Path(sys.argv[1]), title="the notes", may_edit=True))


if __name__ == "__main__":
    NotesApp(Path(sys.argv[1]).parent, is_run=False, driver=ThriftyDriver).run()
