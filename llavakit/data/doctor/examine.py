"""The examination: records and then images, in parallel, in bounded memory, resumable."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llavakit.base.files import sha256
from llavakit.base.log import progress
from llavakit.data.doctor.journal import Journal
from llavakit.data.doctor.pictures import examine_picture
from llavakit.data.doctor.records import examine
from llavakit.data.stream import Item, survey
from llavakit.model.encode import Codec

RECORDS, PICTURES = 256, 32  # in a chunk


@dataclass(frozen=True)
class File:
    """One data file and the folder of its images."""

    path: Path
    images: Path


@dataclass(frozen=True)
class Bench:
    """What a benchmark asks: for each of its images the keys of the questions about it ("" where it has none)."""

    name: str
    questions: dict[str, frozenset[str]]


def run(
    files: Sequence[File], journal_path: Path, codec: Codec | None, benches: Sequence[Bench], workers: int
) -> Journal:
    """Examines everything that the journal does not hold yet. ``workers`` 0: in this process."""
    asked = frozenset(key for bench in benches for keys in bench.questions.values() for key in keys)
    journal = Journal(journal_path, _identity(files, codec, benches))
    with _pool(workers, codec, asked) as each:
        for number, file in enumerate(files):
            kind = f"records {number}"
            work = _chunks(survey(file.path), RECORDS)
            _do(
                each,
                _examine_records,
                ((file.images, chunk) for chunk in work),
                journal,
                kind,
                f"{file.path.name}",
                None,
            )
        pictures = sorted({name for row in _records(journal, files) for name in row["images"]})
        shown = sorted({image for bench in benches for image in bench.questions if image})
        for kind, paths in (("pictures", pictures), ("benchmark pictures", shown)):
            total = -(-len(paths) // PICTURES)
            _do(each, _examine_pictures, _chunks(paths, PICTURES), journal, kind, kind, total)
    return journal


def _records(journal: Journal, files: Sequence[File]) -> Iterator[Any]:
    for number in range(len(files)):
        yield from journal.rows(f"records {number}")


def _identity(files: Sequence[File], codec: Codec | None, benches: Sequence[Bench]) -> dict[str, Any]:
    measure = None
    if codec is not None:
        measure = [codec.template.jinja(), codec.image_tokens, codec.max_length, len(codec.tokenizer)]
    return {
        "files": [[str(file.path), sha256(file.path), str(file.images)] for file in files],
        "measure": measure,
        "benches": [[b.name, sorted([image, sorted(keys)] for image, keys in b.questions.items())] for b in benches],
    }


Apply = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]


@contextlib.contextmanager
def _pool(workers: int, codec: Codec | None, asked: frozenset[str]) -> Iterator[Apply]:
    """A map in order over processes that reads only a little ahead of what was asked for."""
    if workers < 1:
        _begin(codec, asked)
        yield lambda function, jobs: map(function, jobs)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin, (codec, asked)) as pool:

        def each(function: Callable[[Any], Any], jobs: Iterable[Any]) -> Iterator[Any]:
            waiting: deque[Future[Any]] = deque()
            for job in jobs:
                waiting.append(pool.submit(function, job))
                if len(waiting) > 4 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

        yield each


def _do(
    each: Apply,
    function: Callable[[Any], list[Any]],
    jobs: Iterable[Any],
    journal: Journal,
    kind: str,
    desc: str,
    total: int | None,
) -> None:
    done = journal.done.get(kind, 0)
    with progress(total=total, desc=desc, unit="chunk") as bar:
        bar.update(done)
        for chunk, rows in enumerate(each(function, itertools.islice(jobs, done, None)), done):
            journal.append(kind, chunk, rows)
            bar.update()


def _chunks(values: Iterable[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(values)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk


# A worker's own: given once, not with every chunk.
_codec: Codec | None = None
_asked: frozenset[str] = frozenset()


def _begin(codec: Codec | None, asked: frozenset[str]) -> None:
    global _codec, _asked
    _codec, _asked = codec, asked


def _examine_records(job: tuple[Path, list[Item]]) -> list[Any]:
    images, items = job
    return [examine(item, images, _codec, _asked) for item in items]


def _examine_pictures(paths: list[str]) -> list[Any]:
    return [examine_picture(path) for path in paths]
