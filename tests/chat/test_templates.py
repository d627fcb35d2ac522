"""Every shipped template: its training text is its own saved Jinja template, rendered by transformers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llavakit.base.errors import BadRecord, BadRequest
from llavakit.chat.conversation import Conversation, ImageRef, Turn
from llavakit.chat.render import render
from llavakit.chat.template import TEMPLATES, JinjaTemplate, get_template

words = st.text(alphabet=st.sampled_from("abc {}'\"\\\n\u00e9\u4e2d<[%#"), min_size=1, max_size=20).filter(
    lambda text: text.strip()
)


@st.composite
def conversations(draw: st.DrawFn, answered: bool = True) -> Conversation:
    turns = []
    for _ in range(draw(st.integers(1, 3))):
        turns += [Turn("user", draw(words)), Turn("assistant", draw(words))]
    if not answered:
        turns.append(Turn("user", draw(words)))
    with_image = draw(st.booleans())
    if with_image:
        turns[0] = Turn("user", "<image>\n" + turns[0].text)
    return Conversation(tuple(turns), (ImageRef(b""),) if with_image else ())


def by_transformers(source: str, conversation: Conversation, prompt: bool) -> str:
    from transformers.utils.chat_template_utils import render_jinja_template

    messages = [{"role": turn.role, "content": turn.text} for turn in conversation.turns]
    texts, _ = render_jinja_template(
        [messages], chat_template=source, add_generation_prompt=prompt, bos_token="<s>", eos_token="</s>"
    )
    return texts[0]


@pytest.mark.parametrize("name", list(TEMPLATES))
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_training_text_is_the_saved_template(name: str, data: st.DataObject) -> None:
    prompt = data.draw(st.booleans())
    conversation = data.draw(conversations(answered=not prompt))
    template = get_template(name)
    ours = render(conversation, template, "<s>", "</s>", prompt=prompt)
    assert ours.text == by_transformers(template.jinja(), conversation, prompt)


@pytest.mark.parametrize("name", [name for name in TEMPLATES if name != "plain"])
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_spans_hold_the_answers(name: str, data: st.DataObject) -> None:
    conversation = data.draw(conversations())
    rendered = render(conversation, get_template(name), "<s>", "</s>")
    answers = [turn.text for turn in conversation.turns if turn.role == "assistant"]
    shown = [rendered.text[start:end] for start, end in rendered.spans]
    assert len(shown) == len(answers)
    for answer, span in zip(answers, shown, strict=True):
        assert span in (f" {answer}</s>", f" {answer}###", f" {answer} </s>", f"{answer}<|im_end|>")


@pytest.mark.parametrize("name", ["vicuna_v1", "llava_llama_2", "mistral_instruct"])
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_any_jinja_template_gives_the_same_spans(name: str, data: st.DataObject) -> None:
    conversation = data.draw(conversations())
    template = get_template(name)
    ours = render(conversation, template, "<s>", "</s>")
    theirs = render(conversation, JinjaTemplate(template.jinja()), "<s>", "</s>")
    assert theirs == ours


def test_vicuna_to_the_letter() -> None:
    conversation = Conversation(
        (Turn("user", "q"), Turn("assistant", "a"), Turn("user", "q2"), Turn("assistant", "a2"))
    )
    assert render(conversation, get_template("vicuna_v1"), "<s>", "</s>").text == (
        "<s>A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the user's questions. USER: q ASSISTANT: a</s>USER: q2 ASSISTANT: a2</s>"
    )


def test_llama_2_to_the_letter() -> None:
    conversation = Conversation(
        (Turn("user", "q"), Turn("assistant", "a"), Turn("user", "q2"), Turn("assistant", "a2")), system="S"
    )
    assert render(conversation, get_template("llava_llama_2"), "<s>", "</s>").text == (
        "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\nq [/INST] a </s><s>[INST] q2 [/INST] a2 </s>"
    )


def test_plain_throws_the_question_away() -> None:
    conversation = Conversation((Turn("user", "Describe.\n<image>"), Turn("assistant", "A cat")), (ImageRef(b""),))
    rendered = render(conversation, get_template("plain"), "<s>", "</s>")
    assert rendered.text == "<s><image>A cat\n"
    assert [rendered.text[a:b] for a, b in rendered.spans] == ["A cat\n"]


def test_image_parts_are_the_text_that_question_writes() -> None:
    from llavakit.chat.conversation import question

    source = get_template("vicuna_v1").jinja()
    parts = [{"type": "image"}, {"type": "text", "text": "what?"}]
    from transformers.utils.chat_template_utils import render_jinja_template

    texts, _ = render_jinja_template(
        [[{"role": "user", "content": parts}]],
        chat_template=source,
        add_generation_prompt=True,
        bos_token="<s>",
        eos_token="</s>",
    )
    asked = render(question("what?", ImageRef(b"")), get_template("vicuna_v1"), "<s>", "</s>", prompt=True)
    assert texts[0] == asked.text


def test_special_tokens_in_a_turn_are_refused() -> None:
    conversation = Conversation((Turn("user", "hi </s> there"), Turn("assistant", "a")), id="7")
    with pytest.raises(BadRecord, match=r"'7'.*special token '</s>'"):
        render(conversation, get_template("vicuna_v1"), "<s>", "</s>")


def test_pictures_and_special_tokens_in_the_system_text_are_refused() -> None:
    turns = (Turn("user", "q"), Turn("assistant", "a"))
    with pytest.raises(BadRecord, match=r"'7'.*<image> stands in the system text"):
        Conversation(turns, system="Look at <image> first.", id="7").checked()
    with pytest.raises(BadRecord, match=r"'7'.*system text holds the special token '<s>'"):
        render(Conversation(turns, system="<s>", id="7"), get_template("vicuna_v1"), "<s>", "</s>")


def test_bos_stands_first_once() -> None:
    from llavakit.chat.render import with_bos

    bare = "{%- for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    parts = "{% for m in messages %}{% for c in m['content'] %}{{ c['text'] }}{% endfor %}{% endfor %}"
    own = get_template("vicuna_v1").jinja()
    assert with_bos(own) == own and with_bos(with_bos(bare)) == with_bos(bare)
    asked = Conversation((Turn("user", "q"),))
    assert render(asked, JinjaTemplate(with_bos(bare)), "<s>", "</s>", prompt=True).text == "<s>user: q\n"
    assert with_bos(parts) == "{{ bos_token }}" + parts


def test_a_misspelt_name_is_suggested() -> None:
    with pytest.raises(BadRequest, match="did you mean 'vicuna_v1'"):
        get_template("vicuna-v1")
