"""Evaluates a model on benchmarks and prints a table.

    llavakit eval runs/demo/model --bench vqav2,pope --data runs/demo/world/benchmarks --out runs/demo/scores

DATA holds a folder for each benchmark, named like it, or is the benchmark's own folder or file. A benchmark of one's
own is `records`: a JSONL of questions, or conversations in LLaVA's format (then --images is their image folder).
With --out a killed run goes on where it stopped.
"""

from __future__ import annotations

import argparse

from llavakit.cli import _decoding

HELP = "score a model on benchmarks"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="a checkpoint directory, or a hub id")
    parser.add_argument("--bench", required=True, help="names, comma-separated")
    parser.add_argument("--data", required=True, help="the benchmarks' official files")
    parser.add_argument("--images", help="folder of the images, where it is not with the data")
    parser.add_argument("--protocol", default="", help="a named way of asking; the benchmark's first is the default")
    parser.add_argument("--out", help="folder for answers and results")
    _decoding.arguments(parser, max_new_tokens=128)
    parser.add_argument("--json", action="store_true", help="print results as JSON")


def run(args: argparse.Namespace) -> None:
    import json
    from pathlib import Path

    from llavakit.engine.load import load
    from llavakit.eval.report import text_table
    from llavakit.eval.run import BENCHMARKS, evaluate

    names = [name.replace("-", "_") for name in args.bench.split(",") if name]
    chosen = {name: type(BENCHMARKS[name])(args.protocol) for name in names}
    data = Path(args.data)
    questions = {
        name: benchmark.load(data / name if (data / name).is_dir() else data, args.images)
        for name, benchmark in chosen.items()
    }
    assistant = load(args.model)
    how = _decoding.decoding(args, "llavakit eval")
    results = [
        evaluate(
            benchmark,
            questions[name],
            lambda conversations: assistant.answer(conversations, how),
            Path(args.out) / name if args.out else None,
        )
        for name, benchmark in chosen.items()
    ]
    print(json.dumps([result.plain() for result in results], indent=2) if args.json else text_table(results))
