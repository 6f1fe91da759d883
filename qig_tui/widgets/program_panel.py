"""How far a run is in its phases, or how its Garys stand, in the side column of the run screen: as much as fits."""

from collections.abc import Iterable, Sequence

from textual.strip import Strip

from qig_tui.programs.constellation import Report
from qig_tui.programs.phases import GUARD_STATES, Guard, Phase, current
from qig_tui.text import ABSENT, clip, compact, grouped, number, pad, pad_left, quantity, thin_bar
from qig_tui.widgets.lines import Lines, Part

GUARD_TONES = {"ok": "ok", "open": "text", "unknown": "dim", "failed": "critical"}
PHASE_TONES = {"begun": "accent", "judged": "accent", "passed": "ok", "failed": "critical", "to come": "dim"}
RUNG_TONES = {"witness": "dim", "suggest": "text", "warn": "warning", "act": "warning"}
_BAR = 6
_WORD = 7


def by_severity(guards: Sequence[Guard]) -> list[Guard]:
    """The worst first, in their own order among equals."""
    return sorted(guards, key=lambda guard: GUARD_STATES.index(guard.state))


class ProgramPanel(Lines):
    """In one line where the run stands; below it, as far as there is room, what is most pressing comes first."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._phases: Sequence[Phase] = ()
        self._report: Report | None = None
        self._at: int | None = None
        self._needed = 0
        self.display = False

    def show(self, phases: Sequence[Phase], report: Report | None, at: int | None) -> bool:
        """Whether there is anything to show. Args: at: the step that is shown."""
        self._phases, self._report, self._at = phases, report, at
        self.display = bool(phases) or report is not None
        needed = self._lines_wanted
        if needed != self._needed:
            # As high as it needs; the arrangement says how high it may be.
            self._needed = needed
            self.styles.height = needed
        self.redraw()
        return self.display

    @property
    def _lines_wanted(self) -> int:
        """With an empty line at its end."""
        phase = current(self._phases)
        if phase is not None:
            return 3 + len(phase.guards) + phase.is_current + (phase.state == "failed" and bool(phase.reason))
        report = self._report
        return 1 if report is None else 3 + max(len(report.advice), 1) + len(report.garys)

    def lines(self, width: int, height: int) -> Iterable[Strip]:
        phase = current(self._phases)
        if phase is not None:
            yield from self._of_phases(phase, width, height)
        elif self._report is not None:
            yield from self._of_garys(self._report, width, height)

    def _of_phases(self, phase: Phase, width: int, height: int) -> Iterable[Strip]:
        guards = by_severity(phase.guards)
        left: list[Part] = [
            ("strong", "PHASE"),
            ("dim", f" {phase.index} of {phase.of} "),
            (PHASE_TONES[phase.state], f"{phase.glyph} {clip(phase.name, 16)}"),
        ]
        state = {"passed": "passed", "failed": "failed"}.get(phase.state, "")
        worst = guards[0].state if guards else "unknown"
        words = f"{state}, {phase.counts}" if state else phase.counts
        tone = PHASE_TONES[phase.state] if state else GUARD_TONES[worst] if worst == "failed" else "dim"
        yield self.heading(width, left, [(tone, words if len(words) + 30 < width else state or _short(phase))])
        if phase.state == "failed" and phase.reason:
            yield self.strip(("critical", pad(f"✖ {phase.reason}", width)))
        if height > 2 + len(guards):
            yield self._way(width)
        if phase.is_current and height > 3 + len(guards):
            yield self._span(phase, width)
        yield from (self._guard(guard, width) for guard in guards)
        if phase.more_guards:
            yield self.strip(("dim", f"  +{grouped(phase.more_guards)} more"))

    def _way(self, width: int) -> Strip:
        """Every phase with its sign: ✓ dormant ─ ▸ awakening ─ ○ demonstration."""
        parts: list[Part] = []
        for phase in self._phases:
            if parts:
                parts.append(("faint", " ─ "))
            parts.append((PHASE_TONES[phase.state], f"{phase.glyph} {clip(phase.name, max(width // 4, 6))}"))
        return self.strip(*parts, width=width)

    def _span(self, phase: Phase, width: int) -> Strip:
        share, words = phase.share(self._at), phase.span
        if share is None:
            return self.strip(("dim", pad(words, width)))
        filled, rest = thin_bar(share, max(min(width // 4, width - len(words) - 1), 0))
        return self.strip(("accent", filled), ("faint", rest), ("dim", f" {words}"), width=width)

    def _guard(self, guard: Guard, width: int) -> Strip:
        tone = GUARD_TONES[guard.state]
        bar, word = (_BAR if width >= 40 else 0), (_WORD if width >= 50 else 0)
        value = ABSENT if guard.value is None else number(guard.value)
        bound = guard.bound
        room = max(width - 2 - 10 - (bar + 1 if bar else 0) - (word + 1 if word else 0), 4)
        label = room - len(bound) - 1 if room - len(bound) > 14 else room
        parts: list[Part] = [(tone, f"{guard.glyph} "), ("text", pad(guard.label, label))]
        if label < room:
            parts.append(("dim", f" {bound}"))
        parts += [("strong", f" {pad_left(value, 8)} ")]
        if bar:
            filled, rest = ("", " " * bar) if guard.margin is None else thin_bar(guard.margin, bar)
            parts += [(tone, filled), ("faint", rest), ("text", " ")]
        if word:
            parts.append((tone, pad(guard.state, word)))
        return self.strip(*parts, width=width)

    def _of_garys(self, report: Report, width: int, height: int) -> Iterable[Strip]:
        near = report.too_near
        count = grouped(len(report.garys) + report.more_garys)
        right: list[Part] = [("dim", f"{number(report.min_rad)} … {number(report.max_rad)} rad apart")]
        if report.sound is False:
            right = [("critical", "✖ the Ocean has changed")]
        elif near:
            right = [("warning", f"▼ {grouped(len(near))} under {compact(report.floor_rad or 0.0)} rad")]
        yield self.heading(width, [("strong", "GARYS"), ("dim", f" {count}")], right)
        lines: list[list[Part]] = []
        for advice in report.advice[: max(height, 0)]:
            tone = RUNG_TONES.get(advice.rung, "text")
            lines.append(
                [(tone, f"{advice.rung_text} "), ("text", f"{advice.verb} {advice.gary}: "), ("dim", advice.said)]
            )
        if not lines:
            lines.append([("dim", "nothing is recommended")])
        scatter = f"variance {quantity(report.variance, 'rad²')}  coherence {number(report.coherence)}"
        lines.insert(0 if height > 2 + len(lines) else len(lines), [("dim", scatter)])
        room = max(height - 1 - len(lines), 0)
        some = report.garys if len(report.garys) <= room else report.garys[: max(room - 1, 0)]
        for gary in some:
            phi, loss = gary.numbers["phi"], gary.numbers["loss_heldout"]
            tone = "ok" if gary.role == "active" else "dim"
            what = f" Φ {pad(number(phi), 6)} held-out {pad(number(loss), 6)}"
            role = pad(gary.role_text, 11 if width >= 52 else 2)
            lines.append(
                [
                    ("text", pad(gary.name, 9)),
                    (tone, role),
                    ("dim", what),
                    ("text", "; ".join(gary.flags)),
                ]
            )
        if len(some) < len(report.garys) and room:
            lines.append([("dim", f"+{grouped(len(report.garys) - len(some))} more: 7 shows all")])
        for parts in lines[: max(height - 1, 0)]:
            yield self.strip(*parts)


def _short(phase: Phase) -> str:
    """3/4 hold."""
    if not phase.guards:
        return ""
    return f"{sum(guard.state == 'ok' for guard in phase.guards)}/{len(phase.guards) + phase.more_guards} hold"
