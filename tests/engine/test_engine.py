"""Answers: the same alone and in company, in pieces and whole, and never past a limit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llavakit.base.errors import BadRecord
from llavakit.engine.engine import Engine
from llavakit.engine.sample import GREEDY, Decoding
from llavakit.engine.text import Writer
from llavakit.model.encode import Codec, encode
from llavakit.model.llava import Llava
from tests.engine.reference import mixed

SHORT = Decoding(max_new_tokens=10)
ASKED = mixed(10)


@pytest.fixture(scope="module")
def alone(parts: tuple[Llava, Codec]) -> list[str]:
    """Each answer by itself, nothing cached."""
    answers = [next(Engine(*parts, cache_bytes=0).answer([conversation], SHORT)) for conversation in ASKED]
    assert len(set(answers)) > 4, "the toy must not say the same thing to everything"
    return answers


@given(order=st.permutations(range(10)), batch_size=st.integers(1, 9))
@settings(max_examples=10, deadline=None)
def test_answers_come_in_order(parts: tuple[Llava, Codec], alone: list[str], order: list[int], batch_size: int) -> None:
    together = Engine(*parts, batch_size=batch_size)
    assert list(together.answer([ASKED[i] for i in order], SHORT)) == [alone[i] for i in order]


def test_pieces_join_to_the_answer(engine: Engine, alone: list[str]) -> None:
    for conversation, answer in zip(ASKED, alone, strict=True):
        pieces = list(engine.stream(conversation, SHORT))
        assert "".join(pieces) == answer and all(pieces)


def test_talks_that_take_turns_do_not_disturb_each_other(engine: Engine, alone: list[str]) -> None:
    streams = [engine.stream(conversation, SHORT) for conversation in ASKED]
    said = [""] * len(streams)
    left = dict(enumerate(streams))
    while left:
        for i in list(left):
            piece = next(left[i], None)
            if piece is None:
                del left[i]
            else:
                said[i] += piece
    assert said == alone


def test_an_abandoned_answer_frees_its_place(engine: Engine) -> None:
    stream, answers = engine.stream(ASKED[0], GREEDY), engine.answer(ASKED, GREEDY.evolve(max_new_tokens=90))
    next(stream), next(answers)
    stream.close()  # type: ignore[attr-defined]
    answers.close()  # type: ignore[attr-defined]
    assert len(engine.batch) == 0 and len(engine.batch.rows) == 0
    assert not any(node.holders for node in engine.prefixes._walk(engine.prefixes._roots))


TEXTS = ["h\u00e9llo \u4e2d\u6587 \U0001f642!", " Blue. Red STOP here", "\U0001f642\U0001f642", "aaab", ""]


@given(text=st.sampled_from(TEXTS) | st.text(max_size=20), stop=st.lists(st.text("abSTOP. ", min_size=1), max_size=1))
@settings(deadline=None)
def test_text_comes_whole_and_stops(engine: Engine, text: str, stop: list[str]) -> None:
    tokenizer = engine.codec.tokenizer
    ids = tokenizer.encode(text, add_special_tokens=False)
    writer = Writer(tokenizer, stop)
    pieces = []
    for id in ids:
        pieces.append(writer.push(id))
        if writer.stopped:
            break
    pieces.append(writer.end())
    whole = tokenizer.decode(ids, skip_special_tokens=True).lstrip()
    ends = [whole.index(s) for s in stop if s in whole]
    assert "".join(pieces) == whole[: min(ends, default=len(whole))]
    assert writer.stopped == bool(ends)
    if "\ufffd" not in whole:
        assert not any("\ufffd" in piece for piece in pieces)


def test_of_two_stop_strings_the_one_that_is_complete_first_ends_the_text(engine: Engine) -> None:
    for stop, wanted in ((["c", "bcd"], "ab"), (["bcd", "x"], "a"), (["d", "bcd"], "a")):
        writer = Writer(engine.codec.tokenizer, stop)
        letters = [engine.codec.tokenizer.encode(letter, add_special_tokens=False) for letter in "abcde"]
        pieces = [writer.push(id) for ids in letters for id in ids if not writer.stopped]
        assert "".join(pieces) == wanted and writer.stopped


def test_a_stop_string_ends_the_answer_before_it(engine: Engine, alone: list[str]) -> None:
    answer = max(alone, key=len)
    conversation = ASKED[alone.index(answer)]
    for stop in (answer[3:6], answer[4]):
        for beams in (1, 3):
            how = SHORT.evolve(stop=[stop, "never said"], num_beams=beams)
            text = "".join(engine.stream(conversation, how))
            assert stop not in text
            if beams == 1:
                assert text == answer[: answer.index(stop)]


def test_the_seed_decides_what_is_sampled(engine: Engine, alone: list[str]) -> None:
    warm = Decoding(max_new_tokens=10, temperature=1.0, seed=1)
    first = list(engine.answer(ASKED, warm))
    assert first == [next(engine.answer([conversation], warm)) for conversation in ASKED], "alone as in company"
    assert first != list(engine.answer(ASKED, warm.evolve(seed=2)))
    for tiny in (warm.evolve(top_p=1e-9), warm.evolve(top_k=1), warm.evolve(temperature=1e-4)):
        assert list(engine.answer(ASKED, tiny)) == alone


def test_samples_are_distributed_as_the_model_says() -> None:
    from llavakit.engine.sample import choose

    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, -30.0]).repeat(4000, 1)
    generators = [torch.Generator().manual_seed(i) for i in range(4000)]

    def share(how: Decoding) -> list[float]:
        ids = torch.tensor(choose(logits, [how] * 4000, [()] * 4000, generators))
        return (torch.bincount(ids, minlength=5) / 4000).tolist()

    def softmax(kept: int, temperature: float) -> list[float]:
        return [*torch.softmax(logits[0, :kept] / temperature, -1).tolist(), *[0.0] * (5 - kept)]

    for how, wanted in [
        (Decoding(temperature=1.0), softmax(5, 1.0)),
        (Decoding(temperature=2.0, top_k=2), softmax(2, 2.0)),
        (Decoding(temperature=1.0, top_p=0.8), softmax(2, 1.0)),
        (Decoding(temperature=1.0, top_p=0.8, top_k=3), softmax(2, 1.0)),
    ]:
        assert share(how) == pytest.approx(wanted, abs=0.03)


def test_logprobs_are_those_of_the_tokens(parts: tuple[Llava, Codec], engine: Engine) -> None:
    model, codec = parts
    example = encode(ASKED[6], codec, prompt=True)
    (pieces,) = engine.replies([example], SHORT, logprobs=3)
    ids = [id for piece in pieces for id in piece.ids]
    with torch.inference_mode():
        whole = torch.cat([torch.from_numpy(example.ids), torch.tensor(ids)])[None]
        wanted = model.language_model(input_ids=whole).logits[0, len(example) - 1 : -1].log_softmax(-1)
    told = [one for piece in pieces for one in piece.logprobs or []]
    assert [one.id for one in told] == ids
    for one, row in zip(told, wanted, strict=True):
        assert one.logprob == pytest.approx(float(row[one.id]), abs=1e-4)
        assert [top.logprob for top in one.top] == pytest.approx(row.topk(3).values.tolist(), abs=1e-4)
        assert one.top[0].id == one.id and one.top[0].top == ()


def test_each_answer_ends_where_its_own_context_does(parts: tuple[Llava, Codec]) -> None:
    model, codec = parts
    longest = max(len(encode(conversation, codec, prompt=True)) for conversation in ASKED)
    codec = replace(codec, max_length=longest + 3)
    narrow = Engine(model, codec)
    examples = [encode(conversation, codec, prompt=True) for conversation in ASKED]
    for example, pieces in zip(examples, narrow.replies(examples, SHORT), strict=True):
        written = sum(len(piece.ids) for piece in pieces)
        assert written <= min(SHORT.max_new_tokens, codec.max_length - len(example))
    with pytest.raises(BadRecord, match="the context holds 20"):
        list(Engine(model, replace(codec, max_length=20)).answer(ASKED))
