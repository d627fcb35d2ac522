"""Writes the whole miniature data set: pictures, LLaVA's training files, conversations in words, held-out questions,
benchmarks.

::

    out/images/{train,test}/00000.jpg    out/align.json           stage 1
    out/words/{lookup,talk,lists,chat}.json   for the language model
    out/tune/<name>.json                 stage 2, a file an ingredient
    out/words/regions.json               what the pictures that those speak of would show; they are not drawn
    out/regions.json                     every item's box and phrase, for the vision tower
    out/captions.jsonl                   captions and boxes of the training pictures, for a teacher
    out/world.json                       out/test/<name>.jsonl    held-out questions
                                         out/benchmarks/<name>/   the same in the official formats
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from llavakit.base.errors import BadRequest
from llavakit.base.files import read_json, write_json, write_text, writing
from llavakit.base.log import progress
from llavakit.world.ask.table import CAPTION, INGREDIENTS, REGIONS, questions
from llavakit.world.benchmarks import write_benchmarks
from llavakit.world.corpus import chat, lists, lookup, regions, small_talk
from llavakit.world.draw import draw
from llavakit.world.sample import sample_scene
from llavakit.world.told import told

VERSION = 9  # of the world itself: raise it when the same arguments give other files
TOLD = "told"
_WRITTEN = (CAPTION, REGIONS, *INGREDIENTS.values())
_WORDS = {"lookup": lookup, "talk": small_talk, "lists": lists, "chat": chat, "regions": regions}
_CHUNK = 100  # pictures, or conversations x 10, a task

Summary = dict[str, Any]
_Texts = dict[str, list[dict[str, Any]]]


def build(
    out: Path | str,
    seed: int,
    train: int,
    test: int,
    side: int = 224,
    workers: int | None = None,
    *,
    conversations: int = 3500,
    questions_per_ingredient: int = 120,
    benchmark_questions: int = 100,
) -> Summary:
    """Builds the data set in ``out`` and returns what is in it. The files do not depend on ``workers``.

    ``train``, ``test``: pictures of each split; ``side``: the pictures' longest side in pixels; ``conversations``:
    in words, of each kind; ``workers``: processes (None: one a core). ``out`` is whole or absent. One that was built
    from the same arguments is left as it is; raises :class:`BadRequest` when something else is there.
    """
    out = Path(out)
    arguments: dict[str, int] = {
        "version": VERSION,
        "seed": seed,
        "train": train,
        "test": test,
        "side": side,
        "conversations": conversations,
        "questions_per_ingredient": questions_per_ingredient,
        "benchmark_questions": benchmark_questions,
    }
    if min(arguments.values()) < 0 or min(train, test, side) < 1:
        raise BadRequest(f"a world needs at least one picture a split and no negative number: {arguments}")
    if out.exists():
        return _built(out, arguments)
    with writing(out) as folder:
        summary = _write(folder, arguments, workers or os.cpu_count() or 1)
        write_json(folder / "world.json", {"arguments": arguments, "summary": summary})
    return summary


def _built(out: Path, arguments: dict[str, int]) -> Summary:
    marker = out / "world.json"
    if not marker.is_file():
        raise BadRequest(f"{out} exists and was not built by this command; choose another folder or remove it")
    found = read_json(marker)
    if found["arguments"] != arguments:
        differ = [key for key in arguments if found["arguments"].get(key) != arguments[key]]
        raise BadRequest(f"{out} was built with another {', '.join(differ)}; choose another folder or remove it")
    summary: Summary = found["summary"]
    return summary


def _write(folder: Path, arguments: dict[str, int], workers: int) -> Summary:
    seed, train, test, side = (arguments[name] for name in ("seed", "train", "test", "side"))
    for name in ("images/train", "images/test", "words", "tune", "test"):
        (folder / name).mkdir(parents=True)
    texts: _Texts = {name: [] for name in (TOLD, *(one.name for one in _WRITTEN))}
    summary: Summary = {"images": {"train": train, "test": test}}
    tasks = [(folder, seed, "train", side, *span) for span in _spans(train, _CHUNK)]
    tasks += [(folder, seed, "test", side, *span) for span in _spans(test, _CHUNK)]
    talks = [(name, seed, *span) for name in _WORDS for span in _spans(arguments["conversations"], 10 * _CHUNK)]
    with _mapping(workers) as mapped, progress(total=train + test, desc="drawing the world", unit="picture") as bar:
        drawn, told = mapped(_pictures, tasks), mapped(_talks, talks)
        for task, part in zip(tasks, drawn, strict=True):
            bar.update(task[-1] - task[-2])
            for name, records in part.items():
                texts[name] += records
        said: _Texts = {name: [] for name in _WORDS}
        for (name, *_), records in zip(talks, told, strict=True):
            said[name] += records
    for name, records in said.items():
        _write_records(folder / "words" / f"{name}.json", records)
    _write_records(folder / "align.json", texts.pop(CAPTION.name))
    _write_records(folder / "regions.json", texts.pop(REGIONS.name))
    write_text(folder / "captions.jsonl", "".join(f"{json.dumps(record)}\n" for record in texts.pop(TOLD)))
    for name, records in texts.items():
        _write_records(folder / "tune" / f"{name}.json", records)
    summary["tune"] = {name: len(records) for name, records in texts.items()}
    summary["words"] = {name: len(records) for name, records in said.items()}
    for ingredient in (CAPTION, *INGREDIENTS.values()):
        asked = questions(
            ingredient, seed, test, arguments["questions_per_ingredient"], "images/test/{:05d}.jpg".format
        )
        write_text(folder / "test" / f"{ingredient.name}.jsonl", "".join(f"{json.dumps(r)}\n" for r in asked))
    summary["questions"] = dict.fromkeys((CAPTION.name, *INGREDIENTS), arguments["questions_per_ingredient"])
    summary["benchmarks"] = write_benchmarks(folder, seed, test, arguments["benchmark_questions"])
    return summary


@contextlib.contextmanager
def _mapping(workers: int) -> Iterator[Callable[..., Iterable[Any]]]:
    """``map`` over that many processes, results in order; when interrupted, what has not begun is dropped."""
    if workers == 1:
        yield map
        return
    # Where fork is safe it spares each worker a fresh interpreter, which takes longer than a small world.
    context = get_context("fork" if sys.platform == "linux" else "spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context)
    try:
        yield pool.map
    finally:
        pool.shutdown(cancel_futures=True)


def _pictures(task: tuple[Path, int, str, int, int, int]) -> _Texts:
    """Draws the pictures ``first`` to ``end`` of a split; for training, writes their texts too."""
    folder, seed, split, side, first, end = task
    texts: _Texts = {name: [] for name in (TOLD, *(one.name for one in _WRITTEN))} if split == "train" else {}
    for index in range(first, end):
        scene = sample_scene(seed, index, split)
        path = f"images/{split}/{index:05d}.jpg"
        # No chroma subsampling: a small red ring on gray must stay red.
        draw(scene, side).save(folder / path, quality=92, subsampling=0)
        if split == "train":
            texts[TOLD].append(told(scene, f"{index:05d}", path))
            for ingredient in _WRITTEN:
                if ingredient.chosen(seed, index):
                    texts[ingredient.name] += ingredient.records(seed, index, split, path, scene)
    return texts


def _talks(task: tuple[str, int, int, int]) -> list[dict[str, Any]]:
    """Conversations ``first`` to ``end`` of a kind."""
    name, seed, first, end = task
    return [_WORDS[name](seed, index) for index in range(first, end)]


def _spans(number: int, length: int) -> Iterator[tuple[int, int]]:
    return ((first, min(first + length, number)) for first in range(0, number, length))


def _write_records(path: Path, records: list[dict[str, Any]]) -> None:
    # One record a line: a person can look at the file, and it is no larger for it.
    lines = ",\n".join(json.dumps(record, ensure_ascii=False) for record in records)
    write_text(path, f"[\n{lines}\n]\n")
