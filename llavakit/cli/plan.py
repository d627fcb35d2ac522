"""Prints what a recipe amounts to before anything starts: parameters, what trains at which rate, steps, tokens, FLOPs,
memory of a GPU by kind, hours and cost; and where it does not fit, the smallest change that does.

    llavakit plan llava15-13b --gpu h200 --count 8
    llavakit plan my.yaml --gpu here --count 1 --mfu runs/mine

Needs neither weights nor data: sizes come from configurations, and where a file is missing, samples and lengths from
the recipe. The memory is that of the real training step, run on tensors without content. An hour is FLOPs over
COUNT x peak x MFU; what a run of yours reached stands in its metrics, so --mfu also takes a run's directory.
"""

from __future__ import annotations

import argparse

HELP = "parameters, memory, hours and cost of a recipe, before anything starts"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", help="name of a recipe, or a .yaml or .json file")
    parser.add_argument("changes", nargs="*", metavar="key.path=value", help="changes to the recipe")
    parser.add_argument("--gpu", default="a100-80g", help="a100-80g, h100, h200, ... or here (default: %(default)s)")
    parser.add_argument("--count", type=int, default=8, help="how many of them (default: %(default)s)")
    parser.add_argument("--node", type=int, default=8, help="how many of them in one machine (default: %(default)s)")
    parser.add_argument("--mfu", default="0.4", help="share of the peak, or a run that says it (default: %(default)s)")
    parser.add_argument("--price", type=float, help="dollars for an hour of one GPU")
    parser.add_argument("--json", action="store_true", help="print the plan as JSON")


def run(args: argparse.Namespace) -> None:
    import json

    from llavakit.base.errors import BadRequest
    from llavakit.recipes import resolve
    from llavakit.train.advice import advice
    from llavakit.train.gpus import gpu_named
    from llavakit.train.plan import Machines, plan
    from llavakit.train.plan_text import text

    if args.count < 1 or args.node < 1:
        raise BadRequest("--count and --node are numbers of GPUs, from 1")
    machines = Machines(gpu_named(args.gpu), args.count, _mfu(args.mfu), args.price, args.node)
    found = plan(resolve(args.recipe, args.changes), machines)
    print(json.dumps(found.plain() | {"advice": advice(found)}, indent=2) if args.json else text(found))


def _mfu(given: str) -> float:
    """A share of the peak, or the median that a run's own metrics have."""
    import statistics
    from pathlib import Path

    from llavakit.base.errors import BadRequest
    from llavakit.base.files import read_jsonl

    if Path(given).is_dir():
        shares = [record["mfu"] for record in read_jsonl(Path(given) / "metrics.jsonl") if "mfu" in record]
        if not shares:
            raise BadRequest(f"--mfu: {given} has no steps yet")
        return statistics.median(shares)
    try:
        share = float(given)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise BadRequest(f"--mfu {given!r} is neither a share of the peak, as 0.4, nor the directory of a run")
    return share
