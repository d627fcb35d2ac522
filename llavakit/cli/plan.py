"""Prints what a recipe amounts to before anything starts: parameters, what trains at which rate, steps, memory.

Needs neither weights nor data: sizes come from configurations, and published record counts where a file is missing.
"""

from __future__ import annotations

import argparse

HELP = "parameters, steps and memory of a recipe, before anything starts"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", help="name of a recipe, or a .yaml or .json file")
    parser.add_argument("changes", nargs="*", metavar="key.path=value", help="changes to the recipe")


def run(args: argparse.Namespace) -> None:
    from llavakit.recipes import resolve
    from llavakit.train.plan import plan, text

    print(text(plan(resolve(args.recipe, args.changes))))
