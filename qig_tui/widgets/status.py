"""One line that says whether the run is well."""

from collections.abc import Iterable, Sequence

from rich.cells import cell_len
from textual.strip import Strip

from qig_core.rundir.liveness import Word
from qig_tui.journal import ALARMS
from qig_tui.picture import RunPicture
from qig_tui.text import clip, duration, grouped, percent, regime_text, safe, thin_bar
from qig_tui.widgets.lines import Lines, Part

_BAR = 20
_WORD, _STEP = 0, 3
_WORD_TONES = {
    Word.LIVE: "ok",
    Word.SLOW: "warning",
    Word.BUSY: "accent",
    Word.PAUSED: "accent",
    Word.SILENT: "warning",
    Word.HUNG: "critical",
    Word.EXITED: "strong",
    Word.KILLED: "critical",
}
_STATE_TONES = {"unarmed": "dim", "ok": "ok", "unjudged": "warning", "warning": "warning", "critical": "critical"}


def word_tone(word: Word, exit_code: int | None) -> str:
    """The tone of a liveness word; an end with an error is as bad as a death."""
    return "critical" if word == Word.EXITED and exit_code not in (0, None) else _WORD_TONES[word]


class StatusLine(Lines):
    """Name, liveness, progress, time left, regime, worst verdict; the least important leaves first."""

    DEFAULT_CSS = """
    StatusLine { height: 1; background: $panel; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._picture: RunPicture | None = None
        self._frozen = False
        self._now: RunPicture | None = None

    def show(self, picture: RunPicture, *, frozen: bool, now: RunPicture | None = None) -> None:
        """Args: now: the run as it is now, where the picture is one of the past."""
        self._picture, self._frozen, self._now = picture, frozen, now
        self.redraw()

    def lines(self, width: int, height: int) -> Iterable[Strip]:
        picture = self._picture
        if picture is None:
            return []
        groups = _groups(picture, self._now, width, frozen=self._frozen, detailed=width >= 72)
        kept, room = _fitting(groups, width - 2)
        if not any(groups[index][0] == _STEP for index in kept):
            # Where the run stands says more than how its word came about.
            groups = _groups(picture, self._now, width, frozen=self._frozen, detailed=False)
            kept, room = _fitting(groups, width - 2)
        if _WORD not in [groups[index][0] for index in kept]:
            word = next(parts for rank, parts in groups if rank == _WORD)
            return [self.strip(*[(tone, clip(text, width)) for tone, text in word[:1]], width=width)]
        shown = [parts for index, (_, parts) in enumerate(groups) if index in kept]
        line: list[Part] = [("text", " ")]
        for index, parts in enumerate(shown):
            if index:
                # What room is left goes before the verdict, so that it stands on the right edge.
                last = index == len(shown) - 1
                line.append(("faint", " " + ("─" * max(room, 0) if last else "") + "─ "))
            line += parts
        return [self.strip(*line, width=width)]


def _fitting(groups: Sequence[tuple[int, list[Part]]], room: int) -> tuple[set[int], int]:
    """By falling importance what fits, and the cells that are left; the order on the line stays."""
    kept: set[int] = set()
    for index, (_, parts) in sorted(enumerate(groups), key=lambda entry: entry[1][0]):
        need = sum(cell_len(text) for _, text in parts) + (3 if kept else 0)
        if need <= room:
            kept.add(index)
            room -= need
    return kept, room


def _groups(
    picture: RunPicture, now: RunPicture | None, width: int, *, frozen: bool, detailed: bool
) -> list[tuple[int, list[Part]]]:
    """Parts of the line with their rank: 0 is the last to leave."""
    progress, live = picture.progress, picture.liveness
    tone = word_tone(live.word, picture.manifest.exit_code)
    word = f"{live.glyph} {live.word}"
    if live.word == Word.EXITED:
        # The exit code is what the word says, and is never left out.
        word, detailed = f"{live.glyph} {safe(live.text, 30)}", False
    groups: list[tuple[int, list[Part]]] = [
        # Whose numbers these are is not left out.
        (2, [("strong", clip(picture.name, 28))])
        if picture.stream is None
        else (
            1,
            [("strong", clip(picture.name, 28 if width >= 100 else 12)), ("cursor", f" · {safe(picture.stream, 24)}")],
        ),
        (_WORD, [(tone, word), ("text", f" {safe(live.detail, 30)}" if detailed and live.detail else "")]),
    ]
    if progress.step is not None:
        total = "" if progress.total is None else f" / {grouped(progress.total)}"
        past: list[Part] = [] if now is None else [("cursor", "◀ PAST ")]
        groups.append(
            (_STEP if now is None else 1, [*past, ("dim", "step "), ("text", grouped(progress.step)), ("dim", total)])
        )
    if progress.fraction is not None:
        filled, rest = thin_bar(progress.fraction, _BAR)
        groups.append((7, [("accent", filled), ("faint", rest)]))
        groups.append((5, [("text", percent(progress.fraction))]))
    if progress.eta_s is not None:
        groups.append((6, [("dim", "ETA "), ("text", duration(progress.eta_s))]))
    if picture.history.regime:
        groups.append((8, [("text", regime_text(picture.history.regime, 24))]))
    if frozen:
        groups.append((1, [("cursor", "‖ FROZEN")]))
    if picture.problem is not None:
        # A reader of the numbers has to know that they may be old; the whole sentence stands in the last line.
        groups.append((1, [("critical", clip(f"▲ {safe(picture.problem, 200)}", max(width // 2, 12)))]))
    worst, words = picture.verdict()
    tone = "dim" if worst == "ok" and not picture.watched else _STATE_TONES[worst]
    groups.append((1, [("dim", "" if now is None else "then "), (tone, words)]))
    if now is not None:
        # Wherever one looks: what is wrong with the run now.
        worst, words = now.verdict()
        if worst in ALARMS:
            groups.append((1, [("dim", "now "), (_STATE_TONES[worst], words)]))
    return groups
