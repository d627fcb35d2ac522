"""A model behind an OpenAI-compatible endpoint (vLLM, SGLang, llama.cpp, a hosted one) as what a benchmark asks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from llavakit.base.errors import WorkFailed
from llavakit.chat.conversation import IMAGE, Conversation
from llavakit.endpoint.client import Client
from llavakit.endpoint.request import Failure, Request
from llavakit.eval.benchmark import Answer
from llavakit.image.url import data_url


def remote(client: Client, body: Mapping[str, Any]) -> Answer:
    """An answer function. ``body``: what every request holds beside its messages, ``model`` at least.

    Raises :class:`WorkFailed` for a question that got no answer: a run stops there and can be gone on with, since a
    benchmark with holes has no score.
    """

    def answer(conversations: Iterable[Conversation]) -> Iterator[str]:
        asked = list(conversations)  # of paths; a picture is read when its question is sent
        requests = (Request({**body, "messages": messages(conversation)}) for conversation in asked)
        for conversation, outcome in zip(asked, client.answers(requests), strict=True):
            if isinstance(outcome, Failure):
                raise WorkFailed(f"{conversation.where}: no answer from {client.endpoint.url}: {outcome.reason}")
            yield outcome.text

    return answer


def messages(conversation: Conversation) -> list[dict[str, Any]]:
    """The conversation in the API's form; each ``<image>`` becomes its picture, in its place between the words."""
    images = iter(conversation.images)
    said: list[dict[str, Any]] = []
    if conversation.system is not None:
        said.append({"role": "system", "content": conversation.system})
    for turn in conversation.turns:
        first, *others = (piece.strip() for piece in turn.text.split(IMAGE))
        parts: list[dict[str, Any]] = [{"type": "text", "text": first}] if first else []
        for piece in others:
            parts.append({"type": "image_url", "image_url": {"url": data_url(next(images).source)}})
            parts += [{"type": "text", "text": piece}] if piece else []
        said.append({"role": turn.role, "content": parts if others else turn.text})
    return said
