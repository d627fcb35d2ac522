"""A conversation in pieces as training sees it: which are learned, which a picture, which the cut takes away."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from llavakit.chat.conversation import IMAGE, Conversation
from llavakit.chat.labels import IGNORE
from llavakit.chat.render import render
from llavakit.chat.template import JinjaTemplate, Template
from llavakit.data.measure import ENDLESS
from llavakit.model.encode import Codec, Example, encode


@dataclass(frozen=True)
class Run:
    """Neighbouring pieces of one sort: ``given``, ``learned`` or ``image`` (then ``count`` tokens); ``cut``: beyond
    the maximum length."""

    kind: str
    cut: bool
    pieces: list[str]
    count: int


def token_runs(conversation: Conversation, codec: Codec) -> tuple[list[Run], Example]:
    """Runs of tokens, and the whole example without a cut. Raises :class:`BadRecord` as ``encode`` does."""
    example = encode(conversation, replace(codec, max_length=ENDLESS))
    tokenizer = codec.tokenizer
    text = render(conversation, codec.template, tokenizer.bos_token or "", tokenizer.eos_token or "").text
    encoding = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
    spoken = (offset for id, offset in zip(encoding.ids, encoding.offsets, strict=True) if id != codec.image_id)
    tokens: list[tuple[str, bool, str]] = []
    end = 0
    for at, (id, label) in enumerate(zip(example.ids, example.labels, strict=True)):
        cut = at >= codec.max_length
        if id == codec.image_id:
            tokens.append(("image", cut, ""))
            continue
        start, stop = next(spoken)
        # Tokens of single bytes share one character: it is shown with the first of them.
        piece = text[max(start, end) : stop]
        end = max(end, stop)
        tokens.append(("learned" if label != IGNORE else "given", cut, piece))
    runs = [
        Run(kind, cut, [piece for _, _, piece in group], len(group))
        for (kind, cut), found in itertools.groupby(tokens, key=lambda token: token[:2])
        for group in [list(found)]
    ]
    return runs, example


def word_runs(conversation: Conversation, template: Template | JinjaTemplate) -> list[Run]:
    """The same without a tokenizer: words for tokens, and no cut."""
    rendered = render(conversation.checked(), template, "<s>", "</s>")
    edges = [0, *(edge for span in rendered.spans for edge in span), len(rendered.text)]
    runs: list[Run] = []
    for number, (start, end) in enumerate(itertools.pairwise(edges)):
        runs += _words(rendered.text[start:end], "learned" if number % 2 else "given")
    return runs


def _words(text: str, kind: str) -> Iterator[Run]:
    for number, part in enumerate(text.split(IMAGE)):
        if number:
            yield Run("image", False, [""], 0)
        if pieces := re.findall(r"\s*\S+\s*|\s+", part):
            yield Run(kind, False, pieces, len(pieces))
