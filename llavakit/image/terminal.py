"""A picture in the terminal: by kitty's or iTerm2's protocol, or as coloured half blocks; nothing where it cannot.

What a terminal can is read from the environment variables that it sets for what runs in it. Sources: the terminal
graphics protocol of kitty, the inline images protocol of iTerm2.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping

from PIL import Image

ROWS = 16
_CHUNK = 4096  # of base64, as kitty's protocol wants it


def shown(image: Image.Image, environment: Mapping[str, str], columns: int) -> str:
    """The characters that draw an RGB picture at most ``columns`` wide and :data:`ROWS` high; ``""`` if none can.

    ``environment``: variables as of ``os.environ``. Inside tmux or screen only blocks get through.
    """
    inside = "TMUX" in environment or environment.get("TERM", "").startswith("screen")
    if not inside and ("KITTY_WINDOW_ID" in environment or environment.get("TERM_PROGRAM") == "ghostty"):
        return _kitty(image)
    if not inside and environment.get("TERM_PROGRAM") in ("iTerm.app", "WezTerm"):
        return f"\033]1337;File=inline=1;height={ROWS};preserveAspectRatio=1:{_png(image)}\a\n"
    if environment.get("COLORTERM") in ("truecolor", "24bit"):
        return _blocks(image, columns)
    return ""


def _png(image: Image.Image) -> str:
    out = io.BytesIO()
    image.save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


def _kitty(image: Image.Image) -> str:
    data = _png(image)
    parts = [data[start : start + _CHUNK] for start in range(0, len(data), _CHUNK)]
    lines = []
    for number, part in enumerate(parts):
        head = f"a=T,f=100,r={ROWS}," if number == 0 else ""
        lines.append(f"\033_G{head}m={int(number < len(parts) - 1)};{part}\033\\")
    return "".join(lines) + "\n"


def _blocks(image: Image.Image, columns: int) -> str:
    """Two pixels a character, one above the other: a character is about twice as high as wide."""
    scale = min(columns / image.width, 2 * ROWS / image.height)
    width, height = max(1, round(image.width * scale)), max(2, 2 * round(image.height * scale / 2))
    pixels = image.resize((width, height), Image.Resampling.BOX).load()
    assert pixels is not None
    lines = []
    for y in range(0, height, 2):
        cells = []
        for x in range(width):
            upper, lower = pixels[x, y], pixels[x, y + 1]
            cells.append("\033[38;2;{};{};{}m\033[48;2;{};{};{}m\u2580".format(*upper, *lower))  # type: ignore[misc]
        lines.append("".join(cells) + "\033[0m\n")
    return "".join(lines)
