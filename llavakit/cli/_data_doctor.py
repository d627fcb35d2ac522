"""Reads every record and every image of a data set and says what must be mended.

    llavakit data doctor mix.jsonl --images RAW --tokenizer lmsys/vicuna-7b-v1.5 --out report
    llavakit data doctor mix.jsonl --images RAW --bench pope=DATA/pope --bench gqa=DATA/gqa
    llavakit data doctor mix.jsonl --images RAW --fix mended.jsonl

Writes report.html, report.json and problems.jsonl into OUT; a killed examination goes on where it was. Exit code 1
when something must be mended. --fix writes a corrected copy and FILE.changes.jsonl; the original stays as it is.
"""

from __future__ import annotations

import argparse

HELP = "what is wrong with a data set, and a corrected copy"


def arguments(parser: argparse.ArgumentParser) -> None:
    from llavakit.cli import _data_target

    _data_target.arguments(parser)
    parser.add_argument("--bench", action="append", default=[], metavar="NAME=DIR", help="a benchmark to look for")
    parser.add_argument("--out", help="folder of the report (default: TARGET.doctor beside the file)")
    parser.add_argument("--fix", metavar="FILE", help="write a corrected copy there")
    parser.add_argument("--workers", type=int, help="processes (default: one for each core)")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace) -> int:
    import json
    import os
    from pathlib import Path

    from llavakit.base.errors import BadRequest
    from llavakit.base.files import write_json, write_text
    from llavakit.cli import _data_target
    from llavakit.data.doctor.bench import read_bench
    from llavakit.data.doctor.examine import File
    from llavakit.data.doctor.examine import run as examine
    from llavakit.data.doctor.fix import fix
    from llavakit.data.doctor.report import diagnose
    from llavakit.data.doctor.text import text
    from llavakit.data.page import render

    specs, recipe, stage = _data_target.sources(args)
    files = [File(Path(s.path), Path(s.images) if s.images else Path(s.path).parent) for s in specs.values()]
    if args.fix and len(files) > 1:
        raise BadRequest(f"--fix mends one file; {args.target} reads {len(files)}")
    out = Path(args.out) if args.out else files[0].path.with_name(f"{files[0].path.name}.doctor")
    codec = _data_target.how(args, recipe, stage).codec
    benches = [read_bench(text) for text in args.bench]
    workers = (os.cpu_count() or 1) if args.workers is None else args.workers
    journal = examine(files, out / "journal.jsonl", codec, benches, workers)
    found = diagnose(files, journal, benches, codec is not None, out)
    write_json(out / "report.json", found.plain())
    write_text(out / "report.html", render("doctor", **found.plain(), max_length=recipe.max_length))
    print(json.dumps(found.plain(), indent=2) if args.json else f"{text(found)}\n\nReport: {out / 'report.html'}")
    if args.fix:
        changes = fix(files[0].path, out / "problems.jsonl", Path(args.fix))
        said = ", ".join(f"{count:,} {change}" for change, count in changes.most_common()) or "nothing to change"
        if not args.json:
            print(f"{args.fix}: {said}; every change stands in {args.fix}.changes.jsonl")
    return 1 if found.errors else 0
