"""Compares two runs of `llavakit eval` question by question: which is better, by how much, and how sure that is.

    llavakit compare runs/a/scores runs/b/scores --out report.html

Prints a table: the difference with its 95 % interval (bootstrap) and p-value (permutation), both drawing pictures and
not questions, and p corrected for the number of benchmarks. --out writes the page with published figures, categories
and the answers in which the two part, and beside it the same tables as Markdown and JSON.
"""

from __future__ import annotations

import argparse

HELP = "compare two evaluated models"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs=2, metavar="RUN", help="folder that llavakit eval --out wrote")
    parser.add_argument("--out", metavar="FILE", help="the report, as report.html")
    parser.add_argument("--json", action="store_true", help="print the comparison as JSON")


def run(args: argparse.Namespace) -> None:
    import json
    from pathlib import Path

    from llavakit.eval.compare import compare
    from llavakit.eval.held import distinct, read_run
    from llavakit.eval.report import comparison_table

    runs = distinct([read_run(Path(place)) for place in args.runs])
    comparisons = compare(*runs)
    if args.out:
        from llavakit.eval.page import write_report

        write_report(Path(args.out), runs, comparisons)
    if args.json:
        print(json.dumps([one.plain() for one in comparisons], indent=2))
    else:
        print(comparison_table(comparisons, [run.name for run in runs]))
