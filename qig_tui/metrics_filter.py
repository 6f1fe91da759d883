"""Which metrics are meant by a few typed words. No Textual."""

import re
from collections.abc import Callable

Match = Callable[[str], bool]


def metrics_filter(text: str) -> Match:
    """A metric, given as its name and label in one line, fits where any of the words is in it and none of the `-words`.

    A word with * or ? alone is what begins and ends so; else a word is a regular expression where it is one, or as it
    stands. Upper and lower case are the same.
    """
    wanted: list[re.Pattern[str]] = []
    unwanted: list[re.Pattern[str]] = []
    for word in text.split():
        minus = word.startswith("-") and len(word) > 1
        (unwanted if minus else wanted).append(_pattern(word[1:] if minus else word))

    def fits(described: str) -> bool:
        return (not wanted or any(p.search(described) for p in wanted)) and not any(
            p.search(described) for p in unwanted
        )

    return fits


_GLOB = re.compile(r"[\w*?-]*[*?][\w*?-]*")
_WILD = {"*": r"\S*", "?": r"\S"}


def _pattern(word: str) -> re.Pattern[str]:
    if _GLOB.fullmatch(word):
        whole = "".join(_WILD.get(character) or re.escape(character) for character in word)
        return re.compile(rf"(?<!\S){whole}(?!\S)", re.IGNORECASE)
    try:
        return re.compile(word, re.IGNORECASE)
    except re.error:
        return re.compile(re.escape(word), re.IGNORECASE)
