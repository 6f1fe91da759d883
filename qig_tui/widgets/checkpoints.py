"""The newest checkpoints, with which of them is best and which was last good."""

from collections.abc import Iterable, Mapping, Sequence

from textual.strip import Strip

from qig_tui.sources.checkpoints import CheckpointEntry, in_sight, rest_of
from qig_tui.text import ABSENT, clip, grouped, number, pad, pad_left, safe
from qig_tui.widgets.lines import Lines, Part


class CheckpointStrip(Lines):
    """A tick says that names and sizes are as published; digests are checked by `r`."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._entries: Sequence[CheckpointEntry] = ()
        self._tagged: Mapping[str, CheckpointEntry] = {}
        self._problem: str | None = None
        self._none = ""

    def show(
        self,
        entries: Sequence[CheckpointEntry],
        tagged: Mapping[str, CheckpointEntry],
        problem: str | None,
        none: str = "none yet",
    ) -> None:
        """Args: problem: why the entries cannot be listed. none: what is said where there are none."""
        if entries is not self._entries or (problem, none) != (self._problem, self._none):
            self._entries, self._tagged, self._problem, self._none = entries, tagged, problem, none
            self.redraw()

    def in_short(self) -> str:
        """Which are best and last good, in a few words."""
        known = (("best", self._tagged.get("best")), ("last good", self._tagged.get("last good")))
        found = [f"{tag} {grouped(entry.step)}" for tag, entry in known if entry is not None and entry.step is not None]
        return "  ".join(found) if found else f"{grouped(len(self._entries))} checkpoints"

    def lines(self, width: int, height: int) -> Iterable[Strip]:
        marks: list[Part] = []
        for tag, short in (("best", "best"), ("last good", "good")):
            entry = self._tagged.get(tag)
            if entry is not None and entry.step is not None:
                word = tag if width >= 50 else short
                marks += [("dim", f"{'  ' if marks else ''}{word} "), ("text", grouped(entry.step))]
        yield self.heading(width, [("strong", "CHECKPOINTS")], marks)
        if self._problem is not None:
            yield self.strip(("critical", f"✖ {safe(self._problem, width)}"))
        elif not self._entries:
            yield self.strip(("dim", self._none))
        room = height - 1
        shown = in_sight(self._entries, room if len(self._entries) <= room else room - 1)
        for entry in shown:
            yield self._row(entry, width)
        if len(shown) < len(self._entries):
            yield self.strip(("dim", f"  {rest_of(self._entries, shown)}"))

    def _row(self, entry: CheckpointEntry, width: int) -> Strip:
        step = pad_left(ABSENT if entry.step is None else grouped(entry.step), 8)
        if entry.problem:
            return self.strip(("critical", "✖ "), ("text", step), ("critical", f"  {safe(entry.problem, width)}"))
        manifest = entry.manifest
        phi = None if manifest is None else manifest.metrics.get("phi")
        reason = "" if manifest is None else safe(manifest.reason, 10)
        tags = [tag for tag, found in self._tagged.items() if found.name == entry.name]
        tags += [safe(tag, 20) for tag in entry.tags if tag not in tags]
        return self.strip(
            ("ok", "✓ "),
            ("text", step),
            ("dim", "  Φ "),
            ("text", pad(number(phi), 7)),
            ("dim", pad(reason, 11) if width >= 50 else ""),
            ("accent", clip(" ".join(tags), max(width - (32 if width >= 50 else 21), 0))),
            width=width,
        )
