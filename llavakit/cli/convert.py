"""Converts a checkpoint into a new directory: what the source is, is read from what it holds.

--to hf        transformers' own llava: what every command here and every engine loads (from an original LLaVA)
--to original  for the original LLaVA's code
--to gguf      for llama.cpp: the language model in one file, tower and connector in another (mmproj)

Models of less than 1 GB get a parity certificate, parity.json: logits of both sides on the same inputs.

    llavakit convert MODEL --card --scores runs/scores --license apache-2.0     README.md into a native checkpoint
    llavakit convert MODEL --push user/name                                     ... and onto the hub (HF_ENDPOINT)
"""

from __future__ import annotations

import argparse

HELP = "a checkpoint in another format (original LLaVA, transformers, GGUF), its card, its way to the hub"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="a checkpoint directory, or a hub id")
    parser.add_argument("target", nargs="?", help="the new directory; without, SOURCE is carded or pushed as it is")
    parser.add_argument("--to", choices=["hf", "original", "gguf"], default="hf", help="default: %(default)s")
    parser.add_argument("--base", help="language model of a LoRA or of a connector alone: a directory or hub id")
    parser.add_argument("--vision", help="the vision tower, where it is not the one that the source names")
    parser.add_argument("--template", help="name of a chat template, in place of the source's own, or its family's")
    parser.add_argument(
        "--type", choices=["f32", "f16", "bf16", "q8_0"], default="f16", help="of GGUF files (default: %(default)s)"
    )
    parser.add_argument("--certify", action="store_true", help="a parity certificate for a large model, too")
    hub = parser.add_argument_group("for the hub (a native checkpoint)")
    hub.add_argument("--card", action="store_true", help="write the model card, README.md, into the checkpoint")
    hub.add_argument(
        "--scores", metavar="DIR", help="put the results that llavakit eval --out wrote into llavakit.json"
    )
    hub.add_argument("--license", metavar="ID", help="as the hub names it, for the card: apache-2.0, llama2 ...")
    hub.add_argument("--push", metavar="NAME", help="push the checkpoint, with its card, to this repository")
    hub.add_argument("--private", action="store_true", help="where the repository is new, for its owner alone")


def run(args: argparse.Namespace) -> None:
    from pathlib import Path

    from llavakit.base.errors import BadRequest

    publishing = args.card or args.push or args.scores
    if publishing and args.to != "hf":
        raise BadRequest("--card, --scores and --push are for native checkpoints (--to hf)")
    if not publishing and args.target is None:
        raise BadRequest("name the new directory, or --card, --scores or --push for SOURCE itself")
    if args.target is not None:
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
    if publishing:
        from llavakit.convert.card import add_scores, write_card
        from llavakit.convert.push import push
        from llavakit.model.checkpoint import resolve

        path = resolve(args.target or args.source)
        if args.scores:
            add_scores(path, args.scores)
        if args.card:
            write_card(path, args.push or Path(path).resolve().name, args.license)
        if args.push:
            print(push(path, args.push, args.license, args.private))
