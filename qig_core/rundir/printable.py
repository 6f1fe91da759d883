"""Text from a file made safe for a terminal. Every path from a record to a screen passes through here."""

import unicodedata

_ESCAPED_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def _visible(character: str) -> str:
    code = ord(character)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def printable(text: object, limit: int | None = None) -> str:
    """One line in which nothing moves the cursor, changes the colour, turns the direction or hides.

    Control, format (bidirectional marks, zero-width), surrogate, private and unassigned characters become their
    backslash escapes; what is longer than `limit` characters is cut and ends in "…".
    Markup of a particular screen library is the caller's to escape: it is not a matter of characters.
    """
    source = str(text)
    if limit is not None and len(source) > limit:
        source = source[: max(limit - 1, 0)] + "…"
    if source.isascii() and source.isprintable():
        return source
    return "".join(_visible(c) if unicodedata.category(c) in _ESCAPED_CATEGORIES else c for c in source)
