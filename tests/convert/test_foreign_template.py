"""Somebody else's checkpoint, whose chat template leaves BOS to the tokenizer."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from llavakit.chat.conversation import ImageRef, question
from llavakit.convert.run import convert
from llavakit.model import checkpoint as checkpoints
from llavakit.model.encode import encode

BARE = "{% for m in messages %}{{ m['role'] | upper }}: {{ m['content'] }} {% endfor %}ASSISTANT:"


def test_the_prompt_begins_with_bos_as_transformers_does(llava: Path, tmp_path: Path) -> None:
    from transformers import AutoProcessor

    convert(llava, tmp_path / "native")
    (tmp_path / "native" / "chat_template.jinja").write_text(BARE)
    model, codec = checkpoints.load(tmp_path / "native")
    picture = Image.new("RGB", (28, 28))
    ours = encode(question("What is it?", ImageRef(picture)), codec, prompt=True).ids.tolist()
    processor = AutoProcessor.from_pretrained(tmp_path / "native")
    text = processor.apply_chat_template([{"role": "user", "content": "<image>\nWhat is it?"}])
    assert processor(images=picture, text=text)["input_ids"][0] == ours and ours[0] == codec.tokenizer.bos_token_id
    checkpoints.save(model, codec, tmp_path / "again")
    assert (tmp_path / "again" / "chat_template.jinja").read_text() == "{{ bos_token }}" + BARE
    again = checkpoints.load(tmp_path / "again")[1]
    assert encode(question("What is it?", ImageRef(picture)), again, prompt=True).ids.tolist() == ours
