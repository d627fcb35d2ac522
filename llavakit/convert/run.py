"""Any format in, any format out: the source is read as a native checkpoint, and written shard by shard."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from llavakit.base.errors import BadRequest
from llavakit.base.files import write_json, writing
from llavakit.base.log import log, progress
from llavakit.convert.certify import certify as certificate
from llavakit.convert.checkpoint import Checkpoint, native
from llavakit.convert.gguf import FileType, write_gguf
from llavakit.convert.original import Original, original
from llavakit.convert.to_original import write_original
from llavakit.model.checkpoint import is_original, resolve, save_description
from llavakit.model.shards import SHARD_BYTES, write_shards

CERTIFY_BELOW = 10**9

Format = Literal["hf", "original", "gguf"]


def read(
    source: str | Path, base: str | None = None, vision: str | None = None, template: str | None = None
) -> Checkpoint:
    """A checkpoint of any format, by what its directory holds."""
    path = resolve(source)
    if is_original(path):
        return original(path, base, vision, template)
    if base or template:
        raise BadRequest(f"--base and --template are for originals; {path} is a native checkpoint and holds both")
    return native(path)


def write_native(checkpoint: Checkpoint, directory: Path, shard_bytes: int = SHARD_BYTES) -> None:
    """Writes a native directory into ``directory``."""
    write_shards(checkpoint.tensors(), directory, shard_bytes)
    save_description(checkpoint.model, checkpoint.codec, directory, checkpoint.card)
    if checkpoint.pieces:
        shutil.copy(checkpoint.pieces, directory / "tokenizer.model")


def convert(
    source: str | Path,
    target: str | Path,
    to: Format = "hf",
    *,
    base: str | None = None,
    vision: str | None = None,
    template: str | None = None,
    certify: bool = False,
    kind: FileType = "f16",
    shard_bytes: int = SHARD_BYTES,
) -> dict[str, Any] | None:
    """Converts a checkpoint into a new directory, whole or not at all, and returns its parity certificate.

    ``base``, ``vision``: where the parts are that the source does not hold. The certificate is made for models below
    :data:`CERTIFY_BELOW` bytes, for larger ones with ``certify``; it needs the model in memory in float32.
    ``kind``: of the numbers in GGUF files.
    Raises :class:`BadRequest` when the target is there already, or something is missing or has no place.
    """
    target = Path(target)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise BadRequest(f"{target} exists already; name a new directory")
    checkpoint = read(source, base, vision, template)
    path = resolve(source)
    with writing(target) as temporary:
        temporary.mkdir()
        result = None
        shown = _shown(checkpoint)
        if to == "hf":
            write_native(shown, temporary, shard_bytes)
            if is_original(path):
                result = _certificate(checkpoint, Original(path, base, vision), temporary, certify)
        elif to == "original":
            write_original(shown, temporary, vision, shard_bytes)
            if not is_original(path):
                result = _certificate(checkpoint, Original(temporary, None, vision), path, certify)
        else:
            write_gguf(shown, temporary, kind)
        if result:
            write_json(temporary / "parity.json", result)
    return result


def _certificate(checkpoint: Checkpoint, original: Original, native: Path, asked: bool) -> dict[str, Any] | None:
    size = sum(t.numel() * t.element_size() for t in checkpoint.model.state_dict().values())
    if size > CERTIFY_BELOW and not asked:
        log.info(f"no parity certificate for a model of {size / 2**30:.1f} GiB unless asked for: --certify")
        return None
    result = certificate(original, native)
    log.info(f"logits differ from the original's by {result['difference']:.1e} of the largest")
    return result


def _shown(checkpoint: Checkpoint) -> Checkpoint:
    """The same with a progress bar."""
    stream, total = checkpoint.stream, checkpoint.count()
    return replace(checkpoint, stream=lambda: progress(stream(), total=total, desc="convert", unit="tensor"))
