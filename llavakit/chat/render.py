"""Conversation -> text + the character spans of it that are supervised. One function for training and inference."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from llavakit.base.errors import BadRecord, BadRequest
from llavakit.chat.conversation import IMAGE, Conversation
from llavakit.chat.template import JinjaTemplate, Template


@dataclass(frozen=True)
class Rendered:
    """``text`` holds every special token as its own string, BOS too: tokenise it without adding any.
    ``spans``: half-open character ranges that the model learns to write, in order."""

    text: str
    spans: tuple[tuple[int, int], ...]


def render(
    conversation: Conversation, template: Template | JinjaTemplate, bos: str, eos: str, *, prompt: bool = False
) -> Rendered:
    """Renders a checked conversation. With ``prompt``, the text ends where the assistant begins to speak.

    Raises :class:`BadRecord` when a turn or the system text holds the tokenizer's own BOS or EOS text (it would become
    a real one), :class:`BadRequest` when a Jinja template rejects the conversation.
    """
    said = [("a turn's", turn.text) for turn in conversation.turns]
    for whose, text in [*said, ("the system", conversation.system or "")]:
        for token in (bos, eos):
            if token and token in text:
                raise BadRecord(f"{whose} text holds the special token {token!r}; remove it", conversation.where)
    if isinstance(template, Template):
        return _render(conversation, template, bos, eos, prompt)
    return _render_jinja(conversation, template.source, bos, eos, prompt)


def _render(c: Conversation, t: Template, bos: str, eos: str, prompt: bool) -> Rendered:
    def fill(form: str, text: str = "") -> str:
        return form.replace("{bos}", bos).replace("{eos}", eos).replace("{text}", text)

    system_text = t.system_text if c.system is None else c.system
    system = fill(t.system, system_text) if system_text else ""
    out = fill(t.start) + ("" if t.system_inside_user else system)
    spans = []
    for number, turn in enumerate(c.turns):
        if turn.role == "user":
            text = IMAGE * turn.text.count(IMAGE) if t.images_only else turn.text
            if t.system_inside_user and number == 0:
                text = system + text
            out += fill(t.user, text)
        else:
            out += fill(t.prompt)
            answer = fill(t.answer, turn.text)
            spans.append((len(out), len(out) + len(answer)))
            out += answer + fill(t.after)
    return Rendered(out + fill(t.prompt) if prompt else out, tuple(spans))


def _render_jinja(c: Conversation, source: str, bos: str, eos: str, prompt: bool) -> Rendered:
    if _drops_text(source):
        raise BadRequest(
            "this checkpoint's chat template takes lists of parts alone and drops plain text; give the checkpoint a "
            "built-in one: llavakit convert CHECKPOINT NEW_DIRECTORY --template NAME"
        )
    messages = [{"role": turn.role, "content": turn.text} for turn in c.turns]
    if c.system is not None:
        messages.insert(0, {"role": "system", "content": c.system})

    def text(until: int, prompt: bool) -> str:
        return str(
            _compile(source).render(
                messages=messages[:until], bos_token=bos, eos_token=eos, add_generation_prompt=prompt
            )
        )

    whole = text(len(messages), prompt)
    spans = []
    for number, message in enumerate(messages):
        if message["role"] == "assistant":
            before, after = text(number, True), text(number + 1, False)
            if not after.startswith(before) or not whole.startswith(after.rstrip()):
                raise BadRequest(
                    "this chat template rewrites earlier turns as a conversation grows, so what it supervises is not "
                    "a span of its text; choose a built-in template"
                )
            end = len(after.rstrip()) if after.endswith("\n") else len(after)
            spans.append((len(before), end))
    return Rendered(whole, tuple(spans))


@functools.lru_cache(maxsize=16)
def _drops_text(source: str) -> bool:
    """Whether a template prints what is said in parts, as many of published checkpoints do, and nothing of a string."""
    return not _probe(source, "probe") and bool(_probe(source, [{"type": "text", "text": "probe"}]))


def with_bos(source: str) -> str:
    """A template's source that writes BOS first: itself where it does, else with BOS before it. For a tokenizer that
    puts BOS before plain text, whose author relied on that; the text of a conversation is tokenised without."""
    for content in ("probe", [{"type": "text", "text": "probe"}]):
        if text := _probe(source, content, bos="\ue000"):
            return source if text.startswith("\ue000") else "{{ bos_token }}" + source
    return source


def _probe(source: str, content: Any, bos: str = "") -> str:
    """The text of a first question "probe", nothing where it is not in it."""
    import jinja2

    messages = [{"role": "user", "content": content}]
    try:
        text = str(_compile(source).render(messages=messages, bos_token=bos, eos_token="", add_generation_prompt=True))
    except (jinja2.TemplateError, BadRequest):
        return ""
    return text if "probe" in text else ""


@functools.lru_cache(maxsize=16)
def _compile(source: str) -> Any:
    import jinja2
    import jinja2.sandbox

    def raise_exception(message: str) -> None:
        raise BadRequest(f"the chat template refuses this conversation: {message}")

    # The options are transformers' own: with others the same source renders other white space.
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = raise_exception
    return environment.from_string(source)
