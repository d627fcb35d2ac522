"""Pictures of every mode, upright RGB, and squares equal to transformers' PIL processors."""

from __future__ import annotations

import io
import resource
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from llavakit.base.errors import BadRecord
from llavakit.image.open import open_image
from llavakit.image.spans import shortest_edge
from llavakit.image.square import Decode, Mode, Square, normalise, square


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    rng = np.random.default_rng(width * 1000 + height)
    image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
    return image.convert(mode)


@given(width=st.integers(1, 90), height=st.integers(1, 90), mode=st.sampled_from(["RGB", "L", "P", "RGBA", "CMYK"]))
@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("how", ["pad", "crop"])
def test_equal_to_transformers(how: str, width: int, height: int, mode: str) -> None:
    from transformers import CLIPImageProcessorPil
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

    image = noise(width, height, mode)
    kind = LlavaImageProcessorPil if how == "pad" else CLIPImageProcessorPil
    extra = {"do_pad": True} if how == "pad" else {}
    theirs = kind(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}, **extra)(
        image.convert("RGB"), return_tensors="pt"
    )["pixel_values"]
    settings_ = Square(size=28, mode=how)  # type: ignore[arg-type]
    import torch

    ours = normalise(torch.from_numpy(square(open_image(image), settings_))[None], settings_, torch.float32)
    # One grey level, before normalisation by a deviation of at least 0.26.
    assert (ours - theirs).abs().max() <= 1 / 255 / 0.26 + 1e-6
    assert (ours - theirs).abs().mean() < 1e-3


def test_exif_orientation_is_honoured(tmp_path: Path) -> None:
    image = noise(40, 20)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert open_image(tmp_path / "turned.jpg").size == (20, 40)


def test_sixteen_bit_keeps_its_greys(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 256, dtype=np.uint16).reshape(16, 16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    shown = np.asarray(open_image(tmp_path / "deep.png"))[..., 0]
    assert np.abs(shown.astype(int) - values // 256).max() <= 1


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert open_image(tmp_path / "moving.gif").getpixel((0, 0)) == (255, 0, 0)


def test_missing_truncated_and_foreign_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadRecord, match=r"x\.json record 3: image .*gone\.jpg: no such file"):
        open_image(tmp_path / "gone.jpg", "x.json record 3")
    data = io.BytesIO()
    noise(64, 64).save(data, format="JPEG")
    (tmp_path / "torn.jpg").write_bytes(data.getvalue()[:900])
    with pytest.raises(BadRecord, match=r"torn\.jpg: cannot be read"):
        open_image(tmp_path / "torn.jpg")
    (tmp_path / "text.jpg").write_text("hello")
    with pytest.raises(BadRecord, match=r"text\.jpg: is not a picture"):
        open_image(tmp_path / "text.jpg")


def test_too_many_pixels_are_refused_before_decoding() -> None:
    with pytest.raises(BadRecord, match="over the limit of 99 pixels"):
        open_image(noise(10, 10), max_pixels=99)


def plain(image: Image.Image, how: Square) -> np.ndarray:
    """The original's way: the whole padded square, or the whole picture, resized."""
    scaled = shortest_edge(*image.size, how.size)
    if how.mode == "pad":
        side = max(image.size)
        whole = Image.new("RGB", (side, side), how.background)
        whole.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        image, scaled = whole, (how.size, how.size)
    left, top = ((edge - how.size) // 2 for edge in scaled)
    resized = image.resize(scaled, Image.Resampling.BICUBIC)
    return np.asarray(resized.crop((left, top, left + how.size, top + how.size))).transpose(2, 0, 1)


@given(width=st.integers(1, 300), height=st.integers(1, 300), size=st.sampled_from([28, 56, 96]))
@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("mode", ["pad", "crop"])
def test_nothing_is_lost_by_not_computing_margins(mode: Mode, width: int, height: int, size: int) -> None:
    how, image = Square(size=size, mode=mode), noise(width, height)
    np.testing.assert_array_equal(square(image, how), plain(image, how))


@pytest.mark.parametrize("decode", ["exact", "fast"])
@pytest.mark.parametrize("size", [(1, 3000), (3000, 1)])
def test_a_line_is_cropped_without_being_resized_whole(decode: Decode, size: tuple[int, int]) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    made = square(Image.new("RGB", size, (9, 8, 7)), Square(size=336, mode="crop", decode=decode))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10, "a million rows of 336 pixels"
    assert (made == np.array([9, 8, 7])[:, None, None]).all()


@pytest.mark.parametrize("mode", ["pad", "crop", "squash"])
@pytest.mark.parametrize(
    ("size", "part"), [((1600, 1200), 4), ((1200, 1600), 4), ((1600, 1100), 2), ((1601, 1200), 1), ((400, 300), 1)]
)
def test_fast_is_less_than_a_level_away(mode: Mode, size: tuple[int, int], part: int, tmp_path: Path) -> None:
    photo = noise(20, 15).resize(size, Image.Resampling.BICUBIC)  # smooth, as photographs are
    photo.save(tmp_path / "a.jpg", quality=90)
    exact = Square(size=112, mode=mode)
    fast = exact.evolve(decode="fast")
    opened = open_image(tmp_path / "a.jpg", fraction=fast.fraction)
    # 1100 rows of 1600 leave margins of 250, which no quarter has; that matters to padding alone.
    assert size[0] / opened.width == (part if part != 2 or mode == "pad" else 4)
    there = square(open_image(tmp_path / "a.jpg"), exact).astype(int)
    difference = np.abs(there - square(opened, fast))
    assert difference.mean() < 0.5 and difference.max() <= 6


def test_background_is_the_published_colour() -> None:
    assert Square(size=336).background == (122, 116, 104)
