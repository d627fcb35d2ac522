"""Has a judge behind an OpenAI-compatible endpoint review a model's answers to LLaVA-Bench or MM-Vet.

    llavakit judge mm_vet --data DIR --answers answers.jsonl --endpoint https://api.openai.com/v1 --model gpt-4-0613 \\
        --runs 3 --out runs/mm_vet

DIR holds the benchmark's official files; with LLaVA's rule.json or MM-Vet's mm-vet_evaluator.py among them the judge is
asked as officially, else in words of our own. OUT gets run-1.jsonl and on, which `llavakit score` takes (for MM-Vet
also grades.json), failures.jsonl, judge.json with versions, prompt hash and cost, and journal.jsonl with every reply:
the same command goes on where it stopped. With --out RUN/mm_vet/judge beside RUN/mm_vet/answers.jsonl, the report of
RUN and `llavakit compare` find the reviews.
"""

from __future__ import annotations

import argparse

from llavakit.cli import _asking

HELP = "have a judge review a model's answers"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bench", help="llava_bench_in_the_wild or mm_vet")
    parser.add_argument("--data", required=True, help="folder of its official files")
    parser.add_argument("--answers", required=True, help="the model's answers, JSONL of question_id and text")
    parser.add_argument("--endpoint", required=True, help="address of the API, as http://127.0.0.1:8000/v1")
    parser.add_argument("--model", required=True, help="the judge's name at the endpoint")
    parser.add_argument("--out", required=True, help="folder for reviews and results")
    parser.add_argument("--runs", type=int, default=1, help="how often everything is judged (default: %(default)s)")
    parser.add_argument("--protocol", default="", help="a named way of counting; the benchmark's first is the default")
    _asking.arguments(parser)
    parser.add_argument("--json", action="store_true", help="print judge.json instead of the table")


def run(args: argparse.Namespace) -> None:
    import json
    from pathlib import Path

    from llavakit.base.errors import BadRequest
    from llavakit.base.files import read_jsonl
    from llavakit.endpoint.client import Client
    from llavakit.endpoint.journal import Journal
    from llavakit.eval.judge import JudgedBenchmark
    from llavakit.eval.report import text_table
    from llavakit.eval.review import review
    from llavakit.eval.run import BENCHMARKS

    benchmark = type(BENCHMARKS[args.bench])(args.protocol)
    if not isinstance(benchmark, JudgedBenchmark):
        raise BadRequest(f"{args.bench} needs no judge: llavakit score {args.bench}")
    if args.runs < 1:
        raise BadRequest(f"--runs must be at least 1, not {args.runs}")
    answers, out = read_jsonl(args.answers), Path(args.out)
    with Journal(out / "journal.jsonl") as journal:
        client = Client(_asking.endpoint(args, args.endpoint), journal, _asking.meter(args, journal))
        body = _asking.body(args, args.model)
        result, about = review(benchmark, Path(args.data), answers, client, body, args.runs, out)
    if args.json:
        print(json.dumps(about, indent=2))
        return
    print(text_table([result]))
    cost = "" if about["cost"] is None else f", cost {about['cost']:.4f}"
    tokens = about["tokens"]["prompt"] + about["tokens"]["answer"]
    print(f"\n{about['failures']} failures; {tokens:,} tokens{cost}; judged by {', '.join(about['answered_by'])}")
