"""Flags that say how answers are written, the same for every verb that answers."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llavakit.engine.sample import Decoding

FLAGS = ("max_new_tokens", "temperature", "top_p", "top_k", "num_beams", "length_penalty", "repetition_penalty", "seed")


def arguments(parser: argparse.ArgumentParser, max_new_tokens: int) -> None:
    group = parser.add_argument_group("how answers are written")
    group.add_argument("--max-new-tokens", type=int, default=max_new_tokens, help="at most (default: %(default)s)")
    group.add_argument("--temperature", type=float, default=0.0, help="0 (the default) is greedy")
    group.add_argument("--top-p", type=float, default=1.0, help="sample from the likeliest tokens of this total mass")
    group.add_argument("--top-k", type=int, default=0, help="sample from so many of the likeliest tokens; 0 is all")
    group.add_argument("--num-beams", type=int, default=1, help="above 1: beam search")
    group.add_argument("--length-penalty", type=float, default=1.0, help="of beam search; above 1 favours long answers")
    group.add_argument("--repetition-penalty", type=float, default=1.0, help="above 1 makes repeating less likely")
    group.add_argument("--seed", type=int, default=0, help="of sampling (default: %(default)s)")
    group.add_argument("--stop", action="append", default=[], metavar="TEXT", help="end before this; may be repeated")


def decoding(args: argparse.Namespace, where: str) -> Decoding:
    """Raises :class:`~llavakit.base.errors.BadRequest` for values that cannot be."""
    from llavakit.engine.sample import Decoding

    return Decoding.parse({name: getattr(args, name) for name in FLAGS} | {"stop": args.stop}, where)
