"""The page of a mixture: one HTML file that needs nothing beside it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from llavakit.base.errors import BadRecord, BadRequest
from llavakit.base.log import progress
from llavakit.chat.conversation import Conversation
from llavakit.chat.template import Template
from llavakit.data.measure import measure
from llavakit.data.mixture import SourceSpec
from llavakit.data.pack import pack
from llavakit.data.page import render
from llavakit.data.show.choose import Chosen, Place, choose, place_of
from llavakit.data.show.tokens import Run, token_runs, word_runs
from llavakit.data.sources.llava import ImageFirst, conversation
from llavakit.data.stream import Item
from llavakit.image.open import open_image
from llavakit.image.square import Square, square
from llavakit.image.url import jpeg_url
from llavakit.model.encode import Codec


@dataclass(frozen=True)
class How:
    """How records are read: a stage's template, its pictures, its batches."""

    template: Template
    square: Square
    patches: int
    """Patches along a side of a picture; 0 where no tower is known."""
    image_first: ImageFirst
    max_length: int
    batch_size: int
    row_tokens: int
    codec: Codec | None = None


@dataclass(frozen=True)
class Card:
    """One record on the page. ``tiles`` are data URIs: the picture as the model gets it, and tiles after it."""

    source: str
    id: str
    line: int
    tiles: list[str]
    runs: list[Run]
    tokens: int | None
    learned: int | None
    cut: int
    problems: list[tuple[str, str]]

    @property
    def columns(self) -> int:
        """Of the grid of tiles."""
        return math.ceil(math.sqrt(len(self.tiles) - 1)) if len(self.tiles) > 1 else 0


def show(
    specs: Mapping[str, SourceSpec],
    how: How,
    title: str,
    problems: Mapping[Place, list[tuple[str, str]]],
    each: int = 12,
    measured: int = 2000,
    seed: int = 0,
) -> str:
    """The page as text. A record that cannot be read is on it with the reason. Raises :class:`BadRequest` when the
    files hold no record at all."""
    chosen = choose(specs, each, measured if how.codec else 0, problems, seed)
    if not chosen.shown:
        raise BadRequest(f"no record in {', '.join(spec.path for spec in specs.values())}")
    cards = [
        _card(source, spec, item, how, problems.get(place_of(spec, item), []))
        for source, spec, item in progress(chosen.shown, desc="show", unit="record")
    ]
    codes: dict[str, int] = {}
    for found in problems.values():
        for code in {code for code, _ in found}:
            codes[code] = codes.get(code, 0) + 1
    lengths = _lengths(chosen, how)
    return render(
        "show",
        title=title,
        counts=chosen.counts,
        total=sum(chosen.counts.values()),
        cards=cards,
        codes=codes,
        how=how,
        measured=len(lengths),
        histogram=_histogram(lengths),
        packing=_packing(lengths, how) if lengths else None,
    )


def _read(spec: SourceSpec, item: Item, how: How) -> Conversation:
    if item.error:
        raise BadRecord(f"broken JSON: {item.error}")
    if not isinstance(item.value, dict):
        raise BadRecord(f"is {type(item.value).__name__}, not an object")
    images = Path(spec.images) if spec.images else Path(spec.path).parent
    return conversation(item.value, images, "", str(item.value.get("id", item.index)), how.image_first)


def _card(source: str, spec: SourceSpec, item: Item, how: How, problems: list[tuple[str, str]]) -> Card:
    id = str(item.value.get("id", item.index)) if isinstance(item.value, dict) else str(item.index)
    try:
        said = _read(spec, item, how)
        if how.codec is None:
            runs = word_runs(said, how.template)
            tiles = [_uri(square(open_image(ref.source), how.square)) for ref in said.images]
            return Card(source, id, item.line, tiles, runs, None, None, 0, problems)
        runs, example = token_runs(said, how.codec)
        tiles = [_uri(pixels) for pixels in example.pixels]
        cut = max(0, len(example) - how.max_length)
        return Card(source, id, item.line, tiles, runs, len(example), example.supervised, cut, problems)
    except BadRecord as error:
        found = problems or [("refused", str(error))]
        text = "" if item.error else json.dumps(item.value, ensure_ascii=False)[:600]
        return Card(source, id, item.line, [], [Run("given", False, [text], 1)], None, None, 0, found)


def _uri(pixels: np.ndarray) -> str:
    """uint8 ``[3, S, S]`` as a JPEG in a data URI."""
    return jpeg_url(Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))))


def _lengths(chosen: Chosen, how: How) -> list[int]:
    """Tokens of the measured records that training would take, before any cut."""
    lengths = []
    for _, spec, item in progress(chosen.measured, desc="measure", unit="record"):
        assert how.codec is not None
        try:
            found = measure(_read(spec, item, how), how.codec)
        except BadRecord:
            continue  # it is counted by the doctor; here it has no length
        if not found.refused:
            lengths.append(found.tokens)
    return lengths


def _histogram(lengths: list[int], bins: int = 48) -> list[tuple[int, int]]:
    if not lengths:
        return []
    width = max(1, -(-(max(lengths) + 1) // bins))
    counts = np.bincount(np.asarray(lengths) // width)
    return [(number * width, count) for number, count in enumerate(counts.tolist())]


def _packing(lengths: list[int], how: How) -> dict[str, Any]:
    """How full rows would be if the measured records came in this order, and what padding a batch would cost."""
    kept = [min(length, how.max_length) for length in lengths]
    fills: list[float] = []
    padded = 0
    for start in range(0, len(kept), how.batch_size):
        step = kept[start : start + how.batch_size]
        for row in pack(step, how.row_tokens):
            fills.append(min(1.0, sum(step[i] for i in row) / how.row_tokens))
        padded += max(step) * len(step)
    tenths = [0] * 20
    for fill in fills:
        tenths[min(19, int(fill * 20))] += 1
    return {
        "rows": len(fills),
        "mean": sum(fills) / len(fills),
        "fills": [(5 * number, count) for number, count in enumerate(tenths)],
        "padding": 1 - sum(kept) / padded,
    }
