"""Builds data sets, checks them, shows them, and writes them as shards.

llavakit data build llava15-mix --root RAW --out DIR
llavakit data doctor DIR/llava15-mix.jsonl --images RAW
llavakit data show DIR/llava15-mix.jsonl --images RAW --out page.html
llavakit data shard DIR/llava15-mix.jsonl --images RAW --out SHARDS
"""

from __future__ import annotations

import argparse
import importlib

HELP = "build, check, show and shard data sets"


def arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in ("build", "doctor", "show", "shard"):
        module = importlib.import_module(f"llavakit.cli._data_{name}")
        command = commands.add_parser(
            name,
            help=module.HELP,
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.arguments(command)
        command.set_defaults(run=module.run)


def run(args: argparse.Namespace) -> int | None:
    code: int | None = args.run(args)
    return code
