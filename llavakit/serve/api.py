"""The routes: OpenAI's, ours (``/v1/look``), health, metrics, and the chat page."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles

from llavakit import __version__
from llavakit.base.config import Config
from llavakit.chat.conversation import Conversation, question
from llavakit.chat.template import Template
from llavakit.engine.sample import Decoding
from llavakit.engine.service import Service
from llavakit.model.encode import Codec, Example, encode
from llavakit.serve import refuse
from llavakit.serve.answering import Desk, while_there
from llavakit.serve.gate import Gate, Room, is_loopback
from llavakit.serve.look import look
from llavakit.serve.messages import conversation
from llavakit.serve.metrics import Metrics
from llavakit.serve.pictures import PictureLimits
from llavakit.serve.refuse import Refused
from llavakit.serve.replies import ChatReply, Reply, TextReply
from llavakit.serve.wire import (
    ChatCompletion,
    ChatRequest,
    Completion,
    CompletionRequest,
    Error,
    Health,
    Look,
    LookRequest,
    Model,
    Models,
    Sampling,
)

WEB = Path(__file__).parent / "web"
RAW = Template(name="raw", system="", user="{text}", prompt="", answer="")
"""A text to be continued as it stands."""
HEADERS = {
    # The page may load from this server alone, and show pictures that are in it already.
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
LEFT = 499
"""The status, which nobody sees, of a request whose client has left."""


class ServeConfig(Config):
    """How a model is served."""

    name: str
    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = None
    queue: int = 64
    """Answers that may wait beside those of the batch."""
    body_bytes: int = 64 * 2**20
    pictures: PictureLimits = PictureLimits()


def application(service: Service, config: ServeConfig) -> FastAPI:
    """The server as an ASGI application. It closes ``service``, finishing what runs, when it is shut down."""
    metrics = Metrics()
    room = Room(service.engine.batch_size + config.queue)
    desk = Desk(service, metrics, room.places)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        yield
        desk.close()

    errors: dict[int | str, dict[str, Any]] = {
        status: {"model": Error} for status in (400, 401, 403, 404, 408, 413, 429, 500, 503)
    }
    # The pages of documentation that FastAPI adds load their scripts from elsewhere.
    app = FastAPI(title="llavakit", version=__version__, lifespan=life, docs_url=None, redoc_url=None, responses=errors)
    refuse.install(app)
    _answers(app, desk, config)
    _facts(app, desk, config)
    _page(app)
    app.add_middleware(
        Gate,
        room=room,
        metrics=metrics,
        api_key=config.api_key,
        local=is_loopback(config.host),
        max_body=config.body_bytes,
    )
    return app


def _answers(app: FastAPI, desk: Desk, config: ServeConfig) -> None:
    codec = desk.service.engine.codec
    # One event of the stream.
    chunk = {"type": "string", "description": "a chunk as JSON; at last [DONE]"}
    event = {"type": "object", "properties": {"data": chunk}, "required": ["data"]}
    streamed: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {"schema": event}}}}

    @app.post("/v1/chat/completions", response_model=ChatCompletion, responses=streamed)
    async def chat(asked: ChatRequest, request: Request) -> Response:
        """An answer to a conversation about pictures, or without any."""

        async def work() -> Response:
            check_model(asked.model, config.name)
            if asked.top_logprobs is not None and not asked.logprobs:
                raise Refused(400, "top_logprobs needs logprobs: true", param="top_logprobs")
            talk = await conversation(asked.messages, config.pictures)
            if talk.answered:
                raise Refused(400, "the last message must be the user's", param="messages")
            limit = asked.max_completion_tokens or asked.max_tokens
            top = asked.top_logprobs or 0 if asked.logprobs else None
            return await reply(request, asked, [talk], limit, top, ChatReply)

        return await answered(request, work())

    @app.post("/v1/completions", response_model=Completion, responses=streamed)
    async def complete(asked: CompletionRequest, request: Request) -> Response:
        """The continuation of a text, or of several."""

        async def work() -> Response:
            check_model(asked.model, config.name)
            texts = [asked.prompt] if isinstance(asked.prompt, str) else asked.prompt
            prompts = [raw(text, codec) for text in texts]
            return await reply(request, asked, prompts, asked.max_tokens, asked.logprobs, TextReply)

        return await answered(request, work())

    @app.post("/v1/look")
    async def looked(asked: LookRequest, request: Request) -> Look:
        """Ours: the pictures as the model saw them, and where it looked as it wrote each word of the last message."""

        async def work() -> Response:
            check_model(asked.model, config.name)
            talk = await conversation(asked.messages, config.pictures)
            return Response((await desk.on_engine(look, talk)).model_dump_json(), media_type="application/json")

        return await answered(request, work())  # type: ignore[return-value]

    async def reply(
        request: Request,
        asked: Sampling,
        prompts: Sequence[Conversation | Example],
        limit: int | None,
        top: int | None,
        kind: type[Reply],
    ) -> Response:
        since = time.monotonic()
        n = asked.n or 1
        request.scope["llavakit.seat"].take(len(prompts) * n - 1)
        each = [(prompt, how) for prompt in prompts for how in decodings(asked, limit or codec.max_length, n)]
        tickets = await desk.submit(each, 0 if top is None else max(1, top), continues=kind is TextReply)
        made = kind(config.name, tickets, n, top)
        events = desk.events(tickets, since)
        if asked.stream:
            usage = asked.stream_options is not None and asked.stream_options.include_usage
            return StreamingResponse(made.stream(events, usage), media_type="text/event-stream")
        return Response((await made.whole(events)).model_dump_json(), media_type="application/json")


def _facts(app: FastAPI, desk: Desk, config: ServeConfig) -> None:
    model = Model(id=config.name, created=int(time.time()), max_model_len=desk.service.engine.codec.max_length)

    @app.get("/v1/models")
    async def models() -> Models:
        return Models(data=[model])

    @app.get("/v1/models/{name:path}")
    async def one(name: str) -> Model:
        check_model(name, config.name)
        return model

    @app.get("/health")
    async def health() -> Health:
        """Answers as long as the server takes requests."""
        return Health(model=config.name)

    @app.get("/metrics", response_class=PlainTextResponse)
    async def numbers() -> Response:
        """For Prometheus."""
        text = desk.metrics.text(desk.service.stats())
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4; charset=utf-8")


def _page(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(WEB / "index.html", headers=HEADERS)

    @app.get("/favicon.ico", include_in_schema=False)
    async def icon() -> Response:
        return FileResponse(WEB / "icon.svg", headers=HEADERS)

    app.mount("/web", StaticFiles(directory=WEB))


async def answered(request: Request, work: Any) -> Response:
    """The response of ``work``, which is given up as soon as the client leaves."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    return await while_there(gone(), work) or Response(status_code=LEFT)


def check_model(asked: str, name: str) -> None:
    if asked != name:
        raise Refused(404, f"no model {asked!r} here; this server has {name!r}", "model_not_found", "model")


def decodings(asked: Sampling, limit: int, n: int) -> list[Decoding]:
    """How each of ``n`` answers is written: alike but for the seed."""
    # Decoding takes 63 bits; what is negative wraps round.
    seed = secrets.randbits(32) if asked.seed is None else asked.seed
    plain = {
        "max_new_tokens": limit,
        "temperature": asked.temperature or 0.0,
        "top_p": asked.top_p or 1.0,
        "stop": asked.stops,
    }
    return [Decoding.parse({**plain, "seed": (seed + number) % 2**63}, "the request") for number in range(n)]


def raw(text: str, codec: Codec) -> Example:
    """A text to be continued, as tokens."""
    return encode(question(text), codec.using(RAW), prompt=True)
