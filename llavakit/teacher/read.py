"""Any captions file a person has -> contexts. What a file is shows in its first record, not in its name.

- COCO's annotation files: ``captions_*.json``, with the boxes from ``instances_*.json`` beside it
- LLaVA's caps-and-boxes JSONL: ``{"id", "image", "captions", "instances": [{"category", "bbox"}]}``
- LLaVA's training format: the first answer is the caption
- JSON or JSONL of ``{"image", "caption"}`` or ``{"image", "captions"}``; CSV or TSV with these columns
- a folder of pictures, for a teacher that sees
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from llavakit.base.errors import BadRecord, BadRequest
from llavakit.base.files import read_json, read_jsonl
from llavakit.teacher.context import Box, Context, merged

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif")


def read_contexts(path: str | Path, boxes: str | Path | None = None) -> list[Context]:
    """The contexts of a file or folder, one a picture. ``boxes``: COCO's instances file, for COCO's captions.

    Raises :class:`BadRequest` for a file of another format and :class:`BadRecord` for a record that cannot be used.
    """
    path = Path(path)
    if path.is_dir():
        found = [p.relative_to(path) for p in sorted(path.rglob("*")) if p.suffix.lower() in PICTURES]
        contexts = [Context(p.with_suffix("").as_posix(), p.as_posix()) for p in found]
    elif path.suffix.lower() in (".csv", ".tsv"):
        contexts = [_record(row, f"{path} row {n}") for n, row in enumerate(_rows(path), 1)]
    else:
        value = read_json(path) if path.suffix == ".json" else read_jsonl(path)
        if isinstance(value, dict):
            return _coco(value, path, read_json(boxes) if boxes else None, str(boxes))
        if not isinstance(value, list):
            raise BadRequest(f"{path} must hold a list of records, or COCO's annotations, at its top")
        contexts = [_record(record, f"{path} record {n}") for n, record in enumerate(value)]
    if boxes:
        raise BadRequest(f"a file of boxes goes with COCO's captions; {path} is none")
    if not contexts:
        raise BadRequest(f"no captions, and no pictures, in {path}")
    return merged(contexts)


def _rows(path: Path) -> Iterable[Mapping[str, Any]]:
    if not path.is_file():
        raise BadRequest(f"no file at {path}")
    with open(path, encoding="utf-8-sig", newline="") as file:
        yield from csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")


def _record(record: Any, where: str) -> Context:
    if not isinstance(record, Mapping):
        raise BadRecord(f"is {type(record).__name__}, not an object", where)
    image = record.get("image")
    if not isinstance(image, str) or not image:
        raise BadRecord(f'"image" must be a file name, not {image!r}', where)
    if "conversations" in record:
        said = record["conversations"]
        told = [turn.get("value") for turn in said if isinstance(turn, dict) and turn.get("from") == "gpt"][:1]
    else:
        told = record.get("captions", record.get("caption"))
        told = [told] if isinstance(told, str) else told
    if not isinstance(told, list) or not told or not all(isinstance(text, str) and text.strip() for text in told):
        raise BadRecord(f'needs "captions", a "caption" or "conversations" with an answer; has {told!r}', where)
    # One line each: a line break would make two captions of one.
    captions = tuple(" ".join(text.split()) for text in told)
    boxes = tuple(_box(item, where) for item in record.get("instances") or ())
    return Context(str(record.get("id") or Path(image).stem), image, captions, boxes)


def _box(item: Any, where: str) -> Box:
    place = item.get("bbox") if isinstance(item, Mapping) else None
    if (
        not isinstance(place, list)
        or len(place) != 4
        or not all(isinstance(at, (int, float)) for at in place)
        or not isinstance(item.get("category"), str)
    ):
        raise BadRecord(f'an instance must be {{"category", "bbox": four numbers}}, not {item!r}', where)
    x1, y1, x2, y2 = map(float, place)
    if not 0 <= x1 <= x2 <= 1 or not 0 <= y1 <= y2 <= 1:
        raise BadRecord(f"a box must be x1, y1, x2, y2 as fractions of the picture, not {place}", where)
    return Box(item["category"], (x1, y1, x2, y2))


def _coco(captions: Mapping[str, Any], path: Path, instances: Any, boxes_path: str) -> list[Context]:
    try:
        images = {int(image["id"]): image for image in captions["images"]}
        told: dict[int, list[str]] = {}
        for annotation in captions["annotations"]:
            told.setdefault(int(annotation["image_id"]), []).append(" ".join(annotation["caption"].split()))
    except (KeyError, TypeError, ValueError) as error:
        raise BadRequest(f'{path}: not COCO\'s captions ("images", "annotations" with "caption"): {error!r}') from None
    if lost := told.keys() - images.keys():
        raise BadRequest(f"{path}: captions of {len(lost)} images that are not in its list, the first id {min(lost)}")
    try:
        boxes = _coco_boxes(instances, images) if instances is not None else {}
    except (KeyError, TypeError, ValueError) as error:
        raise BadRequest(
            f'{boxes_path}: not COCO\'s instances ("categories", "annotations" with "bbox"): {error!r}'
        ) from None
    return [
        Context(Path(image["file_name"]).stem, image["file_name"], tuple(told[id]), tuple(boxes.get(id, ())))
        for id, image in images.items()
        if id in told
    ]


def _coco_boxes(instances: Mapping[str, Any], images: Mapping[int, Mapping[str, Any]]) -> dict[int, list[Box]]:
    names = {category["id"]: category["name"] for category in instances["categories"]}
    boxes: dict[int, list[Box]] = {}
    for annotation in instances["annotations"]:
        image = images.get(int(annotation["image_id"]))
        # A crowd's box surrounds many things, with others between them.
        if image is None or annotation.get("iscrowd"):
            continue
        width, height = image["width"], image["height"]
        x, y, w, h = annotation["bbox"]
        # Annotators' boxes reach over the edge by fractions of a pixel.
        place = (max(x / width, 0.0), max(y / height, 0.0), min((x + w) / width, 1.0), min((y + h) / height, 1.0))
        boxes.setdefault(int(image["id"]), []).append(Box(names[annotation["category_id"]], place))
    return boxes
