"""Any resolution: a picture -> a global view and a grid of tiles; its number of tokens from (width, height) alone.

LLaVA-1.5-HD (arXiv 2310.03744, section 3.4 and appendix A.1) and LLaVA-1.6. Grids, tiles, unpadding and counts are
those of transformers' ``llava_next``, its roundings too: there every processor and engine counts again, and one token
more or less is a refused prompt. Two things the paper's HD says and that format cannot:

* the global view is *padded* to a square: transformers' processor (and vLLM's, which calls it) squashes it.
  ``global_view="pad"`` sees what the paper says, ``"squash"`` what everybody else's processor does; the tokens are as
  many. The two differ in tile 0 of pictures that are not square, and nowhere else.
* features that are *only* padding are dropped: transformers rounds the padding up to whole features, so at either end
  one row or column that is up to half picture goes too. This is in its model, not its processor; there is no choice.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from PIL import Image
from pydantic import Field, field_validator

from llavakit.base.config import Config
from llavakit.base.errors import nearest
from llavakit.image.square import Square, square

Grid = tuple[int, int]
"""Rows and columns of tiles."""

GRIDS: dict[str, tuple[Grid, ...]] = {
    # All of at most six tiles. Of grids that serve a picture alike the first is taken, here the one nearest a square.
    "hd": tuple(
        sorted(
            ((r, c) for r in range(1, 7) for c in range(1, 7) if r * c <= 6), key=lambda g: (g[0] * g[1], max(g), g[0])
        )
    ),
    "llava16": ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3)),
}


class AnyRes(Config):
    """Pictures as tiles. ``grids``: (rows, columns) in order of preference, or the name of a published set."""

    grids: tuple[Grid, ...] = Field(min_length=1)
    global_view: Literal["pad", "squash"] = "squash"

    @field_validator("grids", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        if not isinstance(value, str):
            # Read from JSON, and no longer seen as such behind this function: strict mode would refuse the lists.
            return tuple(tuple(g) if isinstance(g, list) else g for g in value) if isinstance(value, list) else value
        if value not in GRIDS:
            raise ValueError(f"no set of grids {value!r}{nearest(value, GRIDS)}; there are: {', '.join(GRIDS)}")
        return GRIDS[value]

    @field_validator("grids")
    @classmethod
    def _positive(cls, value: tuple[Grid, ...]) -> tuple[Grid, ...]:
        if any(rows < 1 or columns < 1 for rows, columns in value):
            raise ValueError("a grid has at least one row and one column")
        return value


def best_grid(width: int, height: int, grids: tuple[Grid, ...], size: int) -> Grid:
    """The grid of tiles of side ``size`` that keeps most of the picture's pixels, and of those the least wasteful."""

    def kept(grid: Grid) -> tuple[int, int]:
        # Floats, as in transformers: a side that should be whole may fall one short, and the choice hangs on it for
        # about one size in 6,000 of the HD grids.
        rows, columns = grid[0] * size, grid[1] * size
        scale = min(columns / width, rows / height)
        pixels = min(int(width * scale) * int(height * scale), width * height)
        return pixels, -(rows * columns - pixels)

    return max(grids, key=kept)


def token_count(width: int, height: int, grids: tuple[Grid, ...], size: int, side: int) -> int:
    """Image tokens of a picture: ``side``^2 of the global view, and the unpadded map with one row end per row.

    ``side``: features along an edge of a tile (24 for ViT-L/14-336, 16 at 224).
    """
    top, bottom, left, right = _unpadded(width, height, best_grid(width, height, grids, size), side)
    return side**2 + (bottom - top) * (right - left + 1)


def most_tokens(grids: tuple[Grid, ...], side: int) -> int:
    """Image tokens of the picture that has most: one that fills its grid (1888 for ``hd`` at 16, 2928 at 24)."""
    return side**2 + max(rows * side * (columns * side + 1) for rows, columns in grids)


def layout(width: int, height: int, grids: tuple[Grid, ...], size: int, side: int) -> np.ndarray:
    """What each of a picture's K image tokens is, in order: int64 ``[K, 2]``, its tile (0: the global view) and the
    feature within that tile, or (-1, 0) for a row end."""
    grid = best_grid(width, height, grids, size)
    top, bottom, left, right = _unpadded(width, height, grid, side)
    row, column = np.mgrid[top:bottom, left : right + 1]
    tile = 1 + row // side * grid[1] + column // side
    feature = row % side * side + column % side
    end = column == right
    tiles = np.stack([np.where(end, -1, tile), np.where(end, 0, feature)], axis=-1).reshape(-1, 2)
    view = np.stack([np.zeros(side**2, dtype=np.int64), np.arange(side**2)], axis=-1)
    return np.concatenate([view, tiles]).astype(np.int64)


def tiles(image: Image.Image, grids: tuple[Grid, ...], how: Square) -> np.ndarray:
    """An RGB picture -> uint8 ``[1 + rows * columns, 3, size, size]``: the global view as ``how`` says, then the tiles
    row by row, of the picture scaled into the grid and centred on black."""
    size = how.size
    rows, columns = best_grid(*image.size, grids, size)
    width, height = columns * size, rows * size
    across, down = width / image.width, height / image.height
    if across < down:
        scaled = (width, min(math.ceil(image.height * across), height))
    else:
        scaled = (min(math.ceil(image.width * down), width), height)
    canvas = Image.new("RGB", (width, height))
    canvas.paste(image.resize(scaled, Image.Resampling.BICUBIC), ((width - scaled[0]) // 2, (height - scaled[1]) // 2))
    cut = np.asarray(canvas, dtype=np.uint8).reshape(rows, size, columns, size, 3).transpose(0, 2, 4, 1, 3)
    return np.concatenate([square(image, how)[None], cut.reshape(-1, 3, size, size)])


def _unpadded(width: int, height: int, grid: Grid, side: int) -> tuple[int, int, int, int]:
    """Top, bottom, left, right of the features that are kept of a grid's map. A sliver of a picture may keep none."""
    rows, columns = grid[0] * side, grid[1] * side
    # transformers rounds floats to seven digits before it cuts; that is this floor, for sides below ten million.
    if width * rows > columns * height:
        padding = (rows - height * columns // width) // 2
        return padding, rows - padding, 0, columns
    padding = (columns - width * rows // height) // 2
    return 0, rows, padding, columns - padding
