"""Lengths of LLaVA-1.5's samples, ingredient by ingredient, for measurements where the files are not at hand.

Counts are the published ones. Text lengths are estimates in Llama tokens (questions an image x tokens a question, the
system text and the prompts included), log-normal; the 665K mix amounts to 5.4e8 tokens, published: about 5.3e8.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

IMAGE, LONGEST = 576, 2048


@dataclass(frozen=True)
class Sample:
    """Tokens of the picture (0: text only), of the text, and how many of these are supervised (the last ones)."""

    image: int
    text: int
    supervised: int

    def __len__(self) -> int:
        return self.image + self.text


# name -> samples, tokens of the picture, mean tokens of text, spread of their logarithm, share supervised
MIX = {
    "conversation": (57_669, IMAGE, 290, 0.4, 0.60),
    "detail": (23_240, IMAGE, 195, 0.3, 0.65),
    "reasoning": (76_803, IMAGE, 200, 0.3, 0.60),
    "sharegpt": (40_688, 0, 1000, 0.9, 0.65),
    "vqav2": (82_783, IMAGE, 145, 0.3, 0.15),
    "gqa": (72_140, IMAGE, 260, 0.5, 0.12),
    "okvqa": (8_998, IMAGE, 80, 0.2, 0.05),
    "ocrvqa": (80_000, IMAGE, 170, 0.3, 0.30),
    "aokvqa": (66_160, IMAGE, 115, 0.2, 0.03),
    "textcaps": (21_953, IMAGE, 125, 0.4, 0.15),
    "refcoco": (48_447, IMAGE, 280, 0.5, 0.35),
    "visual genome": (86_417, IMAGE, 400, 0.4, 0.35),
}


def align(count: int, seed: int = 0) -> list[Sample]:
    """Stage 1: BOS, a picture, a caption and a newline, both supervised."""
    captions = np.random.default_rng(seed).lognormal(2.55, 0.35, count).astype(int).clip(5, 60)
    return [Sample(IMAGE, 1 + int(caption), int(caption)) for caption in captions]


def tune(count: int, seed: int = 0) -> list[Sample]:
    """Stage 2: ``count`` samples of the 665K mix, in random order; texts are cut at 2048 tokens."""
    rng = np.random.default_rng(seed)
    sizes = np.array([samples for samples, *_ in MIX.values()], dtype=float)
    kinds = list(MIX.values())
    out = []
    for kind in rng.choice(len(kinds), count, p=sizes / sizes.sum()):
        _, image, mean, spread, share = kinds[kind]
        text = int(np.clip(rng.lognormal(np.log(mean) - spread**2 / 2, spread), 45, LONGEST - image))
        out.append(Sample(image, text, max(1, int(share * (text - 40)))))
    return out
