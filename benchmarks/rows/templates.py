"""What is trained on is what the saved checkpoint's chat template says."""

from __future__ import annotations

from typing import Any

from benchmarks.rows import backbones, row, scratch
from benchmarks.rows.originals import conversations
from llavakit.chat.render import render
from llavakit.chat.template import TEMPLATES
from llavakit.model.checkpoint import save
from tests import toys


@row(
    "training text, every shipped template, unequal of 500 each", against="the saved template, by transformers", bound=0
)
def texts() -> float:
    model, codec = toys.build_toy(backbones())
    return float(sum(_unequal(model, codec.using(template)) for template in TEMPLATES.values()))


def _unequal(model: Any, codec: Any) -> int:
    from transformers import AutoProcessor

    path = scratch() / f"template-{codec.template.name}"
    save(model, codec, path)
    processor = AutoProcessor.from_pretrained(path)
    bos, eos = codec.tokenizer.bos_token, codec.tokenizer.eos_token
    count = 0
    for conversation in conversations(2, plain=codec.template.images_only):
        messages = [{"role": turn.role, "content": turn.text} for turn in conversation.turns]
        theirs = processor.apply_chat_template(messages, tokenize=False)
        count += render(conversation, codec.template, bos, eos).text != theirs
    return count
