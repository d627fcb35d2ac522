"""The official client against a server process: what it gets is what the model says."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from llavakit.chat.conversation import Conversation, ImageRef, Turn, question
from llavakit.engine.engine import Engine
from llavakit.engine.load import load
from llavakit.engine.sample import Decoding
from tests.serve.conftest import data_url, noise, user

LIMIT = 24
SHORT = Decoding(max_new_tokens=LIMIT)
PICTURES = [noise(seed) for seed in range(3)]
URLS = [data_url(picture) for picture in PICTURES]


@pytest.fixture(scope="module")
def engine(checkpoint: Path) -> Engine:
    return load(checkpoint, device="cpu").engine


def said(client: OpenAI, messages: list[Any], **more: Any) -> str:
    reply = client.chat.completions.create(model="toy", messages=messages, max_tokens=LIMIT, **more)
    return reply.choices[0].message.content or ""


ASKED: list[tuple[list[Any], Conversation]] = [
    ([user("Say yes.")], question("Say yes.")),
    ([{"role": "user", "content": "Say yes."}], question("Say yes.")),
    ([user("What is it?", URLS[0])], question("What is it?", ImageRef(PICTURES[0]))),
    ([user("Which?", *URLS[:2])], question("Which?", ImageRef(PICTURES[0]), ImageRef(PICTURES[1]))),
    (
        [
            {"role": "system", "content": "Be brief."},
            user("What is it?", URLS[2]),
            {"role": "assistant", "content": "A star."},
            user("And this?", URLS[1]),
        ],
        Conversation(
            (Turn("user", "<image>\nWhat is it?"), Turn("assistant", "A star."), Turn("user", "<image>\nAnd this?")),
            (ImageRef(PICTURES[2]), ImageRef(PICTURES[1])),
            system="Be brief.",
        ),
    ),
]


def test_answers_are_the_models(client: OpenAI, engine: Engine) -> None:
    expected = list(engine.answer([conversation for _, conversation in ASKED], SHORT))
    assert len(set(expected)) > 2
    assert [said(client, messages) for messages, _ in ASKED] == expected


def test_many_at_once_get_each_their_own(client: OpenAI, engine: Engine) -> None:
    texts = [f"How many {'red ' * n}things?" for n in range(12)]
    expected = list(engine.answer([question(t, ImageRef(PICTURES[n % 3])) for n, t in enumerate(texts)], SHORT))
    assert len(set(expected)) > 6
    with ThreadPoolExecutor(12) as pool:
        got = pool.map(lambda n: said(client, [user(texts[n], URLS[n % 3])]), range(12))
        assert list(got) == expected


def test_a_stream_joins_to_the_whole(client: OpenAI) -> None:
    messages = [user("How many things?", URLS[0])]
    whole = client.chat.completions.create(model="toy", messages=messages, max_tokens=LIMIT)
    chunks = list(
        client.chat.completions.create(
            model="toy", messages=messages, max_tokens=LIMIT, stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len({chunk.id for chunk in chunks}) == 1
    *pieces, last, usage = chunks
    assert "".join(chunk.choices[0].delta.content or "" for chunk in pieces) == whole.choices[0].message.content
    assert len(pieces) > 4, "it comes in pieces"
    assert last.choices[0].finish_reason == whole.choices[0].finish_reason
    assert usage.choices == [] and usage.usage == whole.usage and usage.usage is not None
    assert usage.usage.completion_tokens <= LIMIT < usage.usage.prompt_tokens
    without = client.chat.completions.create(model="toy", messages=messages, max_tokens=2, stream=True)
    assert all(chunk.usage is None for chunk in without)


def test_the_limit_and_stop_strings_end_an_answer(client: OpenAI) -> None:
    messages = [user("How many things?", URLS[0])]
    one = client.chat.completions.create(model="toy", messages=messages, max_completion_tokens=1)
    assert one.choices[0].finish_reason == "length" and one.usage and one.usage.completion_tokens == 1
    whole = said(client, messages)
    for stop in (whole[4:7], [whole[6:8], "never that"]):
        text = said(client, messages, stop=stop)
        at = whole.find(stop if isinstance(stop, str) else stop[0])
        assert text == whole[:at]
        reply = client.chat.completions.create(model="toy", messages=messages, max_tokens=LIMIT, stop=stop)
        assert reply.choices[0].finish_reason == "stop"


def test_seeds_and_several_answers(client: OpenAI) -> None:
    messages: list[Any] = [user("What is it?", URLS[0])]

    def texts(**more: Any) -> list[str | None]:
        reply = client.chat.completions.create(model="toy", messages=messages, max_tokens=LIMIT, **more)
        assert [choice.index for choice in reply.choices] == list(range(len(reply.choices)))
        return [choice.message.content for choice in reply.choices]

    warm = {"temperature": 1.0, "n": 3}
    assert texts(seed=-5, **warm) == texts(seed=-5, **warm)
    assert len(set(texts(seed=7, **warm))) == 3
    assert texts(seed=2**63 - 1, **warm) != texts(**warm), "without a seed it is a new one"
    assert len(set(texts(n=3))) == 1, "greedy"
    assert texts(temperature=1.5, top_p=1e-9) == texts()
    chunks = client.chat.completions.create(
        model="toy", messages=messages, max_tokens=LIMIT, stream=True, seed=7, **warm
    )
    joined = ["", "", ""]
    for chunk in chunks:
        joined[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert joined == texts(seed=7, **warm)


def test_logprobs(client: OpenAI) -> None:
    messages: list[Any] = [user("How many things?", URLS[0])]
    for stream in (False, True):
        reply: Any = client.chat.completions.create(
            model="toy", messages=messages, max_tokens=6, logprobs=True, top_logprobs=3, stream=stream
        )
        choices = [chunk.choices[0] for chunk in reply] if stream else reply.choices
        tokens = [token for choice in choices if choice.logprobs for token in choice.logprobs.content]
        assert len(tokens) == 6
        for token in tokens:
            assert len(token.top_logprobs) == 3 and token.logprob <= 0
            assert token.top_logprobs[0].logprob == token.logprob, "greedy takes the likeliest"
            assert token.bytes is None or bytes(token.bytes).decode() == token.token
    bare = client.chat.completions.create(model="toy", messages=messages, max_tokens=2, logprobs=True).choices[0]
    assert bare.logprobs and bare.logprobs.content and bare.logprobs.content[0].top_logprobs == []
    text = client.completions.create(model="toy", prompt="A red", max_tokens=5, logprobs=2).choices[0]
    assert text.logprobs and text.logprobs.tokens and len(text.logprobs.tokens) == 5
    assert "".join(text.logprobs.tokens) == text.text, "its opening white space is there"


def test_completions_continue_a_text(client: OpenAI) -> None:
    reply = client.completions.create(model="toy", prompt=["A red", "A blue star"], max_tokens=8, n=2)
    assert [choice.index for choice in reply.choices] == [0, 1, 2, 3]
    texts = [choice.text for choice in reply.choices]
    assert texts[0] == texts[1] != texts[2] == texts[3]
    assert reply.usage and reply.usage.completion_tokens <= 32
    stream = client.completions.create(model="toy", prompt="A red", max_tokens=8, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == texts[0]


def test_models(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["toy"]
    assert client.models.retrieve("toy").id == "toy"
    with pytest.raises(openai.NotFoundError) as missing:
        client.models.retrieve("gpt-5")
    assert missing.value.code == "model_not_found"


def test_a_stream_that_is_left_frees_its_place(client: OpenAI, address: str) -> None:
    stream = client.chat.completions.create(model="toy", messages=[user("What?", URLS[0])], stream=True, n=2)
    next(iter(stream))
    stream.close()
    assert said(client, [user("Say yes.")]), "the server goes on"


BAD: list[tuple[dict[str, Any], str]] = [
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "user", "content": "x"}], "temperature": 3}, "temperature"),
    ({"messages": [{"role": "user", "content": "x"}], "tools": [{"type": "function"}]}, "tools"),
    ({"messages": [{"role": "user", "content": "x"}], "nonsense": 1}, "nonsense"),
    ({"messages": [{"role": "user", "content": "x"}], "top_logprobs": 2}, "logprobs: true"),
    ({"messages": [{"role": "user", "content": "a <image> b"}]}, "image_url"),
    ({"messages": [{"role": "assistant", "content": "x"}]}, "user"),
    ({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}, "last message"),
    ({"messages": [{"role": "user", "content": "x"}, {"role": "system", "content": "y"}]}, "first"),
    ({"messages": [{"role": "user", "content": "why " * 600}]}, "the context holds 512"),
    ({"messages": [{"role": "user", "content": "x </s> y"}]}, "special token"),
    ({"messages": [{"role": "user", "content": "x"}], "max_tokens": 0}, "max_tokens"),
    ({"messages": [{"role": "user", "content": "x"}], "stop": [""]}, "stop"),
]


@pytest.mark.parametrize(("body", "reason"), BAD)
def test_a_wrong_request_gets_400_and_the_reason(client: OpenAI, body: dict[str, Any], reason: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.post("/chat/completions", body={"model": "toy", **body}, cast_to=object)
    error = caught.value
    assert error.type == "invalid_request_error" and isinstance(error.body, dict)
    assert set(error.body) == {"message", "type", "param", "code"}
    assert reason in json.dumps(error.body)


def test_health_and_metrics(address: str, client: OpenAI) -> None:
    from urllib.request import urlopen

    def metrics() -> dict[str, float]:
        text = urlopen(f"{address}/metrics").read().decode()
        rows = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in rows}

    assert json.load(urlopen(f"{address}/health")) == {"status": "ok", "model": "toy"}
    before = metrics()
    reply = client.chat.completions.create(model="toy", messages=[user("Hm?", URLS[0])], max_tokens=5)
    after = metrics()
    gained = {name: after[name] - before.get(name, 0) for name in after}
    assert reply.usage
    assert gained["llavakit_completion_tokens_total"] == reply.usage.completion_tokens
    assert gained["llavakit_prompt_tokens_total"] == reply.usage.prompt_tokens
    assert gained["llavakit_time_to_first_token_seconds_count"] == 1
    assert gained['llavakit_responses_total{status="200"}'] == 2  # the answer, and the page of metrics itself
    assert after["llavakit_requests_running"] == after["llavakit_requests_waiting"] == 0
    assert after["llavakit_tokens_per_second"] > 0
