"""Packed samples do not see each other: loss and gradients are those of each sample alone."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks.lengths import tune
from llavakit.chat.conversation import Conversation, ImageRef, Turn
from llavakit.data.collate import collate
from llavakit.data.pack import pack
from llavakit.model.encode import encode


def samples() -> list[Conversation]:
    rng = np.random.default_rng(0)
    picture = ImageRef(Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)))
    other = ImageRef(Image.fromarray(rng.integers(0, 256, (50, 20, 3), dtype=np.uint8)))
    return [
        Conversation((Turn("user", "<image>\nWhat is it?"), Turn("assistant", "A red circle.")), (picture,)),
        Conversation(
            (Turn("user", "Say yes."), Turn("assistant", "Yes"), Turn("user", "No?"), Turn("assistant", "No"))
        ),
        Conversation((Turn("user", "<image>\nAnd this?"), Turn("assistant", "The word TAXI.")), (other,)),
        Conversation((Turn("user", "<image>\n<image>\nSame?"), Turn("assistant", "No")), (picture, other)),
    ]


def test_loss_and_gradients_equal_one_by_one(toy) -> None:  # type: ignore[no-untyped-def]
    model, codec = toy
    examples = [encode(sample, codec) for sample in samples()]
    model.train()
    model(collate(examples, codec.image_id)).backward()
    packed = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    loss = model(collate(examples, codec.image_id)).item()
    model.zero_grad()
    alone = 0.0
    for example in examples:
        one = model(collate([example], codec.image_id))
        one.backward()
        alone += one.item()
    assert abs(loss - alone) <= 1e-5 * alone
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            scale = parameter.grad.abs().max().clamp(min=1e-3)
            assert (packed[name] - parameter.grad).abs().max() <= 1e-5 * scale * 10, name


def test_equal_to_transformers_own_loss(toy, tmp_path) -> None:  # type: ignore[no-untyped-def]
    """One sample through transformers' llava with its own loss: the sum we form divided by the tokens it counts."""
    from transformers import LlavaForConditionalGeneration

    from llavakit.image.square import normalise
    from llavakit.model import checkpoint

    model, codec = toy
    checkpoint.save(model, codec, tmp_path / "model")
    theirs = LlavaForConditionalGeneration.from_pretrained(tmp_path / "model")
    for sample in samples():
        example = encode(sample, codec)
        pixels = torch.from_numpy(example.pixels)
        out = theirs(
            input_ids=torch.from_numpy(example.ids)[None],
            labels=torch.from_numpy(example.labels)[None],
            pixel_values=normalise(pixels, codec.square, torch.float32) if len(pixels) else None,
        )
        ours = model(collate([example], codec.image_id)) / example.supervised
        torch.testing.assert_close(ours, out.loss, rtol=1e-5, atol=1e-6)


def test_frozen_parts_get_no_gradient(toy) -> None:  # type: ignore[no-untyped-def]
    from llavakit.model.parts import freeze_all_but

    model, codec = toy
    freeze_all_but(model, {"connector": 1e-3})
    model(collate([encode(s, codec) for s in samples()], codec.image_id)).backward()
    with_gradient = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert with_gradient == {"multi_modal_projector"}


@given(lengths=st.lists(st.integers(1, 120), min_size=1, max_size=80), capacity=st.integers(50, 300))
@settings(max_examples=100, deadline=None)
def test_rows_hold_every_example_once_and_never_overflow(lengths: list[int], capacity: int) -> None:
    rows = pack(lengths, capacity)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    for row in rows:
        assert len(row) == 1 or sum(lengths[index] for index in row) <= capacity


def test_llava_length_distribution_fills_the_rows() -> None:
    """Steps of 128 samples of the 665K mix: rows of 4096 are 97 % full, the last of each step among them; rows of 8192
    (13 a step, of which the last is what it is) are no more than they must be."""
    steps = [[len(sample) for sample in tune(128, seed)] for seed in range(5)]
    rows = [len(pack(lengths, 4096)) for lengths in steps]
    assert sum(map(sum, steps)) / 4096 / sum(rows) >= 0.97
    assert [len(pack(lengths, 8192)) for lengths in steps] == [-(-sum(lengths) // 8192) for lengths in steps]
