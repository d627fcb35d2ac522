"""What benchmarks ask about which images, to be found again in training data."""

from __future__ import annotations

from pathlib import Path

from llavakit.base.errors import BadRequest
from llavakit.data.doctor.examine import Bench
from llavakit.data.doctor.records import question_key
from llavakit.eval.run import BENCHMARKS


def read_bench(text: str) -> Bench:
    """``"pope=DIR"``: the benchmark's questions from its official files. Raises :class:`BadRequest` otherwise."""
    name, equals, folder = text.partition("=")
    if not equals:
        raise BadRequest(f"{text!r} is not of the form benchmark=folder")
    found: dict[str, set[str]] = {}
    for asked in BENCHMARKS[name].load(folder):
        key = question_key(asked.conversation.turns[0].text)
        for image in [str(ref) for ref in asked.conversation.images if isinstance(ref.source, Path)] or [""]:
            found.setdefault(image, set()).add(key)
    return Bench(name, {image: frozenset(keys - {""}) for image, keys in found.items()})
