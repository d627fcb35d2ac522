"""RefCOCO, RefCOCO+ and RefCOCOg (arXiv:1608.00272), training splits: phrases for regions of COCO images.

Published as ``refs(unc).p``, a Python 2 pickle, beside ``instances.json``; the pickle is read as plain data and runs
nothing. The same list as ``refs(unc).json`` is taken first where it is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from llavakit.base.errors import BadRequest
from llavakit.base.files import read_json
from llavakit.data.boxes import Region
from llavakit.data.pickles import read_plain_pickle
from llavakit.data.reader import Dropped, Options, Reader, Rule, Talk, Talks
from llavakit.data.rules import coco_number, image_folder, padded_square_boxes, region_questions, short_pieces
from llavakit.eval.source import find_all

SPLITS = {"refcoco": "unc", "refcoco+": "unc", "refcocog": "umd"}


class RefCocoOptions(Options):
    folder: str = "coco/train2017"
    sets: tuple[str, ...] = tuple(SPLITS)
    below: int = Field(10, gt=1)
    """Conversations are cut into pieces of fewer questions than this."""


class RefCoco(Reader[RefCocoOptions]):
    """Every phrase of the training splits, an image's in one conversation, then cut into pieces."""

    name = "refcoco"
    files = tuple(name for s, by in SPLITS.items() for name in (f"{s}/refs({by}).p", f"{s}/instances.json"))
    get = "https://github.com/lichengunc/refer (refcoco.zip, refcoco+.zip, refcocog.zip); images: COCO train2017"
    options = RefCocoOptions
    differs = "which phrases the published mix left out was never said; this is every phrase of the training splits"

    def needs(self, options: RefCocoOptions) -> Sequence[str]:
        unknown = [name for name in options.sets if name not in SPLITS]
        if unknown:
            raise BadRequest(f"refcoco: no set {unknown[0]!r}; there are: {', '.join(SPLITS)}")
        return [name for name in self.files if name.partition("/")[0] in options.sets]

    def missing(self, data: Path, options: RefCocoOptions) -> list[str]:
        return [name for name in self.needs(options) if _found(data, name) is None]

    def inputs(self, data: Path, options: RefCocoOptions) -> list[Path]:
        return [path for name in self.needs(options) if (path := _found(data, name)) is not None]

    def read(self, data: Path, options: RefCocoOptions, dropped: Dropped) -> Talks:
        regions: dict[str, list[Region]] = {}
        sizes: dict[str, tuple[int, int]] = {}
        for refs_path, instances_path in _pairs(self.inputs(data, options)):
            instances = read_json(instances_path)
            pictures = {image["id"]: image for image in instances["images"]}
            boxes = {annotation["id"]: annotation["bbox"] for annotation in instances["annotations"]}
            for ref in read_json(refs_path) if refs_path.suffix == ".json" else read_plain_pickle(refs_path):
                if ref["split"] != "train":
                    dropped("not of the training split")
                    continue
                picture = pictures[ref["image_id"]]
                name = coco_number(picture["file_name"])
                sizes[name] = (picture["width"], picture["height"])
                x, y, width, height = boxes[ref["ann_id"]]
                for sentence in ref["sentences"]:
                    phrase = str(sentence.get("raw") or sentence["sent"]).strip()
                    if phrase:
                        regions.setdefault(name, []).append(Region(x, y, width, height, phrase))
                    else:
                        dropped("empty phrase")
        return [
            Talk(name.removesuffix(".jpg"), images=(name,), extra={"regions": found, "size": sizes[name]})
            for name, found in regions.items()
        ]

    def rules(self, options: RefCocoOptions) -> Sequence[Rule]:
        return [
            padded_square_boxes(),
            region_questions(),
            short_pieces(options.below),
            image_folder(options.folder),
        ]


def _found(data: Path, name: str) -> Path | None:
    for wanted in (name.removesuffix(".p") + ".json", name) if name.endswith(".p") else (name,):
        if found := find_all(data, wanted):
            return found[0]
    return None


def _pairs(paths: Sequence[Path]) -> list[tuple[Path, Path]]:
    return list(zip(paths[::2], paths[1::2], strict=True))


SOURCE = RefCoco()
