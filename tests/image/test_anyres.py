"""Grids, tiles and counts of any-resolution pictures: transformers' own, at every size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchmarks.rows.pictures import noise
from benchmarks.rows.tiles import miscounted
from llavakit.base.errors import BadRequest
from llavakit.image.anyres import GRIDS, AnyRes, best_grid, layout, most_tokens, tiles, token_count
from llavakit.image.square import Square, square

HD, LLAVA16 = GRIDS["hd"], GRIDS["llava16"]
sides = st.integers(1, 4000)
grid = st.tuples(st.integers(1, 6), st.integers(1, 6))


@given(sizes=st.lists(st.tuples(sides, sides), min_size=20, max_size=40))
@example([(1, 1), (4000, 1), (1, 4000), (4000, 3000), (3000, 4000), (2771, 2767), (1621, 405), (1141, 570)])
@settings(max_examples=50, deadline=None)
@pytest.mark.parametrize(("grids", "size"), [(HD, 224), (HD, 336), (LLAVA16, 336), (LLAVA16, 224)])
def test_as_many_tokens_as_transformers_counts(grids, size: int, sizes: list[tuple[int, int]]) -> None:  # type: ignore[no-untyped-def]
    assert not miscounted(sizes, grids, size)


@given(grids=st.lists(grid, min_size=1, max_size=8), size=st.sampled_from([28, 98, 384 // 14 * 14]), data=st.data())
@settings(max_examples=60, deadline=None)
def test_and_for_any_grids(grids: list[tuple[int, int]], size: int, data: st.DataObject) -> None:
    some = data.draw(st.lists(st.tuples(sides, sides), min_size=5, max_size=20))
    assert not miscounted(some, tuple(grids), size)


@given(width=sides, height=sides, grids=st.lists(grid, min_size=1, max_size=8), side=st.integers(2, 24))
@settings(max_examples=100, deadline=None)
def test_the_layout_is_the_global_view_and_then_whole_rows(
    width: int, height: int, grids: list[tuple[int, int]], side: int
) -> None:
    made = layout(width, height, tuple(grids), 14 * side, side)
    assert len(made) == token_count(width, height, tuple(grids), 14 * side, side) <= most_tokens(tuple(grids), side)
    view, rest = made[: side**2], made[side**2 :]
    assert view.tolist() == [[0, i] for i in range(side**2)]
    rows, columns = best_grid(width, height, tuple(grids), 14 * side)
    ends = np.nonzero(rest[:, 0] < 0)[0]
    if len(ends):
        line = ends[0] + 1
        assert ends.tolist() == list(range(line - 1, len(rest), line)), "rows of one length, each with its end"
        # Back from (tile, feature) to the place on the map: a rectangle in reading order, in the middle of the map.
        tile, feature = rest[rest[:, 0] > 0].T
        if not len(tile):
            return  # a sliver: rows without a feature, as transformers has it
        y = (tile - 1) // columns * side + feature // side
        x = (tile - 1) % columns * side + feature % side
        box = [(i, j) for i in range(y.min(), y.max() + 1) for j in range(x.min(), x.max() + 1)]
        assert list(zip(y.tolist(), x.tolist(), strict=True)) == box
        assert y.min() == rows * side - 1 - y.max() and x.min() == columns * side - 1 - x.max()


def test_published_numbers() -> None:
    assert set(HD) == {(1, n) for n in range(1, 7)} | {(n, 1) for n in range(1, 7)} | {(2, 2), (2, 3), (3, 2)}
    assert best_grid(672, 448, HD, 224) == (2, 3)
    assert token_count(672, 448, HD, 224, 16) == 2 * 3 * 256 + 32 + 256 == 1824
    assert most_tokens(HD, 16) == 1888 and most_tokens(LLAVA16, 24) == 2928
    assert token_count(672, 672, LLAVA16, 336, 24) == 2928


def test_tiles_are_the_picture_where_it_fills_its_grid() -> None:
    picture = noise(84, 56)
    made = tiles(picture, HD, Square(size=28, mode="squash"))
    assert made.shape == (7, 3, 28, 28) and made.dtype == np.uint8
    whole = made[1:].reshape(2, 3, 3, 28, 28).transpose(0, 3, 1, 4, 2).reshape(56, 84, 3)
    np.testing.assert_array_equal(whole, np.asarray(picture))


@pytest.mark.parametrize(("size", "same"), [((70, 40), False), ((61, 61), True)])
def test_the_two_global_views_differ_in_tile_0_of_pictures_that_are_not_square(
    size: tuple[int, int], same: bool
) -> None:
    how = Square(size=28, mode="pad")
    padded = tiles(noise(*size), HD, how)
    squashed = tiles(noise(*size), HD, how.evolve(mode="squash"))
    np.testing.assert_array_equal(padded[0], square(noise(*size), how))
    np.testing.assert_array_equal(padded[1:], squashed[1:])
    assert np.array_equal(padded[0], squashed[0]) is same


def test_grids_by_name_or_in_numbers_and_nothing_else() -> None:
    assert AnyRes.parse({"grids": "hd", "global_view": "pad"}) == AnyRes(grids=HD, global_view="pad")
    assert AnyRes.parse({"grids": [[1, 2], [2, 1]]}).grids == ((1, 2), (2, 1))
    assert AnyRes.parse(AnyRes.parse({"grids": "llava16"}).plain()).grids == LLAVA16
    with pytest.raises(BadRequest, match=r"no set of grids 'llava15' \(did you mean 'llava16'\?\)"):
        AnyRes.parse({"grids": "llava15"})
    with pytest.raises(BadRequest, match="at least one row"):
        AnyRes.parse({"grids": [[0, 2]]})
    for wrong in ([], [1, 2], [[1, 2.5]], [[1, 2, 3]], None):
        with pytest.raises(BadRequest, match="grids"):
            AnyRes.parse({"grids": wrong})
