"""Scores anyone's answers file with a benchmark's official metric.

    llavakit score pope --annotations DIR --answers answers.jsonl --json

Answers are in LLaVA's format (question_id, prompt, text); for the judged benchmarks they are what the judge's run left:
LLaVA's reviews (JSONL) and MM-Vet's grades (JSON). Several files are several runs, and give their mean and spread.
--submission writes the file for a benchmark's server instead.
"""

from __future__ import annotations

import argparse

HELP = "score anyone's answers file"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bench", help="name of the benchmark")
    parser.add_argument("--annotations", required=True, help="folder of its official files")
    parser.add_argument("--answers", required=True, nargs="+", help="answers file, or several of one model")
    parser.add_argument("--protocol", default="", help="a named way of counting; the benchmark's first is the default")
    parser.add_argument("--submission", metavar="FILE", help="write the file for the benchmark's server, score nothing")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> None:
    import json
    from pathlib import Path

    from llavakit.base.errors import BadRequest
    from llavakit.base.files import writing
    from llavakit.eval.report import text_table
    from llavakit.eval.run import BENCHMARKS, over_runs, score, submission

    benchmark = type(BENCHMARKS[args.bench])(args.protocol)
    if args.submission:
        if len(args.answers) > 1:
            raise BadRequest("a submission is made of one answers file")
        content = submission(benchmark, Path(args.annotations), benchmark.answers(args.answers[0]))
        with writing(args.submission) as temporary:
            temporary.write_bytes(content)
        return
    results = []
    for path in args.answers:
        answers = benchmark.answers(path)
        results.append(score(benchmark, benchmark.annotations(args.annotations, answers), answers))
    result = over_runs(results)
    print(json.dumps(result.plain(), indent=2) if args.json else text_table([result]))
