"""Text from a file made safe for a terminal. Every path from a record to a screen passes through here."""

import re
import unicodedata

_ESCAPED_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
# Letters and marks that show nothing: joiners, fillers, variation selectors. They hide, or make widths disagree.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


def _visible(character: str) -> str:
    if unicodedata.category(character) not in _ESCAPED_CATEGORIES and not _INVISIBLE.match(character):
        return character
    code = ord(character)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def printable(text: object, limit: int | None = None) -> str:
    """One line in which nothing moves the cursor, changes the colour, turns the direction or hides.

    Control, format (bidirectional marks, zero-width), surrogate, private, unassigned and invisible characters become
    their backslash escapes; a result of more than `limit` characters is cut and ends in "…".
    Markup of a particular screen library is the caller's to escape: it is not a matter of characters.
    """
    source = str(text)
    if limit is not None:
        # One more than is shown, so that the cut below is seen.
        source = source[: limit + 1]
    shown = source if source.isascii() and source.isprintable() else "".join(map(_visible, source))
    return shown if limit is None or len(shown) <= limit else (shown[: max(limit - 1, 0)] + "…")[:limit]
