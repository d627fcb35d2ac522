"""A picture in the terminal: what is written is the picture again, by each way."""

from __future__ import annotations

import base64
import io
import re

import pytest
from PIL import Image

from llavakit.image.terminal import ROWS, shown

PICTURE = Image.effect_noise((300, 200), 90).convert("RGB")
BLOCK = re.compile("\033\\[38;2;(\\d+);(\\d+);(\\d+)m\033\\[48;2;(\\d+);(\\d+);(\\d+)m\u2580")


def opened(data: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_kitty_gets_a_png_in_chunks() -> None:
    text = shown(PICTURE, {"KITTY_WINDOW_ID": "1", "TERM": "xterm-kitty"}, 80)
    chunks = re.findall("\033_G([^;]*);([^\033]*)\033\\\\", text)
    assert chunks[0][0] == f"a=T,f=100,r={ROWS},m=1" and chunks[-1][0] == "m=0"
    assert all(len(data) <= 4096 for _, data in chunks)
    assert opened("".join(data for _, data in chunks)).tobytes() == PICTURE.tobytes()


def test_iterm_gets_a_png() -> None:
    found = re.fullmatch("\033]1337;File=inline=1;[^:]*:([^\a]*)\a\n", shown(PICTURE, {"TERM_PROGRAM": "WezTerm"}, 80))
    assert found and opened(found[1]).tobytes() == PICTURE.tobytes()


@pytest.mark.parametrize(("size", "columns"), [((300, 200), 80), ((10, 400), 80), ((900, 30), 40), ((1, 1), 80)])
def test_blocks_keep_the_shape_and_the_colours(size: tuple[int, int], columns: int) -> None:
    image = Image.new("RGB", size, (250, 20, 30))
    lines = shown(image, {"COLORTERM": "truecolor"}, columns).splitlines()
    cells = [BLOCK.findall(line) for line in lines]
    assert 1 <= len(lines) <= ROWS and len({len(row) for row in cells}) == 1 <= len(cells[0]) <= columns
    assert {cell for row in cells for cell in row} == {("250", "20", "30") * 2}
    assert all(line.endswith("\033[0m") for line in lines)


def test_nothing_where_the_terminal_cannot_and_blocks_inside_tmux() -> None:
    assert shown(PICTURE, {"TERM": "xterm"}, 80) == ""
    assert "\u2580" in shown(PICTURE, {"KITTY_WINDOW_ID": "1", "TMUX": "x", "COLORTERM": "truecolor"}, 80)
