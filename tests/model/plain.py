"""Greedy answers of saved directories: ours, and those of plain transformers in a process without llavakit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from llavakit.chat.conversation import ImageRef, question
from llavakit.engine.engine import Engine
from llavakit.engine.sample import Decoding
from llavakit.model import checkpoint as checkpoints
from llavakit.model.encode import encode

THEIRS = """
import json, sys, torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

loaded, answers = {}, []
for item in json.load(open(sys.argv[1])):
    path = item["model"]
    if path not in loaded:
        model, info = AutoModelForImageTextToText.from_pretrained(path, output_loading_info=True)
        assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
        loaded[path] = model, AutoProcessor.from_pretrained(path)
    model, processor = loaded[path]
    content = [{"type": "image"} for _ in item["images"]]
    messages = [{"role": "user", "content": [*content, {"type": "text", "text": item["text"]}]}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    images = [Image.open(image) for image in item["images"]] or None
    inputs = processor(text=text, images=images, return_tensors="pt", add_special_tokens=False)
    with torch.no_grad():
        out = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    answers.append(out[0, inputs["input_ids"].shape[1]:].tolist())
assert "llavakit" not in sys.modules
json.dump(answers, open(sys.argv[2], "w"))
"""


@dataclass(frozen=True)
class Asked:
    """A question to the checkpoint in ``model`` about picture files."""

    model: Path
    text: str
    images: list[Path]


def noise_file(path: Path, width: int, height: int, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
    return path


def our_answers(asked: list[Asked]) -> list[list[int]]:
    """Token ids, decoded in batches."""
    answers: list[list[int]] = [[] for _ in asked]
    for model in {item.model for item in asked}:
        engine = Engine(*checkpoints.load(model), batch_size=16)
        rows = [i for i, item in enumerate(asked) if item.model == model]
        conversations = [question(asked[i].text, *map(ImageRef, asked[i].images)) for i in rows]
        examples = [encode(conversation, engine.codec, prompt=True) for conversation in conversations]
        for row, pieces in zip(rows, engine.replies(examples, Decoding(max_new_tokens=12)), strict=True):
            answers[row] = [token for piece in pieces for token in piece.ids]
    return answers


def their_answers(asked: list[Asked], work: Path) -> list[list[int]]:
    """Token ids without EOS, one question at a time."""
    (work / "asked.json").write_text(json.dumps([asdict(item) for item in asked], default=str))
    subprocess.run(
        [sys.executable, "-c", THEIRS, str(work / "asked.json"), str(work / "answers.json")],
        check=True,
        cwd=work,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )
    eos = checkpoints.load(asked[0].model)[1].tokenizer.eos_token_id
    return [[token for token in answer if token != eos] for answer in json.loads((work / "answers.json").read_text())]
