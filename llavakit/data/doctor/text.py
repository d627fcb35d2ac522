"""The report for a terminal."""

from __future__ import annotations

from typing import Any

from llavakit.base.log import table
from llavakit.data.doctor.codes import CODES
from llavakit.data.doctor.report import Diagnosis

FEW = 3  # examples of each kind


def text(found: Diagnosis) -> str:
    """Statistics, then problems from the gravest on, with examples."""
    plain = found.plain()
    rows = [_row(name, totals) for name, totals in plain["sources"].items()]
    if len(rows) > 1:
        rows.append(_row("all", plain["all"]))
    header = ["source", "records", "with images", "turns", "tokens", "supervised", "median", "99 %", "longest", "cut"]
    parts = [table(rows, header)]
    if not found.checked["length"]:
        parts.append("Token lengths were not measured: --tokenizer DIR does.")
    languages = ", ".join(f"{name} {count:,}" for name, count in found.languages.most_common())
    parts.append(f"{found.pictures:,} image files, {found.same_content:,} of them with the content of another.")
    parts.append(f"Languages (a guess): {languages or 'none'}")
    parts.append(_problems(found))
    return "\n\n".join(parts)


def _row(name: str, totals: dict[str, Any]) -> list[str]:
    length = totals["length"] or {}
    numbers = [totals["records"], totals["with images"], totals["turns"], totals["tokens"], totals["supervised tokens"]]
    numbers += [length.get("median"), length.get("p99"), length.get("most"), totals["tokens cut"]]
    return [name, *("-" if number is None else f"{number:,}" for number in numbers)]


def _problems(found: Diagnosis) -> str:
    if not found.counts:
        return "Nothing is wrong."
    lines = []
    for code, count in found.counts.items():
        lines.append(f"{CODES[code].grade}: {code}, {count:,}: {CODES[code].means}")
        for problem in found.examples[code][:FEW]:
            id = f", id {problem.id!r}" if problem.id else ""  # a broken record has none
            lines.append(f"    {problem.file}, line {problem.line}{id}: {problem.detail}")
        if count > FEW:
            lines.append(f"    and {count - FEW:,} more")
    end = f"{found.errors:,} must be mended." if found.errors else "Nothing must be mended."
    return "\n".join([*lines, "", end])
