"""How to run a checkpoint, engine by engine, for its card: only what can run it, with its own settings."""

from __future__ import annotations

import json

from llavakit.convert.checkpoint import Checkpoint
from llavakit.convert.gguf import fault

_TRANSFORMERS = """\
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

model = AutoModelForImageTextToText.from_pretrained("{name}", dtype="auto")
processor = AutoProcessor.from_pretrained("{name}")
question = [{{"type": "image"}}, {{"type": "text", "text": "What is in this picture?"}}]
text = processor.apply_chat_template([{{"role": "user", "content": question}}], add_generation_prompt=True)
# The chat template writes BOS itself.
inputs = processor(images=Image.open("photo.jpg"), text=text, add_special_tokens=False, return_tensors="pt")
answer = model.generate(**inputs.to(model.dtype), max_new_tokens=256, do_sample=False)
print(processor.decode(answer[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
"""
_LLAVAKIT = """\
pip install llavakit
llavakit ask {name} --image photo.jpg "What is in this picture?"
llavakit serve {name}    # a chat page, and OpenAI's API under /v1; on a CPU with bfloat16 faster with --precision fast
"""
_VLLM = """\
vllm serve {name} --max-model-len {length} --limit-mm-per-prompt '{images}' --generation-config vllm
"""
_LLAMA_CPP = """\
llavakit convert {name} gguf --to gguf --type f16
llama-mtmd-cli -m gguf/language-f16.gguf --mmproj gguf/mmproj-f16.gguf --image photo.jpg -p "What is in this picture?"
"""


def ways(checkpoint: Checkpoint, name: str) -> str:
    """A section for each engine."""
    parts = [_section("llavakit", "sh", _LLAVAKIT.format(name=name))]
    if checkpoint.model.form != "llava":
        return "\n\n".join([*parts, "No other program knows this form (`model_type: llavakit`)."])
    parts.append(_section("transformers", "python", _TRANSFORMERS.format(name=name)))
    images = json.dumps({"image": 4})
    parts.append(_section("vLLM", "sh", _VLLM.format(name=name, length=checkpoint.codec.max_length, images=images)))
    if (why := fault(checkpoint)) is not None:
        parts.append(f"### llama.cpp\n\nNot this model: {why}.")
    else:
        parts.append(_section("llama.cpp", "sh", _LLAMA_CPP.format(name=name)))
        if checkpoint.model.vision_tower.has_cls:
            parts.append(
                "llama.cpp reads towers with a CLS token wrongly (its issue 25814): answers about pictures suffer."
            )
    if checkpoint.codec.grids and checkpoint.codec.square.mode != "squash":
        parts.append(
            f"The global view of a picture is made square by {checkpoint.codec.square.mode!r}; transformers and vLLM "
            "squash it, so llavakit alone shows the model what it was trained on."
        )
    return "\n\n".join(parts)


def _section(title: str, language: str, code: str) -> str:
    return f"### {title}\n\n```{language}\n{code}```"
