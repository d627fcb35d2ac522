"""A corrected copy of a data file, and a list of every change. The original is never touched.

What training would refuse is mended where one reading alone makes sense, and left out where none does; what is only
suspect stays.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llavakit.base.errors import BadRequest
from llavakit.base.files import writing
from llavakit.chat.conversation import IMAGE
from llavakit.data.doctor.codes import CODES
from llavakit.data.doctor.records import ROLES, names, structure
from llavakit.data.stream import survey

MENDABLE = {"turn-order", "unanswered", "empty-answer", "image-count"}


def fix(path: Path, problems: Path, out: Path) -> Counter[str]:
    """Writes the copy ``out`` (JSON list or JSONL, as ``path``) and ``out`` + ``.changes.jsonl``; returns the number
    of changes by kind. ``problems`` is the examination's list. Raises :class:`BadRequest` when ``out`` is ``path``."""
    if out.resolve() == path.resolve():
        raise BadRequest(f"--fix {out} is the original itself; name another file")
    changes: Counter[str] = Counter()
    errors = _errors(path, problems)
    coming = next(errors, None)
    changes_path = out.with_name(f"{out.name}.changes.jsonl")
    with writing(out) as copy, writing(changes_path) as log:  # noqa: SIM117 (one statement would not fit a line)
        with open(copy, "w", encoding="utf-8") as file, open(log, "w", encoding="utf-8") as listed:
            write = _writer(file, lines=out.suffix == ".jsonl")
            for item in survey(path):
                found = []
                while coming is not None and coming["index"] == item.index:
                    found.append(coming)
                    coming = next(errors, None)
                record, said = mend(item.value, found) if found else (item.value, [])
                for change, why in said:
                    changes[change] += 1
                    place = {"line": item.line, "index": item.index, "id": found[0]["id"]}
                    listed.write(json.dumps(place | {"change": change, "why": why}, ensure_ascii=False) + "\n")
                if record is not None:
                    write(record)
            write(None)
    return changes


def mend(record: Any, problems: list[dict[str, Any]]) -> tuple[Any, list[tuple[str, str]]]:
    """The mended record, or None where it is left out, and each (change, why)."""
    hopeless = [problem for problem in problems if problem["code"] not in MENDABLE]
    if hopeless:
        return None, [("left out", f"{p['code']}: {p['detail']}") for p in hopeless[:1]]
    said: list[tuple[str, str]] = []
    mended = json.loads(json.dumps(record))
    turns = mended["conversations"]
    system = [turns.pop(0)] if turns[0]["from"] == "system" else []
    while turns and ROLES[turns[0]["from"]] != "user":
        said.append(("turn removed", f"it comes before the first question: {_short(turns.pop(0))}"))
    while turns and ROLES[turns[-1]["from"]] != "assistant":
        said.append(("turn removed", f"a last question without an answer: {_short(turns.pop())}"))
    for at in range(len(turns) - 2, -1, -1):
        pair = turns[at : at + 2]
        if [ROLES[t["from"]] for t in pair] == ["user", "assistant"] and not pair[1]["value"].strip():
            said.append(("exchange removed", f"its answer is empty: {_short(pair[0])}"))
            del turns[at : at + 2]
    if turns:
        said += _mend_marks(mended, turns)
    mended["conversations"] = system + turns
    left = next(structure(mended), None)
    if left is not None:
        return None, [("left out", f"{problems[0]['code']}: {problems[0]['detail']}")]
    return mended, said


def _mend_marks(record: dict[str, Any], turns: list[dict[str, str]]) -> Iterator[tuple[str, str]]:
    images, marks = len(names(record)), sum(turn["value"].count(IMAGE) for turn in turns)
    if images and not marks:
        turns[0]["value"] = f"{IMAGE}\n" * images + turns[0]["value"]
        yield "image mark added", f"{images} image(s) and no {IMAGE}: put before the first question"
    elif images == 1 and marks > 1:
        seen = 0
        for turn in turns:
            seen, turn["value"] = _first_mark(turn["value"].split(IMAGE), seen)
        yield "image mark removed", f"{marks} {IMAGE} and one image: the first stays"


def _first_mark(pieces: list[str], seen: int) -> tuple[int, str]:
    """The pieces joined by the one mark that may stay, when none was seen before."""
    if len(pieces) == 1:
        return seen, pieces[0]
    if seen:
        return seen, "".join(pieces).strip()
    return 1, pieces[0] + IMAGE + "".join(pieces[1:])


def _short(turn: dict[str, str]) -> str:
    return repr(turn["value"][:80])


def _errors(path: Path, problems: Path) -> Iterator[dict[str, Any]]:
    with open(problems, encoding="utf-8") as file:
        for line in file:
            problem = json.loads(line)
            if problem["file"] == str(path.absolute()) and CODES[problem["code"]].grade == "error":
                yield problem


def _writer(file: Any, lines: bool) -> Any:
    """A function that writes records one by one; None ends."""
    before = "" if lines else "[\n"

    def write(record: Any) -> None:
        nonlocal before
        if record is None:
            file.write("" if lines else "\n]\n" if before == ",\n" else "[]\n")
            return
        file.write(before + json.dumps(record, ensure_ascii=False) + ("\n" if lines else ""))
        before = "" if lines else ",\n"

    return write
