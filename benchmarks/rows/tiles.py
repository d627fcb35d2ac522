"""``llava_next``: tiles, token counts, logits and gradients of any-resolution pictures."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.rows import backbones, relative, row, scratch
from benchmarks.rows.gradients import apart, gradients_of
from benchmarks.rows.pictures import noise
from llavakit.chat.conversation import Conversation, ImageRef, question
from llavakit.data.collate import collate
from llavakit.image.anyres import GRIDS, AnyRes, Grid, best_grid, token_count
from llavakit.image.square import Square, normalise
from llavakit.model.checkpoint import save
from llavakit.model.encode import Codec, Example, encode
from llavakit.model.llava import Llava
from llavakit.model.preprocessor import preprocessor_config
from llavakit.model.quiet import quiet
from tests import toys

SHAPES = [
    *((1, 1), (1, 300), (300, 1), (2, 200), (199, 3), (7, 7), (28, 28), (27, 29), (29, 27), (56, 28), (28, 56)),
    *((55, 57), (57, 55), (84, 28), (28, 84), (83, 29), (168, 28), (28, 168), (84, 56), (56, 84), (112, 28), (140, 28)),
    *((40, 30), (30, 40), (64, 48), (48, 64), (100, 50), (50, 100), (90, 31), (31, 90), (120, 119), (119, 120)),
    *((200, 60), (60, 200), (150, 20), (20, 150), (333, 77), (77, 333), (250, 249), (128, 96)),
]


@dataclass(frozen=True)
class Both:
    """One set of weights on either side."""

    ours: Llava
    codec: Codec
    theirs: Any
    processor: Any


@functools.cache
def both(image: AnyRes, vision: str = "clip") -> Both:
    from transformers import LlavaNextForConditionalGeneration, LlavaNextProcessor

    model, codec = toys.build_toy(backbones(), vision)
    codec = codec.seeing(image)
    model.square = codec.square
    model.add_newline(1)
    path = scratch() / f"{vision}-{image.hash()}"
    save(model, codec, path)
    with quiet():
        theirs = LlavaNextForConditionalGeneration.from_pretrained(path).eval()
    return Both(model.eval(), codec, theirs, LlavaNextProcessor.from_pretrained(path))


@functools.cache
def processor(grids: tuple[Grid, ...], size: int) -> Any:
    """transformers' processor for towers of patch 14 with a CLS."""
    from transformers import AutoTokenizer, LlavaNextProcessor
    from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

    config = preprocessor_config(Square(size=size, mode="squash"), grids)
    del config["image_processor_type"]
    tokenizer = AutoTokenizer.from_pretrained(backbones() / "language")
    made: Any = LlavaNextProcessor(
        LlavaNextImageProcessorPil(**config), tokenizer, 14, "default", num_additional_image_tokens=1
    )
    return made


def miscounted(sizes: Sequence[tuple[int, int]], grids: tuple[Grid, ...], size: int) -> list[tuple[int, int]]:
    """Those (width, height) whose number of image tokens is not what transformers' processor counts."""
    counted = processor(grids, size)._get_num_multimodal_tokens([(height, width) for width, height in sizes])
    return [
        (width, height)
        for (width, height), theirs in zip(sizes, counted["num_image_tokens"], strict=True)
        if token_count(width, height, grids, size, size // 14) != theirs
    ]


@row("image tokens, 20,000 sizes up to 4000x4000, miscounted", against="transformers' LlavaNextProcessor", bound=0)
def counts() -> float:
    sizes = np.random.default_rng(0).integers(1, 4001, (10_000, 2)).tolist()
    return sum(len(miscounted(sizes, GRIDS[name], size)) for name, size in (("hd", 224), ("llava16", 336)))


@row("pixels of tiles, 40 shapes, 1.6 and 1.5-HD grids", against="transformers' LlavaNextImageProcessor", bound=1 / 255)
def tiles() -> float:
    return max(_tile_difference(AnyRes(grids=grids), noise(*shape)) for grids in GRIDS.values() for shape in SHAPES)


def _tile_difference(image: AnyRes, picture: Image.Image) -> float:
    pair = both(image)
    theirs = pair.processor.image_processor(picture, return_tensors="pt")["pixel_values"][0]
    ours = _pixels(pair, encode(question("What?", ImageRef(picture)), pair.codec, prompt=True))
    if ours.shape != theirs.shape:
        return float("inf")
    deviation = torch.tensor(pair.codec.square.std).view(1, 3, 1, 1)
    return float(((ours - theirs) * deviation).abs().max())


@row("logits, llava_next (1.6), 40 shapes", against="transformers, float32, relative", bound=1e-5)
def logits() -> float:
    return _logits(AnyRes(grids=GRIDS["llava16"]))


@row("logits, llava_next (1.5-HD, squashed view), 40 shapes", against="transformers, float32, relative", bound=1e-5)
def logits_hd() -> float:
    return _logits(AnyRes(grids=GRIDS["hd"]))


@row("logits, llava_next (1.5-HD, padded view), 40 shapes", against="transformers given that view", bound=1e-5)
def logits_padded() -> float:
    return _logits(AnyRes(grids=GRIDS["hd"], global_view="pad"))


@row("logits, llava_next (1.6) with SigLIP, 40 shapes", against="transformers, float32, relative", bound=1e-5)
def logits_siglip() -> float:
    return _logits(AnyRes(grids=GRIDS["llava16"]), "siglip")


def _logits(image: AnyRes, vision: str = "clip") -> float:
    pair = both(image, vision)
    one = [question(f"What is at {w}, {h}?", ImageRef(noise(w, h))) for w, h in SHAPES]
    several = [question("Same?", *(ImageRef(noise(*s)) for s in SHAPES[i : i + 3])) for i in (2, 13, 24)]
    return max(_logit_difference(pair, conversation) for conversation in [*one, *several])


@torch.no_grad()
def _logit_difference(pair: Both, asked: Conversation) -> float:
    """Relative, over all positions; infinite where the token ids differ. A padded global view, which their processor
    cannot make, is put in the place of theirs; every other tile stays theirs."""
    example = encode(asked, pair.codec, prompt=True)
    content = [*({"type": "image"} for _ in asked.images), {"type": "text", "text": asked.turns[0].text}]
    content[-1]["text"] = content[-1]["text"].replace("<image>\n", "")
    text = pair.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    pictures = [ref.source for ref in asked.images]
    inputs = pair.processor(text=text, images=pictures, return_tensors="pt", add_special_tokens=False)
    if inputs["input_ids"][0].tolist() != example.ids.tolist():
        return float("inf")
    if pair.codec.square.mode == "pad":
        first = [0, *np.cumsum([_tiles(pair, picture) for picture in pictures])[:-1].tolist()]
        inputs["pixel_values"][:, 0] = _pixels(pair, example)[first]
    theirs = pair.theirs(**inputs).logits[0]
    ours = pair.ours.language_model.get_output_embeddings()(pair.ours.hidden(collate([example], pair.codec.image_id)))
    return relative(ours, theirs)


@row("gradients, packed rows of mixed tile counts", against="one sample at a time, relative", bound=1e-5)
def gradients() -> float:
    """The loss and every gradient."""
    pair = both(AnyRes(grids=GRIDS["hd"], global_view="pad"))
    codec = pair.codec
    asked = [question(f"What {i}?", ImageRef(noise(*SHAPES[i]))) for i in range(1, 40, 6)]
    asked += [question("Say yes."), question("Same?", *(ImageRef(noise(*SHAPES[i])) for i in (4, 20, 36)))]
    examples = [encode(c.answer(f"It is number {i}."), codec) for i, c in enumerate(asked)]
    together = gradients_of(pair.ours, [examples], codec.image_id)
    alone = gradients_of(pair.ours, [[example] for example in examples], codec.image_id)
    assert "multi_modal_projector.image_newline" in alone
    return apart(together, alone)


def _pixels(pair: Both, example: Example) -> torch.Tensor:
    return normalise(torch.from_numpy(example.pixels), pair.codec.square, torch.float32)


def _tiles(pair: Both, picture: Image.Image) -> int:
    assert pair.codec.grids is not None
    rows, columns = best_grid(*picture.size, pair.codec.grids, pair.codec.square.size)
    return 1 + rows * columns
