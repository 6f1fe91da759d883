"""The first screen of a run as an SVG that looks the same everywhere. Draws without a terminal."""

import asyncio
import re
from html import unescape
from pathlib import Path

from qig_tui.app import QigApp

_READY_S = 20.0
_STILL_S = 0.3
_LOOKS = 8
_CELL = 12.2
"""Width of a cell in the exporter's units: what it gives each character in `textLength`."""
_TEXT = re.compile(
    r'<text class="([^"]+)" x="([^"]+)" y="([^"]+)" textLength="[^"]+" clip-path="([^"]+)">([^<]*)</text>'
)
_BRAILLE = range(0x2800, 0x2900)


def portable(svg: str) -> str:
    """An exported screen in which every braille cell stands by itself.

    The exporter relies on `textLength` to stretch a run of text over its cells. Renderers that ignore it, and those
    that take braille from a fallback font of another width, would draw every chart askew.
    """
    return _TEXT.sub(_apart, svg.replace("<svg ", '<svg xml:space="preserve" ', 1))


def _apart(found: re.Match[str]) -> str:
    kind, x, y, clip, escaped = found.groups()
    text = unescape(escaped)
    if not any(ord(character) in _BRAILLE for character in text):
        return found.group()
    return "".join(
        f'<text class="{kind}" x="{float(x) + _CELL * i:.1f}" y="{y}" clip-path="{clip}">{character}</text>'
        for i, character in enumerate(text)
        if character not in " \N{NO-BREAK SPACE}\N{BRAILLE PATTERN BLANK}"
    )


def take_screenshot(app: QigApp, path: str, size: tuple[int, int]) -> None:
    """Draw the first screen and write it as SVG.

    Raises:
        OSError: the file cannot be written.
    """

    async def draw() -> str:
        async with app.run_test(size=size) as pilot:
            for _ in range(int(_READY_S / 0.05)):
                if getattr(app.screen, "is_drawn", None) is True and getattr(app.screen, "is_settled", True):
                    break
                await asyncio.sleep(0.05)
            await pilot.pause()
            # What a size or a worker changes late is in the picture too; of a run that moves, whatever there is then.
            shown = app.export_screenshot(title=app.title)
            for _ in range(_LOOKS):
                await asyncio.sleep(_STILL_S)
                before, shown = shown, app.export_screenshot(title=app.title)
                if shown == before:
                    break
            return shown

    Path(path).write_text(portable(asyncio.run(draw())))
