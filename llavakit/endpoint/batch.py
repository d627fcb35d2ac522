"""The provider's batch files, an alternative to asking one by one: half the price, an answer within a day.

Format: https://platform.openai.com/docs/guides/batch. A question is recognised by its key, in ``custom_id``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from llavakit.base.errors import BadRequest
from llavakit.base.files import writing
from llavakit.endpoint.journal import Journal
from llavakit.endpoint.meter import Meter
from llavakit.endpoint.request import Failure, Request, Unusable, reply_of_body

MOST_REQUESTS, MOST_BYTES = 50_000, 200_000_000  # of one file, by the provider's rules


def write_batches(folder: str | Path, requests: Iterable[Request], journal: Journal, meter: Meter) -> dict[str, int]:
    """Writes what the journal does not answer yet into ``folder/requests-000.jsonl`` and on, each within the
    provider's limits. Returns the number of questions in each file.

    Raises :class:`~llavakit.endpoint.meter.OverBudget` when together they could cost more than is left: nothing is
    written then. Raises :class:`BadRequest` when ``folder`` exists.
    """
    folder = Path(folder)
    if folder.exists():
        raise BadRequest(f"{folder} exists; its questions may have been handed in already: name another folder")
    counts: dict[str, int] = {}
    with writing(folder) as temporary:
        temporary.mkdir()
        for number, lines in enumerate(_files(_new(requests, journal, meter))):
            name = f"requests-{number:03d}.jsonl"
            (temporary / name).write_text("".join(lines), encoding="utf-8")
            counts[name] = len(lines)
    return counts


def read_batch(path: str | Path, journal: Journal, meter: Meter) -> tuple[int, list[Failure]]:
    """Takes the answers of a batch output file into the journal. Returns how many were new, and the failures.

    Raises :class:`BadRequest` naming the line that is not of the format.
    """
    path = Path(path)
    if not path.is_file():
        raise BadRequest(f"no batch output file at {path}")
    new, failures = 0, []
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            key, status, body, error = _outcome(line, f"{path}, line {number}")
            if journal[key] is not None:
                continue
            try:
                if error or status != 200:
                    raise Unusable(f"HTTP {status}: {error or body}"[:300], refused=400 <= status < 500)
                reply = reply_of_body(body, key)
            except Unusable as trouble:
                failures.append(Failure(key, str(trouble), trouble.refused))
                if trouble.usage:
                    meter.add(trouble.usage)
                    journal.waste(trouble.usage)
                continue
            meter.add(reply.usage)
            journal.add(reply)
            new += 1
    return new, failures


def _new(requests: Iterable[Request], journal: Journal, meter: Meter) -> Iterator[str]:
    seen = set()
    for request in requests:
        if journal[request.key] is None and request.key not in seen:
            seen.add(request.key)
            meter.hold(request)
            line = {"custom_id": request.key, "method": "POST", "url": "/v1/chat/completions", "body": request.body}
            yield json.dumps(line, ensure_ascii=False) + "\n"


def _files(lines: Iterable[str]) -> Iterator[list[str]]:
    part: list[str] = []
    size = 0
    for line in lines:
        length = len(line.encode())
        if part and (len(part) == MOST_REQUESTS or size + length > MOST_BYTES):
            yield part
            part, size = [], 0
        part.append(line)
        size += length
    if part:
        yield part


def _outcome(line: str, where: str) -> tuple[str, int, Any, str]:
    """``custom_id``, HTTP status, body, error text of one line."""
    try:
        record = json.loads(line)
        response, error = record.get("response") or {}, record.get("error") or {}
        return str(record["custom_id"]), int(response.get("status_code") or 0), response.get("body"), _text(error)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise BadRequest(f"{where}: not a line of a batch output file ({error!r}): {line[:80].strip()}") from None


def _text(error: Any) -> str:
    return str(error.get("message") or error.get("code") or error) if isinstance(error, dict) and error else ""
