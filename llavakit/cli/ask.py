"""Asks a model one question, about a picture or none. The answer goes to standard output, nothing else."""

from __future__ import annotations

import argparse

from llavakit.cli import _decoding

HELP = "the answer to one question, on standard output"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="a checkpoint directory, or a hub id")
    parser.add_argument("question")
    parser.add_argument("--image", help="any picture file")
    _decoding.arguments(parser, max_new_tokens=512)


def run(args: argparse.Namespace) -> None:
    from llavakit.engine.load import load

    how = _decoding.decoding(args, "llavakit ask")
    print(load(args.model).ask(args.image, args.question, how))
