"""One emergency in full: cause, stages, conditions, the samples around it as lines and as numbers, the stacks."""

import math
import re
import time
from collections.abc import Iterable, Iterator, Sequence

from rich.cells import cell_len
from textual.strip import Strip

from qig_tui.alarms.stops import exit_words
from qig_tui.alarms.words import blame_text, limit_text
from qig_tui.journal import ALARMS, GLYPHS, STATES, Condition
from qig_tui.sources.emergencies import EmergencyDetail, Remembered
from qig_tui.text import ABSENT, clock, duration, grouped, number, pad, pad_left, safe, sparkline
from qig_tui.widgets.emergency_list import cause_text, saved_text
from qig_tui.widgets.lines import Lines, Part

_HEADLINE = ("loss", "loss_heldout", "phi", "kappa", "drift_rolling", "drift_velocity", "grad_norm", "lr")
_MOST_METRICS = 14
_TABLE = 20
_STEP, _CLOCK, _CELL = 9, 8, 8
_NAME = 16
_MOST_LINES = 2000
_TONES = {"unarmed": "dim", "ok": "ok", "warning": "warning", "critical": "critical"}


def beyond(value: float | None, condition: Condition) -> bool:
    """Whether a value lies on the wrong side of a condition's limit; one that is not finite where that is asked."""
    if value is None:
        return False
    if condition.comparison == "finite":
        return not math.isfinite(value)
    if condition.limit is None or math.isnan(value) or condition.statistic:
        return False
    if condition.comparison == "≤":
        return value > condition.limit
    return condition.comparison == "≥" and value < condition.limit


def blamed_metrics(detail: EmergencyDetail) -> list[str]:
    """Metrics that alarms are about or are blamed on: those of critical conditions first."""
    alarmed = sorted(
        (condition for condition in detail.conditions if condition.state in ALARMS),
        key=lambda condition: -STATES.index(condition.state),
    )
    return list(dict.fromkeys(metric for c in alarmed for metric in (c.metric, *c.cause) if metric))


def broken_limits(detail: EmergencyDetail) -> dict[str, Condition]:
    """By metric, the worst alarm that its values can be laid beside."""
    found: dict[str, Condition] = {}
    alarmed = [condition for condition in detail.conditions if condition.state in ALARMS]
    for condition in sorted(alarmed, key=lambda condition: -STATES.index(condition.state)):
        if condition.comparison == "finite":
            for metric in condition.cause or (condition.metric,):
                found.setdefault(metric, condition)
        elif condition.limit is not None and not condition.statistic:
            found.setdefault(condition.metric, condition)
    return found


def headline(detail: EmergencyDetail) -> list[str]:
    """The metrics to show: those to blame, then the well-known ones, then any other."""
    measured = dict.fromkeys(name for sample in detail.samples for name in sample.values)
    wanted = blamed_metrics(detail) + [name for name in _HEADLINE if name in measured]
    return [name for name in dict.fromkeys([*wanted, *measured]) if name in measured][:_MOST_METRICS]


def first_beyond(samples: Sequence[Remembered], metric: str, condition: Condition) -> int | None:
    """Since which of the samples the metric lies beyond its limit, up to the last one; None where it does not."""
    first = None
    for index, sample in enumerate(samples):
        value = sample.values.get(metric)
        if value is None:
            continue
        if not beyond(value, condition):
            first = None
        elif first is None:
            first = index
    return first


class EmergencyView(Lines):
    """As high as it needs to be: whatever holds it scrolls."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._detail: EmergencyDetail | None = None

    def show(self, detail: EmergencyDetail) -> None:
        self._detail = detail
        self.styles.height = max(sum(1 for _ in self.lines(self.size.width or 80, 0)), 1)
        self.redraw()

    def lines(self, width: int, height: int) -> Iterable[Strip]:
        if self._detail is None:
            yield self.strip(("dim", "reading …"))
            return
        count = 0
        for strip in self._sections(self._detail, width):
            count += 1
            if count > _MOST_LINES:
                yield self.strip(("dim", "… more than is shown"))
                return
            yield strip

    def _sections(self, detail: EmergencyDetail, width: int) -> Iterator[Strip]:
        yield from self._facts(detail, width)
        yield from self._stages(detail, width)
        yield from self._conditions(detail, width)
        if detail.samples:
            yield from self._sparklines(detail, width)
            yield from self._table(detail, width)
        for title, text in (("TRACEBACK", detail.traceback), ("STACKS", detail.stacks)):
            if text:
                yield self.strip()
                note = "cut" if title == "STACKS" and detail.stacks_are_cut else ""
                yield self.heading(width, [("strong", title)], [("dim", note)] if note else [])
                for line in text.expandtabs(4).splitlines():
                    yield self.strip(("text", pad(safe(line, max(width, 1)), width)))

    def _facts(self, detail: EmergencyDetail, width: int) -> Iterator[Strip]:
        brief = detail.brief
        tone = {"critical": "critical", "warning": "warning"}.get(brief.severity, "strong")
        yield self.strip((tone, pad(cause_text(brief), width)))
        when = ABSENT if brief.t is None else _date(brief.t)
        facts = [when, "" if brief.step is None else f"step {grouped(brief.step)}"]
        if brief.exit_code is not None:
            words = exit_words(brief.exit_code)
            facts.append(f"exit code {brief.exit_code}" + (f": {words}" if words else ""))
        yield self.strip(("text", pad(" · ".join(fact for fact in facts if fact), width)))
        if saved := saved_text(brief):
            digest = f", fingerprint {detail.fingerprint[:12]}" if detail.fingerprint else ""
            tone = "ok" if brief.checkpoint else "warning"
            yield self.strip((tone, "✓ " if brief.checkpoint else "▲ "), ("text", pad(f"{saved}{digest}", width - 2)))
        if brief.problem:
            yield self.strip(("warning", pad(f"▲ {brief.problem}", width)))
        elif not brief.has_record and brief.kind != "hang":
            yield self.strip(("dim", pad("its file is gone: only its event tells of it", width)))
        said = [f"session {brief.session}"] if brief.session else []
        said += [f"{name} {told}" for name, told in detail.versions.items()]
        if said:
            yield self.strip(("dim", pad(" · ".join(said), width)))

    def _stages(self, detail: EmergencyDetail, width: int) -> Iterator[Strip]:
        stages = detail.brief.stages
        if not stages:
            return
        yield self.strip()
        yield self.heading(width, [("strong", "STAGES")], [("dim", f"from {clock(stages[0][1])}")])
        for name, t in stages:
            after = duration(t - stages[0][1]) if t >= stages[0][1] else ABSENT
            yield self.strip(("ok", "✓ "), ("text", pad(name, _NAME)), ("strong", pad_left(after, 8)))

    def _conditions(self, detail: EmergencyDetail, width: int) -> Iterator[Strip]:
        if not detail.conditions:
            return
        yield self.strip()
        counts = [(state, sum(c.state == state for c in detail.conditions)) for state in reversed(STATES)]
        right: list[Part] = [(_TONES[state], f"{count} {state}  ") for state, count in counts if count]
        yield self.heading(width, [("strong", "CONDITIONS")], [*right[:-1], (right[-1][0], right[-1][1].rstrip())])
        for condition in sorted(detail.conditions, key=lambda c: -STATES.index(c.state)):
            if condition.state not in ALARMS:
                break
            tone = _TONES[condition.state]
            value = "" if condition.value is None else number(condition.value)
            compared = f"{condition.metric} {value}".strip()
            before, blame = 11 + _NAME + 1, blame_text(condition)
            compared = f"{compared} ({limit_text(condition)})"
            fits = before + cell_len(f"{compared}, {blame}") <= width
            yield self.strip(
                (tone, f"{GLYPHS[condition.state]} {pad(condition.state, 9)}"),
                ("strong", pad(condition.id, _NAME)),
                ("text", pad(f" {compared}{f', {blame}' if blame and fits else ''}", max(width - before + 1, 0))),
            )
            if blame and not fits:
                yield self.strip(("text", pad("", before)), ("dim", pad(blame, max(width - before, 0))))

    def _sparklines(self, detail: EmergencyDetail, width: int) -> Iterator[Strip]:
        samples = detail.samples
        steps = [sample.step for sample in samples if sample.step is not None]
        of = f"steps {grouped(steps[0])} … {grouped(steps[-1])}" if steps else ""
        yield self.strip()
        title: list[Part] = [("strong", "AROUND IT"), ("dim", f"  the last {grouped(len(samples))} samples")]
        yield self.heading(width, title, [("dim", of)])
        room = max(width - _NAME - 13, 8)
        broken = broken_limits(detail)
        for metric in headline(detail):
            values = [sample.values.get(metric, math.nan) for sample in samples]
            last = next((sample.values[metric] for sample in reversed(samples) if metric in sample.values), None)
            condition = broken.get(metric)
            marks = _crossed(samples, metric, condition, room) if condition is not None else ""
            bad = condition is not None and beyond(last, condition)
            yield self.strip(
                ("strong" if condition is not None else "text", pad(metric, _NAME)),
                *self._line(sparkline(values, room), marks, room),
                ("critical" if bad else "strong", f" {pad_left(number(last), 9)}{' ✖' if bad else ''}"),
            )
            if condition is not None and marks.strip():
                yield from self._crossing(samples, metric, condition, marks, width)

    def _line(self, line: str, marks: str, room: int) -> list[Part]:
        """A sparkline, what lies beyond the limit in another tone."""
        parts: list[Part] = []
        for index, character in enumerate(line):
            tone = "critical" if index < len(marks) and marks[index] != " " else "accent"
            if parts and parts[-1][0] == tone:
                parts[-1] = (tone, parts[-1][1] + character)
            else:
                parts.append((tone, character))
        return [*parts, ("text", " " * max(room - len(line), 0))]

    def _crossing(
        self, samples: Sequence[Remembered], metric: str, condition: Condition, marks: str, width: int
    ) -> Iterator[Strip]:
        """Where it lies beyond, and in words since when."""
        first = first_beyond(samples, metric, condition)
        step = None if first is None else samples[first].step
        what = "not finite" if condition.comparison == "finite" else f"beyond {limit_text(condition)}"
        words = what if step is None else f"{what} from step {grouped(step)} on"
        marks = pad(marks, max(width - _NAME, len(marks)))
        gaps = [(m.start(), m.end()) for m in re.finditer(" +", marks) if m.end() - m.start() >= len(words) + 4]
        before = pad("", _NAME)
        if not gaps:
            yield self.strip(("text", before), ("critical", marks.rstrip()))
            yield self.strip(("text", before), ("dim", pad(words, len(marks))))
            return
        start, end = gaps[-1]
        # Beside the last stretch, on whichever side there is room.
        at = end - len(words) - 2 if end < len(marks.rstrip()) else start + 2
        yield self.strip(
            ("text", before),
            ("critical", marks[:at]),
            ("dim", words),
            ("critical", marks[at + len(words) :].rstrip()),
        )

    def _table(self, detail: EmergencyDetail, width: int) -> Iterator[Strip]:
        newest = detail.samples[-_TABLE:]
        has_clock = width >= 70
        front = f"  {pad_left('step', _STEP)}" + (f" {pad_left('at', _CLOCK)}" if has_clock else "")
        columns: list[tuple[str, int]] = []
        room = width - len(front)
        for metric in headline(detail):
            cells = min(max(cell_len(metric), _CELL), _NAME)
            if cells + 1 > room:
                break
            columns.append((metric, cells))
            room -= cells + 1
        broken = broken_limits(detail)
        yield self.strip()
        yield self.heading(width, [("strong", f"THE LAST {len(newest)}")])
        yield self.strip(("dim", front + "".join(f" {pad_left(metric, cells)}" for metric, cells in columns)))
        for sample in reversed(newest):
            crossed = {m for m, _ in columns if m in broken and beyond(sample.values.get(m), broken[m])}
            step = ABSENT if sample.step is None else grouped(sample.step)
            parts: list[Part] = [("critical", "✖ " if crossed else "  "), ("text", pad_left(step, _STEP))]
            if has_clock:
                parts.append(("dim", f" {'--:--:--' if sample.t is None else clock(sample.t)}"))
            for metric, cells in columns:
                tone = "critical" if metric in crossed else "text"
                parts.append((tone, f" {pad_left(number(sample.values.get(metric)), cells)}"))
            yield self.strip(*parts)


def _crossed(samples: Sequence[Remembered], metric: str, condition: Condition, width: int) -> str:
    """A mark under every cell of a sparkline in which the metric lies beyond its limit."""
    count = len(samples)
    width = min(width, count)
    flags = [beyond(sample.values.get(metric), condition) for sample in samples]
    return "".join("▴" if any(flags[i * count // width : (i + 1) * count // width]) else " " for i in range(width))


def _date(t: float) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(t))
    except (OverflowError, ValueError, OSError):
        return ABSENT
