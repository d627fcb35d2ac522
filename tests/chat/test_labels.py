"""Labels against the characters they come from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llavakit.base.errors import BadRecord
from llavakit.chat.labels import IGNORE, supervise
from llavakit.chat.render import render
from llavakit.chat.template import get_template
from llavakit.train.backbones_language import train_tokenizer
from tests.chat.test_templates import conversations
from tests.toys import TEXT

TOKENIZER = train_tokenizer(TEXT * 20, 400)


@given(conversation=conversations(), name=st.sampled_from(["vicuna_v1", "llava_v1", "mistral_instruct", "v0"]))
@settings(max_examples=100, deadline=None)
def test_supervised_tokens_spell_the_supervised_text(conversation, name) -> None:  # type: ignore[no-untyped-def]
    rendered = render(conversation, get_template(name), "<s>", "</s>")
    encoding = TOKENIZER.backend_tokenizer.encode(rendered.text, add_special_tokens=False)
    labels = supervise(encoding.ids, encoding.offsets, rendered.spans, rendered.text)
    supervised = TOKENIZER.decode([int(label) for label in labels if label != IGNORE])
    assert supervised == "".join(rendered.text[a:b] for a, b in rendered.spans)
    rest = TOKENIZER.decode([i for i, label in zip(encoding.ids, labels, strict=True) if label == IGNORE])
    masked, last = "", 0
    for a, b in rendered.spans:
        masked, last = masked + rendered.text[last:a], b
    assert rest == masked + rendered.text[last:]


def test_a_token_across_a_border_is_refused_by_name() -> None:
    with pytest.raises(BadRecord, match=r"sample 9: token 'ab' stands across"):
        supervise([5, 6], [(0, 2), (2, 3)], [(1, 3)], "abc", "sample 9")


def test_a_dropped_character_is_refused() -> None:
    with pytest.raises(BadRecord, match="drops 'c'"):
        supervise([5], [(0, 2)], [(0, 3)], "abc")


def test_labels_are_ids_or_ignored() -> None:
    labels = supervise([1, 2, 3], [(0, 1), (1, 2), (2, 3)], [(1, 2)], "abc")
    np.testing.assert_array_equal(labels, [IGNORE, 2, IGNORE])
