"""Long answers, one stream, and the time to the first token: our engine against transformers' ``generate``.

    python benchmarks/chat.py [--times 3] [--dtypes float32,bfloat16] [--size small|496M] [--clock cpu]

Both are given the same encoded questions; nothing is cached when the clock starts. transformers is the better of one
by one and padded batches.
"""

from __future__ import annotations

import torch
from sized import Sides, arguments, build, compare, questions

LONG = 128

args = arguments(__doc__)
path = build(args.size)
for name in args.dtypes.split(","):
    sides = Sides(path, getattr(torch, name))
    one, six = questions(sides.codec, 1, 1), questions(sides.codec, 1, 6)
    sides.ask(sides.engine(), six, 4)  # warm
    compare(f"{LONG}-token answers to 6 questions", sides, six, LONG, 6.5, args, padded=6)
    stream = compare(f"one stream of {LONG} tokens", sides, one, LONG, 1.6 if name == "bfloat16" else 1.0, args)
    first = compare("time to the first token", sides, one, 1, 1.15, args)
    rates = {side: (LONG - 1) / (stream[side] - first[side]) for side in stream}
    print("  of one stream, tokens/s after the first: " + ", ".join(f"{side} {r:.1f}" for side, r in rates.items()))
