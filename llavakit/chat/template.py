"""Chat templates: how turns become one text, and which of its characters the model learns to write.

A :class:`Template` is six short formats. The same value renders the training text (:mod:`llavakit.chat.render`) and
writes the Jinja source that is saved with a checkpoint, so the two cannot drift; a test holds them together.
Any other Jinja template works through :class:`JinjaTemplate`. Source: ``conversation.py`` of haotian-liu/LLaVA.
"""

from __future__ import annotations

from dataclasses import dataclass

from llavakit.base.config import Config, nearest
from llavakit.base.errors import BadRequest
from llavakit.chat.conversation import IMAGE


class Template(Config):
    """Formats that are joined in order: ``start system (user prompt answer after)*``.

    ``{bos}`` and ``{eos}`` are the tokenizer's own; ``{text}`` is the turn's text. Of all characters only those of
    ``answer`` are supervised. ``prompt`` is what the model is given before it speaks, so ``answer`` begins where the
    model takes over: with the space, where there is one.
    """

    name: str
    system_text: str = ""
    start: str = "{bos}"
    system: str = "{text} "
    system_inside_user: bool = False
    """llama_2 puts the system text inside the first question."""
    user: str
    prompt: str
    answer: str
    after: str = ""
    images_only: bool = False
    """Stage 1: of the user's text only the ``<image>`` marks are kept."""

    def jinja(self) -> str:
        """The same template as Jinja source, for ``chat_template.jinja`` of a checkpoint."""
        return _jinja(self)


@dataclass(frozen=True)
class JinjaTemplate:
    """Any tokenizer's own chat template. Spans are found by rendering the conversation turn by turn."""

    source: str

    def jinja(self) -> str:
        return self.source


_VICUNA = (
    "A chat between a curious {who} and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the {who}'s questions."
)

_TEMPLATES = [
    Template(name="plain", system="", user="{text}", prompt="", answer="{text}\n", images_only=True),
    Template(
        name="vicuna_v1",
        system_text=_VICUNA.format(who="user"),
        user="USER: {text} ",
        prompt="ASSISTANT:",
        answer=" {text}{eos}",
    ),
    Template(
        name="llava_v1",
        system_text=_VICUNA.format(who="human"),
        user="USER: {text} ",
        prompt="ASSISTANT:",
        answer=" {text}{eos}",
    ),
    Template(
        name="v0",
        system_text=_VICUNA.format(who="human"),
        system="{text}###",
        user="Human: {text}###",
        prompt="Assistant:",
        answer=" {text}###",
    ),
    Template(
        name="llava_llama_2",
        system_text="You are a helpful language and vision assistant. You are able to understand the visual content "
        "that the user provides, and assist the user with a variety of tasks using natural language.",
        start="",
        system="<<SYS>>\n{text}\n<</SYS>>\n\n",
        system_inside_user=True,
        user="{bos}[INST] {text} [/INST]",
        prompt="",
        answer=" {text} {eos}",
    ),
    Template(
        name="chatml",
        system_text="You are a helpful assistant.",
        start="",
        system="<|im_start|>system\n{text}<|im_end|>\n",
        user="<|im_start|>user\n{text}<|im_end|>\n",
        prompt="<|im_start|>assistant\n",
        answer="{text}<|im_end|>",
        after="\n",
    ),
    Template(
        name="mistral_instruct",
        system="",
        user="[INST] {text} [/INST]",
        prompt="",
        answer=" {text}{eos}",
    ),
]

TEMPLATES = {template.name: template for template in _TEMPLATES}


def get_template(name: str) -> Template:
    """A built-in template by name. Raises :class:`BadRequest` with the nearest name."""
    if name not in TEMPLATES:
        raise BadRequest(f"no chat template {name!r}{nearest(name, list(TEMPLATES))}; known: {', '.join(TEMPLATES)}")
    return TEMPLATES[name]


# A message's content is a string, or a list of parts as every processor of transformers takes. A part of type
# "image" becomes "<image>\n" before text and "\n<image>" at the end: the same text that `question` writes.
_CONTENT = (
    "{%- macro content(message) -%}"
    "{%- if message['content'] is string -%}{{ message['content'] }}"
    "{%- else -%}"
    "{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'image' -%}"
    "{%- if loop.last and not loop.first -%}{{ '\\n' }}{%- endif -%}" + IMAGE + "{%- if not loop.last -%}"
    "{{ '\\n' }}{%- endif -%}"
    "{%- else -%}{{ part['text'] }}{%- endif -%}"
    "{%- endfor -%}"
    "{%- endif -%}"
    "{%- endmacro -%}\n"
)


def _jinja(t: Template) -> str:
    lines = [_CONTENT]
    add = lines.append
    if t.system_text or t.system:
        add("{%- if messages[0]['role'] == 'system' -%}{%- set system = content(messages[0]) -%}")
        add("{%- set turns = messages[1:] -%}")
        add("{%- else -%}{%- set system = " + _quote(t.system_text) + " -%}{%- set turns = messages -%}{%- endif -%}")
    else:
        add("{%- set turns = messages -%}")
    add(_emit(t.start, "''"))
    system = "{%- if system -%}" + _emit(t.system, "system") + "{%- endif -%}"
    if t.system and not t.system_inside_user:
        add(system)
    add("{%- for message in turns -%}")
    add("{%- if message['role'] == 'user' -%}")
    text = "content(message)"
    if t.images_only:
        text = f"'{IMAGE}' * (content(message).split('{IMAGE}') | length - 1)"
    if t.system_inside_user:
        head, tail = t.user.split("{text}")
        add(_emit(head, "''") + "{%- if loop.first -%}" + system + "{%- endif -%}" + _emit("{text}" + tail, text))
    else:
        add(_emit(t.user, text))
    add("{%- elif message['role'] == 'assistant' -%}")
    add(_emit(t.prompt + t.answer + t.after, "content(message)"))
    add("{%- else -%}{{ raise_exception('only user and assistant may speak, and a system text come first') }}")
    add("{%- endif -%}{%- endfor -%}")
    add("{%- if add_generation_prompt -%}" + _emit(t.prompt, "''") + "{%- endif -%}")
    return "".join(lines)


def _emit(form: str, text: str) -> str:
    """Jinja that prints ``form`` with its three holes filled."""
    parts: list[str] = []
    while form:
        holes = [(form.find(hole), hole) for hole in ("{bos}", "{eos}", "{text}") if hole in form]
        at, hole = min(holes, default=(len(form), ""))
        if form[:at]:
            parts.append(_quote(form[:at]))
        if hole:
            parts.append({"{bos}": "bos_token", "{eos}": "eos_token", "{text}": f"({text})"}[hole])
        form = form[at + len(hole) :]
    return "{{ " + " ~ ".join(parts) + " }}" if parts else ""


def _quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"
