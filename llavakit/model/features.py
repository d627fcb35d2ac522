"""Features of a frozen tower, kept on disk for later epochs and for runs that change something else.

A picture's file is named by its pixels as the tower gets them, so whatever preprocessing does is in its name; its
folder by the tower's weights, what of it is taken, and the precision.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from llavakit.base.errors import BadRequest
from llavakit.base.files import writing
from llavakit.base.log import log

if TYPE_CHECKING:
    from llavakit.image.square import Square
    from llavakit.model.towers import VisionTower


class FeatureCache:
    """``folder`` holds at most ``gib`` GiB of one tower's features; when it is full the rest is computed each time."""

    def __init__(self, folder: Path, tower: VisionTower, square: Square, gib: float) -> None:
        self.folder = folder / fingerprint(tower, square)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadRequest(f"features cannot be kept in {folder}: {error.strerror}; name another folder") from None
        self.room = gib * 2**30 - sum(path.stat().st_size for path in self.folder.glob("*/*.safetensors"))
        self.found = self.computed = 0

    @torch.no_grad()
    def __call__(self, pixels: torch.Tensor, compute: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """uint8 pixels ``[n, 3, S, S]`` -> features ``[n, N, D]``: read, or computed by ``compute`` and written.

        Raises :class:`BadRequest` naming a file that is damaged, and when the disk is full.
        """
        kind = pixels.device.type
        rounded = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        folder = self.folder / ("whole" if rounded is None else str(rounded).removeprefix("torch."))
        names = [hashlib.blake2b(picture.numpy(), digest_size=16).hexdigest() for picture in pixels.cpu()]
        paths = [folder / f"{name}.safetensors" for name in names]
        missing = [i for i, path in enumerate(paths) if not path.is_file()]
        # Within autocast the connector's first product would round them too.
        found = compute(pixels[missing]).to(rounded) if missing else ()
        fresh = dict(zip(missing, found, strict=True))
        for i, features in fresh.items():
            self._write(paths[i], features)
        self.computed += len(missing)
        self.found += len(paths) - len(missing)
        return torch.stack([fresh[i] if i in fresh else _read(paths[i]).to(pixels.device) for i in range(len(paths))])

    def _write(self, path: Path, features: torch.Tensor) -> None:
        size = features.numel() * features.element_size()
        if size > self.room:
            if self.room > 0:
                log.warning(f"{self.folder} is full; features that it lacks are computed each time")
                self.room = 0
            return
        try:
            with writing(path) as temporary:
                save_file({"features": features.contiguous().cpu()}, temporary)
        except (OSError, SafetensorError) as error:
            raise BadRequest(f"features cannot be written to {path}: {error}") from None
        self.room -= size


def _read(path: Path) -> torch.Tensor:
    try:
        return load_file(path)["features"]
    except (OSError, SafetensorError, KeyError) as error:
        raise BadRequest(f"{path} is damaged ({error}); remove it and start again") from None


def fingerprint(tower: VisionTower, square: Square) -> str:
    """Of all that features depend on beside the pixels and the precision."""
    digest = hashlib.blake2b(digest_size=16)
    choices = (tower.config.model_type, tower.chosen, tower.keep_cls, tower.keep_registers, square.mean, square.std)
    digest.update(repr(choices).encode())
    for name, tensor in sorted(tower.model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
