"""Short answers to several questions about each picture: our engine against transformers' ``generate``.

    python benchmarks/vqa.py [--times 3] [--dtypes float32,bfloat16] [--size small|496M] [--clock cpu]

Both are given the same encoded questions; nothing is cached when the clock starts. transformers is the better of one
by one and padded batches. Answers have 3 tokens, as VQA's have.
"""

from __future__ import annotations

import torch
from sized import Sides, arguments, build, compare, questions

TOKENS = 3

args = arguments(__doc__)
path = build(args.size)
for name in args.dtypes.split(","):
    sides = Sides(path, getattr(torch, name))
    sides.ask(sides.engine(), questions(sides.codec, 1, 2), TOKENS)  # warm
    for each, goal in ((6, 6.0), (18, 12.0)):
        asked = questions(sides.codec, 2, each)
        compare(f"{each} questions a picture", sides, asked, TOKENS, goal, args, padded=each)
