"""Converts a checkpoint into a new directory: what the source is, is read from what it holds.

--to hf        transformers' own llava: what every command here and every engine loads (from an original LLaVA)
--to original  for the original LLaVA's code
--to gguf      for llama.cpp: the language model in one file, tower and connector in another (mmproj)

Models of less than 1 GB get a parity certificate, parity.json: logits of both sides on the same inputs.
"""

from __future__ import annotations

import argparse

HELP = "a checkpoint in another format: original LLaVA, transformers, GGUF"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="a checkpoint directory, or a hub id")
    parser.add_argument("target", help="the new directory")
    parser.add_argument("--to", choices=["hf", "original", "gguf"], default="hf", help="default: %(default)s")
    parser.add_argument("--base", help="language model of a LoRA or of a connector alone: a directory or hub id")
    parser.add_argument("--vision", help="the vision tower, where it is not the one that the source names")
    parser.add_argument("--template", help="chat template of an original checkpoint (default: its family's)")
    parser.add_argument(
        "--type", choices=["f32", "f16", "bf16", "q8_0"], default="f16", help="of GGUF files (default: %(default)s)"
    )
    parser.add_argument("--certify", action="store_true", help="a parity certificate for a large model, too")


def run(args: argparse.Namespace) -> None:
    from llavakit.convert.run import convert

    convert(
        args.source,
        args.target,
        args.to,
        base=args.base,
        vision=args.vision,
        template=args.template,
        certify=args.certify,
        kind=args.type,
    )
