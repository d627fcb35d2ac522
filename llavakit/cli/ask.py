"""Asks a model one question, about a picture or none. The answer goes to standard output, nothing else."""

from __future__ import annotations

import argparse

HELP = "the answer to one question, on standard output"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="a checkpoint directory, or a hub id")
    parser.add_argument("question")
    parser.add_argument("--image", help="any picture file")
    parser.add_argument("--max-new-tokens", type=int, default=512, help="length of the answer (default: %(default)s)")
    parser.add_argument("--temperature", type=float, default=0.0, help="0 (the default) is greedy")
    parser.add_argument("--seed", type=int, default=0, help="of sampling (default: %(default)s)")
    parser.add_argument("--quantize", choices=("int8", "int4", "nf4"), help="hold the language model in 8 or 4 bits")


def run(args: argparse.Namespace) -> None:
    from llavakit.engine.load import load
    from llavakit.engine.sample import Decoding

    how = Decoding.parse(
        {"max_new_tokens": args.max_new_tokens, "temperature": args.temperature, "seed": args.seed}, "llavakit ask"
    )
    print(load(args.model, quantize=args.quantize).ask(args.image, args.question, how))
