"""Which of several views is in sight, where there is room for one: one line of words. A click asks for another."""

from collections.abc import Iterable, Sequence

from textual import events
from textual.message import Message
from textual.strip import Strip

from qig_tui.widgets.lines import Lines, Part


class Tabs(Lines):
    """The one in sight stands between marks; the key for the next one is named."""

    DEFAULT_CSS = """
    Tabs { height: 1; }
    """

    class Chosen(Message):
        """A word was clicked."""

        def __init__(self, place: int) -> None:
            super().__init__()
            self.place = place

    def __init__(self, words: Sequence[str], key: str, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._words = words
        self._key = key
        self._place = 0

    def show(self, place: int) -> None:
        self._place = place
        self.redraw()

    def lines(self, width: int, height: int) -> Iterable[Strip]:
        parts: list[Part] = []
        for place, word in enumerate(self._words):
            parts.append(("strong", f"▸{word}◂") if place == self._place else ("dim", f" {word} "))
            parts.append(("text", " "))
        return [self.strip(*parts, ("strong", f" {self._key}"), ("dim", " next"), width=width)]

    def on_click(self, event: events.Click) -> None:
        event.stop()
        start = 0
        for place, word in enumerate(self._words):
            start += len(word) + 3
            if event.x < start:
                self.post_message(self.Chosen(place))
                return
