"""transformers' own ``generate`` on the same token ids and pixels, and the questions that are put to both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from llavakit.chat.conversation import Conversation, ImageRef, Turn, question
from llavakit.image.square import Square, normalise
from llavakit.model.encode import Example
from llavakit.model.quiet import quiet


def picture(seed: int) -> ImageRef:
    size = (20 + 7 * seed % 50, 20 + 11 * seed % 40, 3)
    return ImageRef(Image.fromarray(np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)))


def mixed(count: int) -> list[Conversation]:
    """Questions about one of twelve pictures, about two, about none, long and short, with and without a history."""
    pictures = [picture(seed) for seed in range(12)]
    words = ["What", "is", "it?", "Yes", "no", "star", "colour", "TAXI", "3", "How", "many", "things"]
    asked = []
    for number in range(count):
        rng = np.random.default_rng(1000 + number)
        text = " ".join(rng.choice(words, rng.integers(1, 25)))
        one, two = (pictures[i] for i in rng.choice(12, 2, replace=False))
        match number % 10:
            case 0 | 1 | 2 | 3 | 4:
                asked.append(question(text, one))
            case 5:
                asked.append(question(f"<image> or <image>? {text}", one, two))
            case 6:
                asked.append(question(text))
            case 7:
                asked.append(question("What is it?", one).answer("A red star.").ask(text))
            case 8:
                turns = (*question("And it?", one).answer("No.").turns, Turn("user", f"<image>\n{text}"))
                asked.append(Conversation(turns, (one, two)))
            case 9:
                asked.append(question(f"{text} {text} " * 3))
    return asked


class Reference:
    """A checkpoint in plain transformers."""

    def __init__(self, path: Path, square: Square) -> None:
        from transformers import AutoModelForImageTextToText

        with quiet():
            self.model: Any = AutoModelForImageTextToText.from_pretrained(path)
        self.square = square

    @torch.inference_mode()
    def generate(self, examples: Sequence[Example], count: int, **how: Any) -> list[list[int]]:
        """The answers' ids without the end of sequence; padded on the left to one batch."""
        longest = max(map(len, examples))
        ids = torch.full((len(examples), longest), self.model.generation_config.pad_token_id)
        mask = torch.zeros_like(ids)
        for row, example in enumerate(examples):
            ids[row, longest - len(example) :] = torch.from_numpy(example.ids)
            mask[row, longest - len(example) :] = 1
        pixels = np.concatenate([example.pixels for example in examples])
        pictures = {}
        if len(pixels):
            pictures["pixel_values"] = normalise(torch.from_numpy(pixels), self.square, torch.float32)
        out = self.model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=count, do_sample=False, **pictures, **how
        )
        eos = self.model.generation_config.eos_token_id
        return [row[: row.index(eos)] if eos in row else row for row in out[:, longest:].tolist()]
