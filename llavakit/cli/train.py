"""Trains a recipe: a name that ships (llava15-7b, demo) or a YAML or JSON file. Changes are given as key.path=value:

    llavakit train my.yaml stages.tune.train.language_model=1e-5 --out runs/mine
    llavakit train my.yaml --out runs/mine --resume
    tensorboard --logdir runs/mine/tensorboard

With `data.NAME.holdout: 500` in a stage, records are held out and validate; `eval_every: 200` says how often.
"""

from __future__ import annotations

import argparse

HELP = "train a recipe, stage by stage"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", help="name of a recipe, or a .yaml or .json file; run.json of a run replays it")
    parser.add_argument("changes", nargs="*", metavar="key.path=value", help="changes to the recipe")
    parser.add_argument("--out", help="where the run goes (default: runs/NAME)")
    parser.add_argument("--resume", action="store_true", help="continue the run in OUT from its last snapshot")
    parser.add_argument("--report", default="", help="also to trackers, comma-separated: wandb, trackio")
    parser.add_argument("--profile", metavar="FIRST:LAST", help="trace these steps of each stage, for Perfetto")


def run(args: argparse.Namespace) -> None:
    from llavakit.base.dist import is_main
    from llavakit.recipes import resolve
    from llavakit.train.profile import Window
    from llavakit.train.run import Looking, train

    trackers = tuple(name for name in args.report.split(",") if name)
    looking = Looking(trackers, Window.parse(args.profile) if args.profile else None)
    recipe = resolve(args.recipe, args.changes)
    model = train(recipe, args.out or f"runs/{recipe.name}", resume=args.resume, looking=looking)
    if is_main():
        print(model)
