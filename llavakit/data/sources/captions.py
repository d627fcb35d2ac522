"""A folder of images with captions: a CSV (or TSV) with a column for each, or a text file beside every image."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from llavakit.base.errors import BadRequest
from llavakit.data.reader import Dropped, Options, Reader, Rule, Talk, Talks, file_of
from llavakit.data.rules import image_folder

PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}


class CaptionsOptions(Options):
    file: str | None = None
    """The CSV or TSV; without one, "a.jpg" has its caption in "a.txt"."""
    image: str = "image"
    caption: str = "caption"
    folder: str = ""
    """Where under the root the images lie; without a ``file`` it is what is searched."""
    question: str = "Provide a one-sentence caption for the provided image."


class Captions(Reader[CaptionsOptions]):
    """Every pair of image and caption is a conversation of its own."""

    name = "captions"
    get = "your own: a folder of images, and a CSV (option file) or a .txt beside each"
    options = CaptionsOptions

    def needs(self, options: CaptionsOptions) -> Sequence[str]:
        return (options.file,) if options.file else ()

    def read(self, data: Path, options: CaptionsOptions, dropped: Dropped) -> Talks:
        pairs = _table(file_of(data, options.file), options) if options.file else _beside(data / options.folder)
        talks = []
        for number, (image, caption) in enumerate(pairs):
            if not caption:
                dropped("image without a caption")
                continue
            talks.append(Talk(f"{image}#{number}", images=(image,)).exchange(options.question, caption))
        return talks

    def rules(self, options: CaptionsOptions) -> Sequence[Rule]:
        return [image_folder(options.folder)] if options.folder else []


def _table(path: Path, options: CaptionsOptions) -> Iterator[tuple[str, str]]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True)
        columns = rows.fieldnames or []
        for name in (options.image, options.caption):
            if name not in columns:
                raise BadRequest(f"{path} has no column {name!r}; its columns are {', '.join(columns) or 'none'}")
        try:
            for row in rows:
                if not row[options.image] or row[options.caption] is None:
                    raise BadRequest(
                        f"{path}, line {rows.line_num}: no {options.image} or {options.caption} in this row"
                    )
                yield row[options.image].strip(), row[options.caption].strip()
        except (csv.Error, UnicodeDecodeError) as error:
            raise BadRequest(f"{path}, line {rows.line_num + 1}: {error}") from None


def _beside(folder: Path) -> Iterator[tuple[str, str]]:
    if not folder.is_dir():
        raise BadRequest(f"no folder of images at {folder}")
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURES):
        text = path.with_suffix(".txt")
        said = text.read_text(encoding="utf-8-sig").strip() if text.is_file() else ""
        yield path.relative_to(folder).as_posix(), said


SOURCE = Captions()
