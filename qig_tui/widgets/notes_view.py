"""A file of notes: shown, followed while others write it, opened in an editor. Knows no run and no screen."""

import asyncio
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from os import environ
from os.path import expanduser
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual import events, on, work
from textual.app import ComposeResult, SuspendNotSupported
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.message import Message
from textual.suggester import SuggestFromList
from textual.widget import Widget
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from qig_tui.markdown.files import Note, editor, inside, read_note, refusal, stamp_of, suggestions
from qig_tui.markdown.page import Heading
from qig_tui.text import safe
from qig_tui.widgets.markdown_page import MarkdownPage

LOOK_S = 1.0
"""How often the file is looked at: no more than a stat, which every file system answers truly."""
READ_ONLY = "this dashboard is read-only"


class NotesView(Widget):
    """Args: may_edit: whether a file may be written, and another one opened; `why_not` says why it may not."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("e", "edit", "edit", tooltip="Write these notes in $VISUAL or $EDITOR"),
        Binding("o", "open_note", "open", tooltip="Open another .md file by its path"),
        Binding("T", "contents", "contents", tooltip="The headings, to go to one"),
        Binding("backspace", "back", "back", tooltip="To the file that was shown before", show=False),
    ]
    DEFAULT_CSS = """
    NotesView { height: 1fr; width: 1fr; layout: vertical; }
    NotesView > #notes-said { height: auto; max-height: 3; padding: 0 1; color: $foreground-muted; display: none; }
    NotesView > #notes-said.-said { display: block; }
    NotesView > #notes-said.-wrong { color: $text-warning; }
    NotesView > Horizontal { height: 1fr; }
    NotesView #notes-contents {
        width: auto; min-width: 20; max-width: 40%; height: 1fr; display: none; border: none; background: $panel;
    }
    NotesView #notes-contents.-open { display: block; }
    NotesView > Input { display: none; height: 1; border: none; padding: 0 1; background: $panel; }
    NotesView > Input:focus { border: none; background-tint: transparent; }
    NotesView > Input.-open { display: block; }
    """

    class Shown(Message):
        """Another file is shown, or the same one as it is now."""

        def __init__(self, path: Path) -> None:
            super().__init__()
            self.path = path

    def __init__(self, path: Path, *, may_edit: bool, why_not: str = READ_ONLY, id: str | None = None) -> None:
        super().__init__(id=id)
        self.path = path
        self._may_edit = may_edit
        self._why_not = why_not
        self._note = Note()
        self._before: list[Path] = []
        self._headings: list[Heading] = []
        self._shown: Path | None = None
        self._looking = False
        self._going: int | None = None
        """The heading to go to when the page has its whole width again."""
        # Held, not looked for: the file may be read before the last of them is in its place.
        self.page = MarkdownPage(id="notes-page")
        self._said = Static(Text(""), id="notes-said")
        self._contents = OptionList(id="notes-contents")
        self._line = Input(placeholder="a .md file; escape leaves", id="notes-path", select_on_focus=False)

    def compose(self) -> ComposeResult:
        yield self._said
        yield Horizontal(self._contents, self.page)
        yield self._line

    def on_mount(self) -> None:
        self._look()
        self.set_interval(LOOK_S, self._look)

    @property
    def is_drawn(self) -> bool:
        """Whether the file stands on the screen as it is."""
        return self._shown == self.path and self.page.is_drawn

    @work(group="look")
    async def _look(self) -> None:
        """Read the file again if it is not as it was; a file system that does not answer holds nothing up."""
        if self._looking:
            return
        self._looking = True
        try:
            path = self.path
            stamp = await asyncio.to_thread(stamp_of, path)
            if self._shown == path and stamp == self._note.stamp:
                return
            note = await asyncio.to_thread(read_note, path)
        finally:
            self._looking = False
        if path == self.path:
            self._take(path, note)
        else:
            self._look()

    def _take(self, path: Path, note: Note) -> None:
        if self._shown is not None and path != self._shown:
            self.page.to_line(0)
        self._note, self._shown = note, path
        self.page.show(note.text)
        begins = note.stamp is None and self._may_edit
        self._say(f"{note.said}; e begins it" if begins else note.said, wrong=bool(note.said) and not begins)
        self.post_message(self.Shown(path))

    def _say(self, words: str, *, wrong: bool = False) -> None:
        self._said.update(Text(safe(words, 300)))
        self._said.set_class(bool(words), "-said")
        self._said.set_class(wrong, "-wrong")

    def _tell(self, words: str) -> None:
        self.notify(safe(words, 300), severity="warning", markup=False)

    def show(self, path: Path) -> None:
        """Another file in the place of this one; `backspace` comes back."""
        self._before.append(self.path)
        self.path = path
        self._look()

    def action_back(self) -> None:
        if self._before:
            self.path = self._before.pop()
            self._look()

    def action_edit(self) -> None:
        if not self._may_edit:
            self._tell(f"{self._why_not}: notes are not written from here")
        elif self._note.stamp is not None and not self._note.is_there:
            self._tell(self._note.said)
        else:
            problem = self._edited(self.path)
            if problem:
                self._tell(problem)
            self._look()

    def _edited(self, path: Path) -> str:
        """What went wrong in an editor that had the terminal."""
        try:
            words = [*editor(environ), str(path.absolute())]
            with self.app.suspend(), _no_interrupt():
                code = subprocess.run(words).returncode
        except ValueError as error:
            return str(error)
        except SuspendNotSupported:
            return "no editor can be started from here"
        except OSError as error:
            return f"{safe(words[0], 80)} could not be started: {safe(error.strerror, 80)}"
        name = Path(words[0]).name
        if code < 0:
            return f"{safe(name, 80)} was ended by signal {-code}"
        return f"{safe(name, 80)} ended with code {code}" if code else ""

    async def action_open_note(self) -> None:
        if not self._may_edit:
            self._tell(f"{self._why_not}: no other file is opened from here")
            return
        self._line.value = ""
        self._line.add_class("-open")
        self._line.focus()
        folder = self.path.parent
        names = await asyncio.to_thread(lambda: list(suggestions(folder)))
        self._line.suggester = SuggestFromList(names)

    def on_key(self, event: events.Key) -> None:
        if event.key == "escape" and (self._line.has_focus or self._contents.has_focus):
            event.stop()
            self._to_page()

    def _to_page(self) -> None:
        for widget in (self._line, self._contents):
            widget.remove_class("-open")
        self.page.focus()

    @on(Input.Submitted)
    def open_typed(self, event: Input.Submitted) -> None:
        event.stop()
        if not event.value.strip() or "\0" in event.value:
            self._to_page()
            return
        path = self.path.parent / expanduser(event.value.strip())
        if reason := refusal(path):
            self._tell(reason)
            return
        self._to_page()
        self.show(path)

    @on(MarkdownPage.LinkClicked)
    def follow(self, event: MarkdownPage.LinkClicked) -> None:
        """A link to a .md file beside this one is opened here, and nothing else is, nor anything outside."""
        event.stop()
        path = inside(event.target, self.path) if self._may_edit else None
        if path is None:
            self._tell(f"{safe(event.target, 200)} is not opened from here")
        elif reason := refusal(path):
            self._tell(reason)
        else:
            self.show(path)

    @on(MarkdownPage.LaidOut)
    def list_headings(self, event: MarkdownPage.LaidOut) -> None:
        event.stop()
        before, self._headings = self._headings, event.headings
        if self._going is not None and self._going < len(event.headings):
            self.page.to_line(event.headings[self._going].line)
        self._going = None
        # Another width moves the headings; whoever is choosing one keeps the place in the list.
        if [heading[:2] for heading in before] != [heading[:2] for heading in event.headings]:
            self._contents.clear_options()
            self._contents.add_options(Option(Text("  " * (level - 1) + title)) for level, title, _ in event.headings)

    def action_contents(self) -> None:
        if self._contents.has_class("-open"):
            self._to_page()
        elif not self._headings:
            self._tell("there are no headings")
        else:
            at = self.page.scroll_offset.y
            self._contents.highlighted = max(sum(heading.line <= at for heading in self._headings) - 1, 0)
            self._contents.add_class("-open")
            self._contents.focus()

    @on(OptionList.OptionSelected)
    def go_to_heading(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self._going = event.option_index
        self.page.to_line(self._headings[self._going].line)
        self._to_page()


@contextmanager
def _no_interrupt() -> Iterator[None]:
    """Ctrl-C in an editor is the editor's: it reaches this process as well, and the program below would end."""
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
