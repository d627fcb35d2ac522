"""Encoded JPEGs to what the vision tower takes, per core: ours against transformers' PIL processor.

    python benchmarks/images.py [--times 20] [--photo FILE]

Both decode, pad to a square, resize to 336 and normalise to float32. A line a size and way: processor time of either,
the ratio, and the difference of the pixels in levels of 255. ``exact`` is what evaluation, parity and (unless a stage
says ``decode: fast``) training use.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image

from benchmarks.rows.pictures import noise
from llavakit.image.open import open_image
from llavakit.image.square import Square, normalise, square
from llavakit.model.preprocessor import preprocessor_config

SIZES = {(640, 480): 2.0, (480, 640): 2.0, (4000, 3000): 4.0}
"""And the ratio that is to be reached, by one of the two ways."""


def encoded(width: int, height: int, photo: str | None) -> bytes:
    """A JPEG of that size: patches and grain, or the photograph with grain (what is scaled up has no detail)."""
    if photo is None:
        picture = noise(width, height)
    else:
        scaled = open_image(photo).resize((width, height), Image.Resampling.BICUBIC)
        grain = np.random.default_rng(0).normal(0, 4, (height, width, 3))
        picture = Image.fromarray((np.asarray(scaled) + grain).clip(0, 255).astype(np.uint8))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=90)
    return file.getvalue()


def ours(data: bytes, how: Square) -> torch.Tensor:
    image = open_image(data, fraction=how.fraction if how.decode == "fast" else None)
    return normalise(torch.from_numpy(square(image, how))[None], how, torch.float32)


def seconds(ways: dict[str, Callable[[], torch.Tensor]], times: int) -> dict[str, float]:
    """The least processor time of each way, taken in turns."""
    least = dict.fromkeys(ways, float("inf"))
    for _ in range(times):
        for name, way in ways.items():
            begin = time.process_time()
            way()
            least[name] = min(least[name], time.process_time() - begin)
    return least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--photo", help="a photograph to make the JPEGs of, in place of noise")
    args = parser.parse_args()
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

    torch.set_num_threads(1)
    exact = Square(size=336)
    config = preprocessor_config(exact)
    config.pop("image_processor_type")
    processor = LlavaImageProcessorPil(**config)
    deviation = torch.tensor(exact.std).view(1, 3, 1, 1) * 255
    print(f"{'JPEG':>9} {'way':>5} {'theirs':>9} {'ours':>9} {'ratio':>6} {'goal':>5} {'mean':>6} {'worst':>6}")
    for (width, height), goal in SIZES.items():
        data = encoded(width, height, args.photo)
        ways: dict[str, Callable[[], torch.Tensor]] = {
            "theirs": lambda data=data: processor(Image.open(io.BytesIO(data)).convert("RGB"), return_tensors="pt")[
                "pixel_values"
            ],
            "exact": lambda data=data: ours(data, exact),
            "fast": lambda data=data: ours(data, exact.evolve(decode="fast")),
        }
        took = seconds(ways, args.times if width < 1000 else max(2, args.times // 4))
        for name in ("exact", "fast"):
            difference = ((ways["theirs"]() - ways[name]()) * deviation).abs()
            print(
                f"{f'{width}x{height}':>9} {name:>5} {took['theirs'] * 1e3:>6.1f} ms {took[name] * 1e3:>6.1f} ms "
                f"{took['theirs'] / took[name]:>6.2f} {goal:>5.1f} {difference.mean():>6.3f} {difference.max():>6.1f}"
            )


if __name__ == "__main__":
    main()
