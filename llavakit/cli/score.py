"""Scores anyone's answers file (LLaVA's answers format: question_id, prompt, text) with a benchmark's official metric.

llavakit score pope --annotations DIR --answers answers.jsonl --json
"""

from __future__ import annotations

import argparse

HELP = "score anyone's answers file"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bench", help="name of the benchmark")
    parser.add_argument("--annotations", required=True, help="folder of its official files")
    parser.add_argument("--answers", required=True, help="JSONL in LLaVA's answers format")
    parser.add_argument("--protocol", default="", help="a named way of counting; the benchmark's first is the default")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> None:
    import json

    from llavakit.base.files import read_jsonl
    from llavakit.eval.report import text_table
    from llavakit.eval.run import BENCHMARKS, score

    benchmark = type(BENCHMARKS[args.bench])(args.protocol)
    result = score(benchmark, benchmark.load(args.annotations), read_jsonl(args.answers))
    print(json.dumps(result.plain(), indent=2) if args.json else text_table([result]))
