"""``preprocessor_config.json``: how a checkpoint sees pictures, in transformers' own words, written and read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llavakit.base.errors import BadRequest
from llavakit.base.files import read_json
from llavakit.image.anyres import Grid
from llavakit.image.square import Mode, Square


def preprocessor_config(square: Square, grids: tuple[Grid, ...] | None = None) -> dict[str, Any]:
    """The file for squares, or with ``grids`` for tiles.

    transformers' processor for tiles squashes the global view. Where ours is padded, the key ``global_view`` says so:
    a key of our own, which others ignore.
    """
    both = {"height": square.size, "width": square.size}
    squash = square.mode == "squash"
    config: dict[str, Any] = {
        "image_processor_type": "LlavaImageProcessor" if square.mode == "pad" else "CLIPImageProcessor",
        "processor_class": "LlavaProcessor",
        "do_convert_rgb": True,
        **({"do_pad": True} if square.mode == "pad" else {}),
        "do_resize": True,
        "size": both if squash else {"shortest_edge": square.size},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": both,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(square.mean),
        "image_std": list(square.std),
    }
    if grids is None:
        return config
    config |= {
        "image_processor_type": "LlavaNextImageProcessor",
        "processor_class": "LlavaNextProcessor",
        "do_pad": True,  # of the number of tiles in a batch
        "size": {"shortest_edge": square.size},
        "image_grid_pinpoints": pinpoints(grids, square.size),
    }
    return config if squash else config | {"global_view": square.mode}


def load_square(path: Path) -> Square:
    """How the checkpoint in ``path`` sees one square: the whole picture, or the global view of tiles."""
    file = path / "preprocessor_config.json"
    config = read_json(file)
    config = config.get("image_processor", config)
    try:
        size = config["size"].get("shortest_edge") or config["size"]["height"]
        mean, std = tuple(config["image_mean"]), tuple(config["image_std"])
        if "image_grid_pinpoints" in config:
            mode: Mode = config.get("global_view", "squash")
        elif config.get("do_pad"):
            mode = "pad"
        else:
            mode = "crop" if "shortest_edge" in config["size"] else "squash"
    except (KeyError, AttributeError) as error:
        raise BadRequest(f"{file} lacks {error}") from None
    return Square.parse({"size": size, "mode": mode, "mean": mean, "std": std}, where=str(file))


def pinpoints(grids: tuple[Grid, ...], size: int) -> list[list[int]]:
    """``image_grid_pinpoints``: heights and widths in pixels, in order of preference."""
    return [[rows * size, columns * size] for rows, columns in grids]


def load_grids(config: Any, path: Path) -> tuple[Grid, ...] | None:
    """The grids of a ``llava_next`` configuration, None of a ``llava`` one. Raises :class:`BadRequest` for pinpoints
    that are not whole tiles: transformers' own count of such a picture differs from its features."""
    if config.model_type == "llava":
        return None
    size = config.vision_config.image_size
    odd = [point for point in config.image_grid_pinpoints if point[0] % size or point[1] % size]
    if odd:
        raise BadRequest(f"{path / 'config.json'}: image_grid_pinpoints {odd[0]} are not whole tiles of {size} pixels")
    return tuple((height // size, width // size) for height, width in config.image_grid_pinpoints)
