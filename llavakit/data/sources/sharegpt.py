"""ShareGPT: conversations of people with a chat model, text only, cleaned as Vicuna's and cut, not split.

Reads the raw dumps (``sg_90k_part1.json``, ``sg_90k_part2.json``, answers in HTML) and the cleaned one
(``ShareGPT_V3_unfiltered_cleaned_split.json``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import Field

from llavakit.data.dice import Dice
from llavakit.data.reader import Dropped, Options, Reader, Rule, Talk, Talks, Turn, file_of
from llavakit.data.sources._markup import plain_text
from llavakit.data.stream import items
from llavakit.eval.source import find_all

_CLEANED = "ShareGPT_V3_unfiltered_cleaned_split.json"
_WHO = {"human": "human", "user": "human", "gpt": "gpt", "chatgpt": "gpt", "bing": "gpt", "bard": "gpt"}
_SHOWN = re.compile(r"^\s*\d+ / \d+\s*")  # the page's count of regenerated answers
_COPIED = re.compile(r"Copy\d+ chars / \d+ words")


class ShareGptOptions(Options):
    max_tokens: int = Field(2048, gt=0)
    tokenizer: str | None = None
    """A directory of the tokenizer that counts; without one nothing is cut here, and training cuts instead."""


class ShareGpt(Reader[ShareGptOptions]):
    name = "sharegpt"
    files = ("sg_90k_part1.json", "sg_90k_part2.json")
    get = f"https://huggingface.co/datasets/anon8231489123/ShareGPT_Vicuna_unfiltered ({_CLEANED})"
    options = ShareGptOptions
    differs = "the dump and the filter behind 40,688 were never published; these are the named rules alone"

    def missing(self, data: Path, options: ShareGptOptions) -> list[str]:
        return [] if self.inputs(data, options) else [" or ".join([_CLEANED, " + ".join(self.files)])]

    def inputs(self, data: Path, options: ShareGptOptions) -> list[Path]:
        if found := find_all(data, _CLEANED):
            return found[:1]
        return [file_of(data, name) for name in self.files] if not super().missing(data, options) else []

    def read(self, data: Path, options: ShareGptOptions, dropped: Dropped) -> Talks:
        talks = []
        for path in self.inputs(data, options):
            for item in items(path):
                said = [(str(t["from"]), str(t["value"])) for t in item.value["conversations"]]
                talks.append(Talk(str(item.value["id"]), tuple(said)))
        return talks

    def rules(self, options: ShareGptOptions) -> Sequence[Rule]:
        return [markup_to_text(), page_remains(), speakers(), from_human_to_answer(), invalid_dropped(), cut(options)]


def markup_to_text() -> Rule:
    """Answers that are HTML become Markdown."""
    return _each_text("markup-to-text", "HTML of the web page becomes Markdown text", plain_text)


def page_remains() -> Rule:
    """What the page showed around an answer goes: "2 / 3", "Copy12 chars / 3 words"."""
    says = "counters and labels of the web page are removed"
    return _each_text("page-remains", says, lambda text: _COPIED.sub("", _SHOWN.sub("", text)).strip())


def speakers() -> Rule:
    """Every name of the person is "human", of the model "gpt"; a turn of anyone else (a system text) goes."""

    def named(talk: Talk) -> Talk:
        return replace(talk, turns=tuple((_WHO[who], text) for who, text in talk.turns if who in _WHO))

    says = "user is human; chatgpt, bing and bard are gpt; turns of others go"
    return Rule("speakers", says, lambda talks, dice: [named(talk) for talk in talks])


def from_human_to_answer() -> Rule:
    """What the model says before the first question goes, and a last question without an answer."""

    def trimmed(talk: Talk) -> Talk:
        turns = list(talk.turns)
        while turns and turns[0][0] != "human":
            turns.pop(0)
        while turns and turns[-1][0] != "gpt":
            turns.pop()
        return replace(talk, turns=tuple(turns))

    says = "conversations begin with a question and end with an answer"
    return Rule("from-human-to-answer", says, lambda talks, dice: [trimmed(talk) for talk in talks])


def invalid_dropped() -> Rule:
    """Conversations go in which one side speaks twice running, a turn is empty, a turn holds ``<image>`` or a special
    token, or nothing is left; and the second of two with the same text."""

    def valid(turns: Sequence[Turn]) -> bool:
        order = all(who == ("gpt" if number % 2 else "human") for number, (who, _) in enumerate(turns))
        texts = [text for _, text in turns]
        forbidden = ("<image>", "<s>", "</s>", "<unk>", "<pad>")
        return bool(turns) and order and all(t.strip() and not any(f in t for f in forbidden) for t in texts)

    def act(talks: Talks, dice: Dice) -> Talks:
        kept: dict[tuple[Turn, ...], Talk] = {}
        for talk in talks:
            if valid(talk.turns):
                kept.setdefault(talk.turns, talk)
        return list(kept.values())

    return Rule("invalid-dropped", "turns out of order, empty turns, special tokens, repeated conversations go", act)


def cut(options: ShareGptOptions) -> Rule:
    """Exchanges that begin beyond ``max_tokens`` go: training would cut them away. A conversation is never split."""
    if options.tokenizer is None:
        says = f"left to training, which cuts at its own length (option tokenizer cuts here, at {options.max_tokens})"
        return Rule("cut", says, lambda talks, dice: talks)
    count = _counter(options.tokenizer)

    def shortened(talk: Talk) -> Talk:
        used, kept = 0, 0
        for number in range(0, len(talk.turns), 2):
            if used >= options.max_tokens:
                break
            kept = number + 2
            used += sum(count(text) for _, text in talk.turns[number:kept])
        return replace(talk, turns=talk.turns[:kept])

    says = f"exchanges that begin beyond {options.max_tokens} tokens go; conversations are not split"
    return Rule("cut", says, lambda talks, dice: [shortened(talk) for talk in talks])


def _counter(directory: str) -> Callable[[str], int]:
    from llavakit.data.measure import load_tokenizer

    backend = load_tokenizer(directory).backend_tokenizer
    return lambda text: len(backend.encode(text, add_special_tokens=False).ids)


def _each_text(name: str, says: str, change: Callable[[str], str]) -> Rule:
    def act(talks: Talks, dice: Dice) -> Talks:
        return [replace(talk, turns=tuple((who, change(text)) for who, text in talk.turns)) for talk in talks]

    return Rule(name, says, act)


SOURCE = ShareGpt()
