"""A random model of a chosen size, in llavakit and in plain transformers, and a way of timing both fairly."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from llavakit.chat.conversation import ImageRef, question
from llavakit.engine.engine import Engine
from llavakit.engine.load import large_pages
from llavakit.engine.sample import Decoding
from llavakit.image.square import normalise
from llavakit.model import checkpoint
from llavakit.model.encode import Codec, Example, encode
from llavakit.model.llava import Llava

# Of tower and language model: width, width of the MLP, layers, heads. Pictures of 336 px are 576 tokens.
SIZES = {
    # for the tests: that it runs
    "toy": ((32, 64, 2, 2), (32, 64, 2, 2), 2_000),
    # tower 5M, language layers 26M
    "small": ((256, 1024, 6, 4), (512, 1408, 8, 8), 32_000),
    # ViT-L/14-336 and a 190M language model
    "496M": ((1024, 4096, 24, 16), (1024, 2816, 12, 16), 32_000),
}
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def build(size: str) -> Path:
    """Saves a native checkpoint of random weights; returns its directory. Takes memory as `llavakit ask` does."""
    from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

    from llavakit.chat.template import TEMPLATES, get_template
    from llavakit.image.square import Square
    from llavakit.model.build import resize_vocabulary
    from llavakit.model.connector import Perceptron
    from llavakit.model.towers import VisionTower
    from llavakit.train.backbones_language import train_tokenizer

    large_pages()
    (width, hidden, layers, heads), (h, intermediate, depth, attention), words = SIZES[size]
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        image_size=336,
        patch_size=14,
    )
    # Words are tokens, as in a tokenizer of this size that was trained on much text.
    fixed = [" ".join((t.system_text, t.user, t.prompt)) for t in TEMPLATES.values()]
    tokenizer = train_tokenizer([*fixed, *texts(200)] * 5, 1500)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]}, replace_extra_special_tokens=False)
    tokenizer.add_tokens([f"word{number}" for number in range(words - len(tokenizer))])
    ids = {key: getattr(tokenizer, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    language = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=words,
            hidden_size=h,
            intermediate_size=intermediate,
            num_hidden_layers=depth,
            num_attention_heads=attention,
            max_position_embeddings=2048,
            initializer_range=0.05,
            **ids,
        )
    )
    resize_vocabulary(language, len(tokenizer))
    with torch.no_grad():
        language.lm_head.weight[ids["eos_token_id"]] = 0  # answers have the length that is asked for
    tower = VisionTower(CLIPVisionModel(vision))
    model = Llava(tower, Perceptron(width, h), language, Square(size=336))
    codec = Codec(tokenizer, get_template("vicuna_v1"), model.square, tower.tokens, 2048)
    path = Path(tempfile.mkdtemp()) / size
    checkpoint.save(model, codec, path)
    return path


class Sides:
    """One checkpoint twice: our engine and transformers, at one precision."""

    def __init__(self, path: Path, dtype: torch.dtype) -> None:
        from transformers import AutoModelForImageTextToText

        self.model, self.codec = checkpoint.load(path, dtype)
        self.theirs: Any = AutoModelForImageTextToText.from_pretrained(path, dtype=dtype)
        self.dtype = dtype

    def engine(self) -> Engine:
        """A fresh one: nothing is cached."""
        return Engine(self.model, self.codec)

    def ask(self, engine: Engine, examples: Sequence[Example], tokens: int) -> list[list[int]]:
        replies = engine.replies(examples, Decoding(max_new_tokens=tokens))
        return [[id for piece in pieces for id in piece.ids] for pieces in replies]

    @torch.inference_mode()
    def generate(self, examples: Sequence[Example], tokens: int, batch: int) -> list[list[int]]:
        """transformers, ``batch`` at a time, padded on the left; pixels normalised within the time, as ours are."""
        out = []
        for start in range(0, len(examples), batch):
            some = examples[start : start + batch]
            longest = max(map(len, some))
            ids = torch.zeros(len(some), longest, dtype=torch.long)
            mask = torch.zeros_like(ids)
            for row, example in enumerate(some):
                ids[row, longest - len(example) :] = torch.from_numpy(example.ids)
                mask[row, longest - len(example) :] = 1
            pixels = torch.from_numpy(np.concatenate([example.pixels for example in some]))
            written = self.theirs.generate(
                input_ids=ids,
                attention_mask=mask,
                pixel_values=normalise(pixels, self.codec.square, self.dtype),
                max_new_tokens=tokens,
                do_sample=False,
            )
            out += written[:, longest:].tolist()
        return out


def questions(codec: Codec, pictures: int, each: int) -> list[Example]:
    """Encoded questions, ``each`` about one of some random pictures: about 620 tokens, 576 of them the picture's."""
    rng = np.random.default_rng(0)
    refs = [ImageRef(Image.fromarray(rng.integers(0, 256, (336, 336, 3), dtype=np.uint8))) for _ in range(pictures)]
    asked = [question(text, refs[i // each]) for i, text in enumerate(texts(pictures * each))]
    return [encode(one, codec, prompt=True) for one in asked]


def texts(count: int) -> list[str]:
    """Questions as VQA asks them, with the prompt for short answers."""
    forms = ("What color is the {}?", "How many of the {} are there?", "Is the {} behind the {} open or closed?")
    things = "car dog bicycle umbrella table window bench train bottle clock horse sign"
    names = things.split()
    out = []
    for number in range(count):
        one, two = names[number % 12], names[(number * 5 + 7) % 12]
        out.append(forms[number % 3].format(one, two) + "\nAnswer the question using a single word or phrase.")
    return out


def compare(
    title: str,
    sides: Sides,
    asked: Sequence[Example],
    tokens: int,
    goal: float,
    args: argparse.Namespace,
    padded: int = 1,
) -> dict[str, float]:
    """Prints one line; returns the seconds of each side.

    ``padded``: how many transformers takes at once where it pads; at 1 it only goes one by one. The least of several
    repetitions, the sides in turn, so that a busy machine is busy for all. Our engine is made anew each time, outside
    of the clock: nothing is cached. Ends with an error where float32 answers differ.
    """
    seconds = {"ours": float("inf"), "one by one": float("inf")} | ({"padded": float("inf")} if padded > 1 else {})
    clock = CLOCKS[args.clock]
    for _ in range(args.times):
        engine = sides.engine()
        results = {}
        for side in seconds:
            start = clock()
            if side == "ours":
                results[side] = sides.ask(engine, asked, tokens)
            else:
                results[side] = sides.generate(asked, tokens, 1 if side == "one by one" else padded)
            seconds[side] = min(seconds[side], clock() - start)
    best = min(list(seconds)[1:], key=seconds.__getitem__)
    agreeing = same(results["ours"], results["one by one"])
    precision = str(sides.dtype).removeprefix("torch.")
    taken = "  ".join(f"{side} {value:.3f} s" for side, value in seconds.items())
    ratio = f"{seconds[best] / seconds['ours']:5.2f}x of {best} (goal {goal}x)"
    print(f"{title:<34} {precision:<8} {ratio}  same {agreeing:.4f}  {taken}", flush=True)
    if sides.dtype == torch.float32 and agreeing < 1:
        raise SystemExit(f"{title}: float32 answers differ from transformers'")
    return seconds


def same(ours: list[list[int]], theirs: list[list[int]]) -> float:
    """Share of the tokens before the first that differs, over all answers."""
    agreeing = 0
    for a, b in zip(ours, theirs, strict=True):
        agreeing += next((i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y), len(b))
    return agreeing / sum(map(len, theirs))


def arguments(description: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--times", type=int, default=3, help="repetitions, of which the least counts")
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--size", default="small", choices=SIZES)
    parser.add_argument("--clock", default="wall", choices=CLOCKS, help="cpu counts processor time: for a busy machine")
    return parser.parse_args()
