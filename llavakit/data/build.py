"""Build a mixture: raw annotations in, one JSONL in LLaVA's format out, with where every record came from.

A function of the inputs and the seed: each source is built by itself, in a process of its own, and choices come from
hashes, so the bytes are the same whatever the number of workers.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from llavakit import __version__
from llavakit.base.errors import BadRequest, LlavakitError
from llavakit.base.files import sha256, write_json, writing
from llavakit.base.log import log, progress, table
from llavakit.data.blend import Blend
from llavakit.data.coco import coco_folder
from llavakit.data.reader import apply


@dataclass(frozen=True)
class Built:
    """What :func:`build` made. ``sources``: for each name its records, published count and reason for a difference."""

    path: Path
    records: int
    sources: dict[str, dict[str, Any]]

    def text(self) -> str:
        """The table of counts beside the published ones, and why they differ."""
        rows, notes = [], []
        for name, made in self.sources.items():
            count, published = made["records"], made["published"]
            difference = "" if published is None else f"{count - published:+,}"
            rows.append([name, f"{count:,}", "-" if published is None else f"{published:,}", difference])
            if made["why"]:
                notes.append(f"{name}: {made['why']}")
        total = sum(made["published"] or 0 for made in self.sources.values())
        end = [f"{total:,}", f"{self.records - total:+,}"] if total else ["-", ""]
        rows.append(["total", f"{self.records:,}", *end])
        counts = table(rows, ["source", "records", "published", "difference"])
        return counts + "".join(f"\n{note}" for note in ["", *notes] if notes)


def build(
    blend: Blend, root: str | Path, out: str | Path, seed: int = 0, workers: int = 1, allow_missing: bool = False
) -> Built:
    """Writes ``out/NAME.jsonl`` and ``out/NAME.provenance.json``. Image names are relative to ``root``.

    Raises :class:`BadRequest` that lists all missing sources and where to get them, unless ``allow_missing``.
    """
    root, out = Path(root), Path(out)
    if not root.is_dir():
        raise BadRequest(f"no folder of raw data at {root}")
    present = _present(blend, root, allow_missing)
    out.mkdir(parents=True, exist_ok=True)
    parts = Path(tempfile.mkdtemp(prefix=".parts.", dir=out))
    try:
        jobs = [(blend, name, str(root), str(parts), seed) for name in present]
        made = dict(zip(present, _run(jobs, workers), strict=True))
        path = out / f"{blend.name}.jsonl"
        with writing(path) as temporary, open(temporary, "wb") as file:
            for name in present:
                with open(parts / f"{name}.jsonl", "rb") as part:
                    shutil.copyfileobj(part, file)
    finally:
        shutil.rmtree(parts)
    sources = {name: _summary(blend, name, made.get(name)) for name in blend.sources}
    total = sum(source["records"] for source in made.values())
    provenance = {
        "llavakit": __version__,
        "mixture": blend.plain(),
        "mixture_hash": blend.hash(),
        "seed": seed,
        "output": {"file": path.name, "records": total, "sha256": sha256(path)},
        "sources": {name: made.get(name, {"missing": True}) for name in blend.sources},
    }
    write_json(out / f"{blend.name}.provenance.json", provenance)
    _warn_of_images(path, root)
    return Built(path, total, sources)


def _present(blend: Blend, root: Path, allow_missing: bool) -> list[str]:
    """Names of the sources whose files are there."""
    present, absent = [], []
    for name, ingredient in blend.sources.items():
        reader, options = blend.reader(name)
        if missing := reader.missing(root / ingredient.path, options):
            absent.append(f"{name}: no {', '.join(missing)}\n  from {reader.get}")
        else:
            present.append(name)
    if absent:
        listed = "\n".join(absent)
        if not allow_missing:
            raise BadRequest(
                f"{len(absent)} of {len(blend.sources)} sources are not below {root} (or up to two folders deeper); "
                f"--allow-missing builds without them:\n{listed}"
            )
        log.warning(f"built without {len(absent)} of {len(blend.sources)} sources:\n{listed}")
    if not present:
        raise BadRequest(f"none of the sources of {blend.name} is below {root}")
    return present


Job = tuple[Blend, str, str, str, int]


def _run(jobs: list[Job], workers: int) -> Iterator[dict[str, Any]]:
    """What each job says, in order."""
    bar = progress(total=len(jobs), desc="build", unit="source")
    if workers <= 1 or len(jobs) == 1:
        outcomes: Iterator[dict[str, Any] | LlavakitError] = map(_job, jobs)
        yield from _checked(outcomes, bar)
        return
    with ProcessPoolExecutor(min(workers, len(jobs)), multiprocessing.get_context("spawn")) as pool:
        yield from _checked(pool.map(_job, jobs), bar)


def _checked(outcomes: Iterator[dict[str, Any] | LlavakitError], bar: Any) -> Iterator[dict[str, Any]]:
    with bar:
        for outcome in outcomes:
            if isinstance(outcome, LlavakitError):
                raise outcome
            bar.update()
            yield outcome


def _job(job: Job) -> dict[str, Any] | LlavakitError:
    """Builds one source into its part. A failure is returned: raised, it would bring a worker's traceback along."""
    blend, name, root, parts, seed = job
    try:
        return _source(blend, name, Path(root), Path(parts), seed)
    except LlavakitError as error:
        return error


def _source(blend: Blend, name: str, root: Path, parts: Path, seed: int) -> dict[str, Any]:
    reader, options = blend.reader(name)
    ingredient = blend.sources[name]
    data = root / ingredient.path
    talks, ledger = reader.talks(data, options, seed)
    talks = apply(ingredient.rules(name), talks, seed, name, ledger)
    images: set[str] = set()
    digest = hashlib.sha256()
    with open(parts / f"{name}.jsonl", "wb") as file:
        for talk in talks:
            line = (json.dumps(talk.record(name), ensure_ascii=False) + "\n").encode()
            file.write(line)
            digest.update(line)
            images.update(talk.images)
    return {
        "records": len(talks),
        "exchanges": sum(sum(who == "gpt" for who, _ in talk.turns) for talk in talks),
        "images": len(images),
        "sha256": digest.hexdigest(),
        "inputs": [
            {"file": os.path.relpath(path, root).replace(os.sep, "/"), "sha256": sha256(path)}
            for path in reader.inputs(data, options)
        ],
        "rules": ledger,
    }


def _summary(blend: Blend, name: str, made: dict[str, Any] | None) -> dict[str, Any]:
    reader, _ = blend.reader(name)
    published = blend.sources[name].records
    count = made["records"] if made else 0
    why = ""
    if made is None:
        why = "missing"
    elif published is not None and count != published:
        dropped = made["rules"][0].get("dropped", {})
        left_out = "; ".join(f"{number:,} {reason}" for reason, number in dropped.items())
        here = ", ".join(f"{line['rule']} {line['conversations']:,}" for line in _changes(made["rules"]))
        why = ". ".join(filter(None, [reader.differs, f"Here: {here}", left_out and f"Left out: {left_out}"]))
    return {"records": count, "published": published, "why": why}


def _changes(ledger: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The first line, and those whose rule changed the number of conversations."""
    before = None
    for line in ledger:
        if line["conversations"] != before:
            yield line
        before = line["conversations"]


def _warn_of_images(path: Path, root: Path) -> None:
    """Folders of images that records name and that are not there: training will want them."""
    folders: dict[str, int] = {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            named = json.loads(line).get("image", [])
            for image in [named] if isinstance(named, str) else named:
                folder = str(PurePosixPath(image).parent)
                folders[folder] = folders.get(folder, 0) + 1
    for folder, count in sorted(folders.items()):
        if not (root / folder).is_dir() and not coco_folder(root / folder):
            log.warning(f"{root / folder} is not there, and {count:,} records name images in it")
