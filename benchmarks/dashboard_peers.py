"""Six charts of one run's metrics in a terminal: by our widget, by textual-plotext's, by textual-plot's.

    python benchmarks/dashboard_peers.py ours|textual-plotext|textual-plot OUT.json [--points N] [--hertz H]
        [--seconds S] [--thin]

The same app, the same numbers, the same frames a second for each; a tick is one new point in every chart and a redraw.
Writes into OUT.json what a frame cost this process and when the window began and ended, by the clock that all processes
share. Nothing else of the dashboard is in it. --thin gives the peers what a careful user would: the lowest and the
highest point of every half column instead of all, which is what our widget does by itself.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any, ClassVar, Protocol

os.environ.setdefault("TEXTUAL_FPS", "30")
os.environ.setdefault("TEXTUAL_ANIMATIONS", "none")

import numpy as np
from dashboard_runs import CHARTED, figures
from numpy.typing import NDArray
from textual.app import App, ComposeResult
from textual.containers import Grid
from textual.widget import Widget

WARM_S = 1.5
THIN = 128
"""Buckets of a thinned curve: half a column each, in a third of the terminal."""


class Chart(Protocol):
    """One of them: a widget that holds a curve."""

    widget: Widget

    def start(self, steps: NDArray[np.int64], values: NDArray[np.float64]) -> None: ...

    def add(self, step: int, value: float) -> None: ...

    def draw(self) -> None: ...


def thinned(steps: NDArray[Any], values: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """The lowest and the highest point of each of THIN buckets, in their order."""
    if len(steps) < 4 * THIN:
        return steps, values
    width = -(-len(steps) // THIN)
    starts = np.arange(0, len(steps), width)
    chosen = [start + each(values[start : start + width]) for start in starts for each in (np.argmin, np.argmax)]
    kept = np.unique(np.array([*chosen, len(steps) - 1]))
    return steps[kept], values[kept]


class Ours:
    """As the dashboard does it: samples into a history, which thins them, and from there what a chart draws."""

    def __init__(self, label: str, *, thin: bool) -> None:
        from qig_core.rundir.schema import Manifest
        from qig_tui.picture import RunPicture
        from qig_tui.widgets.chart import LineChart

        self.widget = LineChart()
        self._metric = label
        self._picture = RunPicture(Manifest(id="run"))

    def start(self, steps: NDArray[np.int64], values: NDArray[np.float64]) -> None:
        from qig_core.rundir.schema import Scalars

        both = zip(steps.tolist(), values.tolist(), strict=True)
        self._picture.history.add([Scalars(step, step, 0.0, {self._metric: value}) for step, value in both])

    def add(self, step: int, value: float) -> None:
        self.start(np.array([step]), np.array([value]))

    def draw(self) -> None:
        from qig_tui.charting import chart_of
        from qig_tui.view import View

        self.widget.show(chart_of(self._picture, self._metric), View())


class Plotext:
    def __init__(self, label: str, *, thin: bool) -> None:
        from textual_plotext import PlotextPlot

        self.widget = PlotextPlot()
        self.widget.plt.title(label)
        self._thin = thin
        self._steps: list[int] = []
        self._values: list[float] = []

    def start(self, steps: NDArray[np.int64], values: NDArray[np.float64]) -> None:
        # It walks over them in Python: lists are what it is quickest with.
        self._steps, self._values = steps.tolist(), values.tolist()

    def add(self, step: int, value: float) -> None:
        self._steps.append(step)
        self._values.append(value)

    def draw(self) -> None:
        self.widget.plt.clear_data()
        steps, values = self._steps, self._values
        if self._thin:
            few = thinned(np.array(steps), np.array(values))
            steps, values = few[0].tolist(), few[1].tolist()
        self.widget.plt.plot(steps, values, marker="braille")
        self.widget.refresh()


class TextualPlot:
    def __init__(self, label: str, *, thin: bool) -> None:
        from textual_plot import HiResMode, PlotWidget

        self.widget = PlotWidget()
        self._mode, self._thin = HiResMode.BRAILLE, thin
        self._n = 0
        self._steps = np.empty(0)
        self._values = np.empty(0)

    def start(self, steps: NDArray[np.int64], values: NDArray[np.float64]) -> None:
        self._n = len(steps)
        self._steps, self._values = (np.concatenate((each, np.empty(10_000))) for each in (steps, values))

    def add(self, step: int, value: float) -> None:
        self._steps[self._n], self._values[self._n] = step, value
        self._n += 1

    def draw(self) -> None:
        self.widget.clear()
        steps, values = self._steps[: self._n], self._values[: self._n]
        if self._thin:
            steps, values = thinned(steps, values)
        self.widget.plot(steps, values, hires_mode=self._mode)


KINDS: dict[str, type[Ours] | type[Plotext] | type[TextualPlot]] = {
    "ours": Ours,
    "textual-plotext": Plotext,
    "textual-plot": TextualPlot,
}


class SixCharts(App[None]):
    CSS = "#six { grid-size: 3 2; } #six > * { width: 1fr; height: 1fr; }"
    BINDINGS: ClassVar = [("q", "quit", "leave")]

    def __init__(self, given: argparse.Namespace) -> None:
        super().__init__()
        self._charts: list[Chart] = [KINDS[given.kind](label, thin=given.thin) for label in CHARTED]
        self._hertz, self._seconds, self._out = given.hertz, given.seconds, given.out
        self._next = given.points
        self._frames = 0

    def compose(self) -> ComposeResult:
        with Grid(id="six"):
            yield from (chart.widget for chart in self._charts)

    def on_mount(self) -> None:
        steps = np.arange(self._next, dtype=np.int64)
        for chart, values in zip(self._charts, figures(steps).T, strict=False):
            chart.start(steps, values)
        self.call_after_refresh(self._draw)
        self.set_timer(WARM_S, self._begin)

    def _draw(self) -> None:
        for chart in self._charts:
            chart.draw()

    def _begin(self) -> None:
        self._began, self._cpu = time.perf_counter(), time.process_time()
        self._ticking = self.set_interval(1 / self._hertz, self._tick)
        self.set_timer(self._seconds, self._end)

    def _tick(self) -> None:
        (row,) = figures(np.array([self._next])).tolist()
        for chart, value in zip(self._charts, row, strict=False):
            chart.add(self._next, value)
        self._next += 1
        self._frames += 1
        self._draw()

    def _end(self) -> None:
        self._ticking.stop()
        # What was drawn last is painted before the window ends.
        self.set_timer(0.2, self._report)

    def _report(self) -> None:
        cpu, ended = time.process_time() - self._cpu, time.perf_counter()
        seen = {"frames": self._frames, "cpu_s": cpu, "began": self._began, "ended": ended}
        self._out.write_text(json.dumps(seen))
        self.exit()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("out", type=Path)
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--hertz", type=float, default=2.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--thin", action="store_true")
    SixCharts(parser.parse_args()).run()


if __name__ == "__main__":
    main()
