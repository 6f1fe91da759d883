"""In what two checkpoints of a run differ, as a child process compares them. Nothing is changed here."""

import time
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

from rich.text import Text
from textual import work
from textual.containers import VerticalScroll

from qig_core.rundir.layout import RunDir
from qig_tui.actions import child, diff_argv
from qig_tui.checkpoints.diff import diff_text
from qig_tui.picture import RunPicture
from qig_tui.screens.reading import ReadingDialog
from qig_tui.text import percent, safe, size


class DiffScreen(ReadingDialog[None]):
    """Args: a, b: names of checkpoints, the earlier one first."""

    def __init__(self, picture: RunPicture, run: RunDir, a: str, b: str) -> None:
        super().__init__(f"{safe(a, 40)} and {safe(b, 40)}")
        self._run = run
        self._names = (a, b)
        self.result: Mapping[str, Any] | None = None

    def on_mount(self) -> None:
        self.say(Text("comparing", style="dim"))
        self._compare()

    @work(exclusive=True, group="diff")
    async def _compare(self) -> None:
        async with aclosing(child(diff_argv(self._run, *self._names))) as reports:
            async for found in reports:
                if isinstance(found.get("progress"), dict):
                    self.say(Text(_progress(found["progress"]), style="dim"))
                elif isinstance(found.get("result"), dict):
                    self.result = found["result"]
                    self._show()
                elif "error" in found:
                    self.say(Text(f"✖ not compared: {safe(found['error'], 300)}", style="bold"))

    def on_resize(self) -> None:
        self.call_after_refresh(self._show)

    def _show(self) -> None:
        if self.result is not None:
            width = self.query_one("#dialog", VerticalScroll).scrollable_content_region.width
            # One less: a scroll bar may come with it.
            self.say(diff_text(self.result, max(width - 1, 60), time.time()))


def _progress(at: Mapping[str, Any]) -> str:
    done, total = at.get("done"), at.get("total")
    if not isinstance(done, int) or not isinstance(total, int) or total <= 0:
        return "comparing"
    return f"comparing {percent(done / total)} of {size(total)}"
