"""The saved directory in plain transformers, in a process that never imports llavakit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from llavakit.base.errors import BadRequest
from llavakit.chat.conversation import ImageRef, question
from llavakit.engine.engine import Engine
from llavakit.engine.sample import Decoding
from llavakit.model import checkpoint as checkpoints

THEIRS = """
import json, sys, torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

path, asked = sys.argv[1], json.load(open(sys.argv[2]))
model, info = AutoModelForImageTextToText.from_pretrained(path, output_loading_info=True)
assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
processor = AutoProcessor.from_pretrained(path)
answers = []
for item in asked:
    content = [{"type": "image"}] if item["image"] else []
    messages = [{"role": "user", "content": [*content, {"type": "text", "text": item["text"]}]}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    images = [Image.open(item["image"])] if item["image"] else None
    inputs = processor(text=text, images=images, return_tensors="pt", add_special_tokens=False)
    with torch.no_grad():
        out = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    answers.append(out[0, inputs["input_ids"].shape[1]:].tolist())
assert "llavakit" not in sys.modules
json.dump(answers, open(sys.argv[3], "w"))
"""


def test_greedy_answers_are_token_identical_in_plain_transformers(checkpoint: Path, tmp_path: Path) -> None:
    asked = []
    for number in range(60):
        torch.manual_seed(number)
        size = (20 + 3 * number, 90 - number)
        path = tmp_path / f"{number}.png"
        pixels = torch.randint(0, 256, (size[1], size[0], 3), dtype=torch.uint8).numpy()
        Image.fromarray(pixels).save(path)
        image = None if number % 10 == 9 else str(path)
        asked.append({"image": image, "text": f"What is in picture {number}? " + "Yes no. " * (number % 7)})
    (tmp_path / "asked.json").write_text(json.dumps(asked))
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    subprocess.run(
        [sys.executable, "-c", THEIRS, str(checkpoint), str(tmp_path / "asked.json"), str(tmp_path / "out.json")],
        check=True,
        cwd=tmp_path,
        env=environment,
    )
    theirs = json.loads((tmp_path / "out.json").read_text())
    model, codec = checkpoints.load(checkpoint)
    conversations = [
        question(item["text"], *([ImageRef(Path(item["image"]))] if item["image"] else [])) for item in asked
    ]
    engine = Engine(model, codec, batch_size=16)
    from llavakit.model.encode import encode

    examples = [encode(conversation, codec, prompt=True) for conversation in conversations]
    replies = engine.replies(examples, Decoding(max_new_tokens=12))
    ours = [[id for piece in pieces for id in piece.ids] for pieces in replies]
    eos = codec.tokenizer.eos_token_id
    theirs = [[token for token in answer if token != eos] for answer in theirs]
    assert ours == theirs
    assert len({tuple(answer) for answer in ours}) > 10, "the toy must not say the same thing to everything"


def test_round_trip_is_bit_equal(checkpoint: Path, tmp_path: Path) -> None:
    model, codec = checkpoints.load(checkpoint)
    checkpoints.save(model, codec, tmp_path / "again")
    again, _ = checkpoints.load(tmp_path / "again")
    before, after = checkpoints.native_state(model), checkpoints.native_state(again)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert (checkpoint / "config.json").read_text() == (tmp_path / "again" / "config.json").read_text()


def test_what_engines_need_is_written(checkpoint: Path) -> None:
    from safetensors import safe_open

    with safe_open(checkpoint / "model.safetensors", framework="pt") as tensors:
        names = set(tensors.keys())
    assert "vision_tower.vision_model.embeddings.patch_embedding.weight" in names
    assert "vision_tower.vision_model.encoder.layers.2.mlp.fc1.weight" in names, "the unused last layer is kept"
    assert {"language_model.model.embed_tokens.weight", "language_model.lm_head.weight"} <= names
    assert "multi_modal_projector.linear_1.weight" in names
    config = json.loads((checkpoint / "config.json").read_text())
    tokenizer = json.loads((checkpoint / "tokenizer.json").read_text())
    assert config["text_config"]["rope_theta"] == config["text_config"]["rope_parameters"]["rope_theta"]
    tokens = set(tokenizer["model"]["vocab"].values()) | {token["id"] for token in tokenizer["added_tokens"]}
    assert config["text_config"]["vocab_size"] == len(tokens)
    tokenizer_config = json.loads((checkpoint / "tokenizer_config.json").read_text())
    assert tokenizer_config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert not isinstance(tokenizer_config.get("extra_special_tokens"), list)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors", "chat_template.jinja"])
def test_a_missing_file_is_named(checkpoint: Path, tmp_path: Path, name: str) -> None:
    import shutil

    shutil.copytree(checkpoint, tmp_path / "model")
    (tmp_path / "model" / name).unlink()
    with pytest.raises(BadRequest, match=f"lacks {name}"):
        checkpoints.load(tmp_path / "model")


def test_damaged_and_incomplete_tensors_are_named(checkpoint: Path, tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(checkpoint, tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    tensors = load_file(file)
    tensors.pop("multi_modal_projector.linear_2.bias")
    save_file(tensors, file)
    with pytest.raises(BadRequest, match=r"lacks 1 of \d+ tensors, e\.g\. multi_modal_projector\.linear_2\.bias"):
        checkpoints.load(tmp_path / "model")
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(BadRequest, match=r"model\.safetensors is damaged"):
        checkpoints.load(tmp_path / "model")


def test_a_path_that_is_no_checkpoint_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="no checkpoint directory at"):
        checkpoints.load(tmp_path / "nothing")
