"""What ctrl+p offers: actions, metrics, streams, checkpoints, runs, themes. Imported when the palette is opened first.

Names from files stand in plain content, never in markup.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, cast

from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.content import Content

from qig_core.errors import RunFormatError
from qig_core.rundir.layout import RunDir, list_runs
from qig_core.rundir.reader import read_manifest
from qig_tui.charting import chart_metrics
from qig_tui.picture import RunPicture
from qig_tui.text import grouped, safe

if TYPE_CHECKING:
    from qig_tui.app import QigApp

_MOST_RUNS = 200
"""Names are read from as many of the newest runs; of others the id is enough."""
_FIRST = {"metric": 8, "stream": 8, "checkpoint": 3, "run": 8, "theme": 0}
"""How many of a kind are offered before anything was typed; all of what is not named here."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the palette."""

    kind: str
    name: str
    """As it may be shown."""
    does: str = ""
    """In words of ours: Textual reads it as markup."""
    run: Callable[[], object]

    @property
    def text(self) -> str:
        return f"{self.kind} {self.name}".strip()


class Everything(Provider):
    """One provider for all of it: several would be listed in the order in which they happen to answer."""

    _runs: list[Entry]

    async def startup(self) -> None:
        app = cast("QigApp", self.app)
        here = getattr(self.screen, "run_dir", None)
        # A dialog asks something of one run.
        found = [] if self.screen.is_modal else await asyncio.to_thread(_runs_in, app.folder)
        self._runs = [
            Entry(kind="run", name=name, run=partial(app.open_run, run))
            for run, name in found
            if here is None or run.id != here.id
        ]

    def _entries(self) -> Iterator[Entry]:
        for command in self.app.get_system_commands(self.screen):
            yield Entry(kind="", name=command.title, does=command.help, run=command.callback)
        yield from _metrics(self.screen)
        yield from _streams(self.screen)
        yield from _checkpoints(self.screen)
        yield from self._runs
        yield Entry(kind="", name="Choose a theme", does="Every theme there is", run=self.app.search_themes)
        for name in sorted(self.app.available_themes):
            yield Entry(kind="theme", name=name, run=partial(setattr, self.app, "theme", name))

    async def discover(self) -> Hits:
        for kind, entries in groupby(self._entries(), key=attrgetter("kind")):
            for count, entry in enumerate(entries):
                if count >= _FIRST.get(kind, count + 1):
                    break
                yield DiscoveryHit(Content(entry.text), entry.run, text=entry.text, help=entry.does or None)

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for entry in self._entries():
            # Not matcher.highlight: it takes what it is given for markup.
            score, offsets = matcher.fuzzy_search.match(query, entry.text)
            if score <= 0:
                continue
            shown = Content(entry.text)
            for offset in offsets:
                shown = shown.stylize(matcher.match_style, offset, offset + 1)
            yield Hit(score, shown, entry.run, text=entry.text, help=entry.does or None)


def _metrics(screen: object) -> Iterator[Entry]:
    """The metrics of a screen that can go to the chart of one."""
    show, picture = getattr(screen, "show_metric", None), getattr(screen, "shown", None)
    if show is None or not isinstance(picture, RunPicture):
        return
    for metric in chart_metrics(picture):
        title = safe(picture.title(metric), 60)
        name = safe(metric, 60)
        yield Entry(kind="metric", name=f"{name}  {title}".rstrip(), run=partial(show, metric))


def _streams(screen: object) -> Iterator[Entry]:
    """The streams of the run of a screen that can look at another one."""
    show, shown = getattr(screen, "show_stream", None), getattr(screen, "shown", None)
    if show is None or not isinstance(shown, RunPicture) or not shown.streams:
        return
    for stream in (None, *shown.streams):
        if stream != shown.stream:
            yield Entry(kind="stream", name=stream or "the run's own", run=partial(show, stream))


def _checkpoints(screen: object) -> Iterator[Entry]:
    """The checkpoints of a screen that can open the dialog about one, the newest first."""
    show, picture = getattr(screen, "show_checkpoint", None), getattr(screen, "picture", None)
    if show is None or not isinstance(picture, RunPicture):
        return
    for entry in picture.checkpoints:
        at = "" if entry.step is None else f"{grouped(entry.step)}  "
        tags = "".join(f"  {safe(tag, 20)}" for tag in entry.tags)
        yield Entry(kind="checkpoint", name=f"{at}{safe(entry.name, 60)}{tags}", run=partial(show, entry.name))


def _runs_in(folder: Path) -> list[tuple[RunDir, str]]:
    """The runs of a folder, newest id first, with what they are called. Reads the disk."""
    out = []
    for count, run in enumerate(reversed(list(list_runs(folder)))):
        name = ""
        if count < _MOST_RUNS:
            try:
                name = read_manifest(run).name
            except RunFormatError:
                # It can still be named by its id; opening it says what is wrong.
                name = ""
        out.append((run, f"{safe(name, 40)}  {safe(run.id, 60)}" if name and name != run.id else safe(run.id, 60)))
    return out
