"""Whether the run can be stopped now and by whom; what was asked of it, in stages with their times; how it ended."""

import time
from collections.abc import Iterable, Iterator
from typing import ClassVar

from rich.cells import cell_len
from textual.binding import Binding, BindingType
from textual.strip import Strip

from qig_tui.alarms.stops import Asking, Stage, StopView
from qig_tui.text import ABSENT, clip, clock, duration, grouped, pad, pad_left
from qig_tui.widgets.lines import Lines, Part

_NAME = 14
_TIME = 7
_GIVEN_UP_S = 3600.0
"""After so long nothing more is said to be awaited."""


class AbortPanel(Lines, can_focus=True):
    """Shows only: the key that stops the run opens a dialog."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "scroll_lines(-1)", "up", show=False),
        Binding("down", "scroll_lines(1)", "down", show=False),
    ]

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._view: StopView | None = None
        self._top = 0

    def show(self, view: StopView) -> None:
        self._view = view
        self.redraw()

    def lines(self, width: int, height: int) -> Iterable[Strip]:
        view = self._view
        if view is None:
            return
        right: list[Part] = [(view.tone, view.verdict)]
        if view.later:
            right.append(("cursor", f"  {grouped(view.later)} later"))
        title: list[Part] = [("cursor", "▸ ")] if self.has_focus else []
        yield self.heading(width, [*title, ("strong", "ABORT")], right)
        made = list(self._body(view, width))
        room = height - 1
        if len(made) > room:
            # Empty lines first: they only part what belongs apart.
            spare = len(made) - room
            kept = []
            for strip in made:
                if spare and not strip.text.strip():
                    spare -= 1
                else:
                    kept.append(strip)
            made = kept
        self._top = max(min(self._top, len(made) - room), 0)
        yield from made[self._top :]

    def on_focus(self) -> None:
        self.redraw()

    def on_blur(self) -> None:
        self._top = 0
        self.redraw()

    def action_scroll_lines(self, lines: int) -> None:
        self._top = max(self._top + lines, 0)
        self.redraw()

    def _body(self, view: StopView, width: int) -> Iterator[Strip]:
        for tone, words in view.facts:
            yield from self._wrapped(tone, words, width)
        if view.end:
            yield self.strip()
            yield from self._wrapped(view.end_tone, view.end, width)
            for known, words in view.proof:
                glyph, tone = ("✓", "ok") if known else ("–", "dim") if known is None else ("✖", "critical")
                yield self.strip((tone, f"{glyph} "), ("dim", pad(words, width - 2)))
        if view.last is not None:
            yield self.strip()
            yield from self._asking(view.last, width, is_moving=view.is_moving)
        if view.others:
            yield self.strip()
            for asking in view.others:
                yield self._in_short(asking, width)

    def _wrapped(self, tone: str, words: str, width: int) -> Iterator[Strip]:
        for line in wrapped(words, width):
            yield self.strip((tone, pad(line, width)))

    def _asking(self, asking: Asking, width: int, *, is_moving: bool) -> Iterator[Strip]:
        origin = asking.origin
        at = ABSENT if origin is None else clock(origin)
        by = f" by {asking.by}" if asking.by else ""
        since = "" if asking.is_timed_from_request else "  times since it was seen"
        yield self.strip(("strong", pad(f"{asking.title}{by}", max(width - 9, 4))), ("dim", f" {at}"))
        last = len(asking.stages) - 1
        for index, stage in enumerate(asking.stages):
            if stage.name == "requested" and stage.t is None and not stage.detail:
                yield from self._stage("✓", "dim", stage, ABSENT, since.strip(), width)
                continue
            after = None if stage.t is None or origin is None else stage.t - origin
            is_end = index == last and asking.ended
            refused = stage.name == "refused"
            glyph = "✖" if refused else "✓" if index < last or is_end else "●"
            tone = "critical" if refused else "accent" if glyph == "●" else "ok"
            shown = ABSENT if after is None or after < 0 else duration(after)
            yield from self._stage(glyph, tone, stage, shown, stage.detail, width)
        if is_moving and not asking.ended and asking.stages:
            waited = time.time() - asking.t
            if 0 <= waited < _GIVEN_UP_S:
                yield self.strip(("dim", f"○ {pad('waiting', _NAME)}{pad_left(duration(waited), _TIME)}"))

    def _stage(self, glyph: str, tone: str, stage: Stage, after: str, detail: str, width: int) -> Iterator[Strip]:
        before = 2 + _NAME + _TIME + 2
        first, *more = wrapped(detail, max(width - before, 1))
        yield self.strip(
            (tone, f"{glyph} "),
            ("text", pad(stage.name, _NAME)),
            ("strong", pad_left(after, _TIME)),
            ("dim", f"  {first}"),
        )
        for line in more:
            yield self.strip(("dim", pad("", before)), ("dim", line))

    def _in_short(self, asking: Asking, width: int) -> Strip:
        stage = asking.stages[-1]
        origin = asking.origin
        took = "" if stage.t is None or origin is None or stage.t <= origin else f" after {duration(stage.t - origin)}"
        tone = "critical" if stage.name == "refused" else "ok" if asking.ended else "accent"
        glyph = "✖" if stage.name == "refused" else "✓" if asking.ended else "●"
        return self.strip(
            (tone, f"{glyph} "),
            ("dim", f"{clock(asking.t)} "),
            (
                "text",
                pad(f"{asking.title} {stage.name}{took}{f': {stage.detail}' if stage.detail else ''}", width - 11),
            ),
        )


def wrapped(words: str, width: int, *, most: int = 3) -> list[str]:
    """Lines of so many cells; what does not fit into the most of them ends in an ellipsis."""
    lines = [""]
    for word in words.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if cell_len(longer) <= width or not lines[-1] or len(lines) == most:
            lines[-1] = longer
        else:
            lines.append(word)
    return [clip(line, width) for line in lines]
