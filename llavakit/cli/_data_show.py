"""Makes a page to browse a data set: pictures with their patches, conversations with what is learned marked, lengths.

    llavakit data show mix.jsonl --images RAW --tokenizer lmsys/vicuna-7b-v1.5 --out mix.html
    llavakit data show demo --stage tune --out demo.html

Where `data doctor` has been (TARGET.doctor, or --doctor), its findings can be filtered by.
"""

from __future__ import annotations

import argparse

HELP = "a page to browse a data set"


def arguments(parser: argparse.ArgumentParser) -> None:
    from llavakit.cli import _data_target

    _data_target.arguments(parser)
    parser.add_argument("--out", required=True, help="the HTML file")
    parser.add_argument("--doctor", help="folder of the doctor's report")
    parser.add_argument("--each", type=int, default=12, help="records a source and problem (default: %(default)s)")
    parser.add_argument("--measure", type=int, default=2000, help="records whose length counts (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of records (default: %(default)s)")


def run(args: argparse.Namespace) -> None:
    from pathlib import Path

    from llavakit.base.files import write_text
    from llavakit.cli import _data_target
    from llavakit.data.show.choose import read_problems
    from llavakit.data.show.page import show

    specs, recipe, stage = _data_target.sources(args)
    how = _data_target.how(args, recipe, stage)
    first = Path(next(iter(specs.values())).path)
    problems = read_problems(Path(args.doctor) if args.doctor else first.with_name(f"{first.name}.doctor"))
    page = show(specs, how, Path(args.target).name, problems, args.each, args.measure, args.seed)
    write_text(args.out, page)
    print(args.out)
