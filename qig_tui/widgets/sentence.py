"""What stands in the middle of a screen where there is nothing to show: a sentence, and what helps."""

from collections.abc import Iterable

from textual.strip import Strip

from qig_tui.text import clip
from qig_tui.widgets.lines import Lines


class Sentence(Lines):
    """Two lines."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._words: tuple[str, str] = ("", "")

    def say(self, first: str, second: str = "") -> None:
        self._words = first, second
        self.redraw()

    def lines(self, width: int, height: int) -> Iterable[Strip]:
        for _ in range(max(height // 2 - 1, 0)):
            yield self.strip(("text", ""))
        for tone, words in zip(("text", "dim"), self._words, strict=True):
            shown = clip(words, width)
            yield self.strip((tone, " " * ((width - len(shown)) // 2) + shown))
