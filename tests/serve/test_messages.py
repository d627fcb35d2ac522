"""Messages become the text that the saved chat template writes of them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

pytest.importorskip("fastapi")

from llavakit.chat.render import render
from llavakit.chat.template import TEMPLATES, JinjaTemplate
from llavakit.serve.messages import conversation
from llavakit.serve.pictures import PictureLimits
from llavakit.serve.refuse import Refused
from llavakit.serve.wire import Message
from tests.serve.conftest import data_url, noise

READ = TypeAdapter(list[Message])
URL = data_url(noise(0))
WORDS = st.text("ab \n.", min_size=1, max_size=6).filter(str.strip)
PARTS = st.lists(st.one_of(WORDS, st.none()), min_size=1, max_size=5).filter(lambda parts: any(parts))


def parts_of(values: list[str | None]) -> list[dict[str, Any]]:
    return [
        {"type": "text", "text": value} if value else {"type": "image_url", "image_url": {"url": URL}}
        for value in values
    ]


def for_template(message: dict[str, Any]) -> dict[str, Any]:
    """The message as transformers takes it: a picture's part has the type ``image``."""
    content = message["content"]
    if isinstance(content, str):
        return message
    return {**message, "content": [p if p["type"] == "text" else {"type": "image"} for p in content]}


@given(turns=st.lists(st.tuples(PARTS, WORDS), min_size=1, max_size=3), system=st.none() | WORDS, last=PARTS)
@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("name", ["vicuna_v1", "chatml", "llava_llama_2"])
def test_equal_to_the_saved_template(
    name: str, turns: list[tuple[list[str | None], str]], system: str | None, last: list[str | None]
) -> None:
    import jinja2

    messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    for asked, answered in turns:
        messages += [{"role": "user", "content": parts_of(asked)}, {"role": "assistant", "content": answered}]
    messages.append({"role": "user", "content": parts_of(last)})
    found = asyncio.run(conversation(READ.validate_python(messages), PictureLimits()))
    source = TEMPLATES[name].jinja()
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    expected = environment.from_string(source).render(
        messages=[for_template(m) for m in messages], bos_token="<s>", eos_token="</s>", add_generation_prompt=True
    )
    assert render(found, JinjaTemplate(source), "<s>", "</s>", prompt=True).text == expected
    assert len(found.images) == expected.count("<image>")


@pytest.mark.parametrize("where", ["system", "user", "assistant"])
def test_a_mark_written_as_text_is_refused(where: str) -> None:
    texts = {"system": "s", "user": "u", "assistant": "a"} | {where: "an <image> here"}
    messages = [{"role": role, "content": text} for role, text in texts.items()] + [{"role": "user", "content": "u"}]
    with pytest.raises(Refused, match="stands in a text"):
        asyncio.run(conversation(READ.validate_python(messages), PictureLimits()))


def test_a_message_that_came_from_the_client_is_taken_back() -> None:
    from openai.types.chat import ChatCompletionMessage

    dumped = ChatCompletionMessage(role="assistant", content="Yes.").model_dump()
    messages = [{"role": "user", "content": "Is it?"}, dumped, {"role": "user", "content": "Sure?"}]
    assert asyncio.run(conversation(READ.validate_python(messages), PictureLimits())).turns[1].text == "Yes."


def test_the_page_is_packaged() -> None:
    import llavakit.serve

    web = Path(llavakit.serve.__file__).parent / "web"
    assert {path.suffix for path in web.rglob("*") if path.is_file()} == {".html", ".css", ".js", ".svg", ".jpg"}
