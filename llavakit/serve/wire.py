"""What goes over the wire: OpenAI's requests and answers, as far as a LLaVA model can honour them.

A field that we cannot honour is refused, not ignored: ``tools``, a penalty other than 0, ``response_format`` other than
text. The few that ask for nothing of the answer (``user``, ``metadata`` ...) are taken and not used.
Source: the API reference of OpenAI, chat completions and completions.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

MOST = 2**31 - 1
"""Of tokens to be written: more than any context."""


class Wire(BaseModel):
    """Base of everything that is received."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="after")
    def _writable(self) -> Self:
        """JSON can hold half of a surrogate pair, of which no tokenizer makes anything."""
        for value in vars(self).values():
            for text in value if isinstance(value, list) else [value]:
                if isinstance(text, str):
                    try:
                        text.encode()
                    except UnicodeEncodeError:
                        raise ValueError("a text holds half of a surrogate pair") from None
        return self


class TextPart(Wire):
    type: Literal["text"]
    text: str


class ImageUrl(Wire):
    url: str = Field(description="data:image/png;base64,... ; https://... where the server allows remote pictures")
    detail: Literal["auto", "low", "high"] | None = Field(None, description="not used: the model has one resolution")


class ImagePart(Wire):
    type: Literal["image_url"]
    image_url: ImageUrl


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class SystemMessage(Wire):
    role: Literal["system", "developer"]
    content: str | list[TextPart]
    name: str | None = None


class UserMessage(Wire):
    role: Literal["user"]
    content: str | list[Part]
    name: str | None = None


class AssistantMessage(Wire):
    role: Literal["assistant"]
    content: str | list[TextPart]
    name: str | None = None
    # Clients send an answer back as they got it, with what it did not have.
    refusal: None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    audio: None = None
    function_call: None = None
    tool_calls: Annotated[list[Any], Field(max_length=0)] | None = None


Message = Annotated[SystemMessage | UserMessage | AssistantMessage, Field(discriminator="role")]


class TextFormat(Wire):
    type: Literal["text"]


class StreamOptions(Wire):
    include_usage: bool = False


class Sampling(Wire):
    """What both kinds of request have in common."""

    model: str
    temperature: float | None = Field(None, ge=0, le=2, description="0, the default, is greedy")
    top_p: float | None = Field(None, gt=0, le=1)
    n: int | None = Field(None, ge=1, le=16)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63, description="without one, every request samples anew")
    stop: str | Annotated[list[str], Field(max_length=4)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    frequency_penalty: Annotated[float, Field(ge=0, le=0)] | None = Field(None, description="only 0")
    presence_penalty: Annotated[float, Field(ge=0, le=0)] | None = Field(None, description="only 0")
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = Field(None, description="only empty")
    user: str | None = Field(None, description="not used")

    @property
    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else self.stop or []


class ChatRequest(Sampling):
    messages: list[Message] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1, le=MOST, description="without one, what the context holds")
    max_completion_tokens: int | None = Field(None, ge=1, le=MOST)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    response_format: TextFormat | None = None
    modalities: list[Literal["text"]] | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = Field(None, description="only empty")
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = Field(None, description="not used")
    metadata: dict[str, str] | None = Field(None, description="not used")
    store: bool | None = Field(None, description="not used; nothing is stored")
    service_tier: str | None = Field(None, description="not used")
    prompt_cache_key: str | None = Field(None, description="not used; prefixes are always shared")
    safety_identifier: str | None = Field(None, description="not used")


class CompletionRequest(Sampling):
    prompt: str | Annotated[list[str], Field(min_length=1, max_length=16)] = Field(
        description="plain text, continued as it stands: no chat template"
    )
    max_tokens: int | None = Field(16, ge=1, le=MOST)
    logprobs: int | None = Field(None, ge=0, le=5)
    echo: Literal[False] | None = None
    best_of: Literal[1] | None = None
    suffix: None = None


class LookRequest(Wire):
    """Ours: what the model saw of the pictures, and where it looked as it wrote the last message."""

    model: str
    messages: list[Message] = Field(min_length=1)


class TopLogprob(BaseModel):
    token: str
    logprob: float
    bytes: list[int] | None = Field(description="null where the token is only a part of a character")


class TokenLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class ChatLogprobs(BaseModel):
    content: list[TokenLogprob]
    refusal: None = None


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


Finish = Literal["stop", "length"]


class Answer(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class Choice(BaseModel):
    index: int
    message: Answer
    logprobs: ChatLogprobs | None
    finish_reason: Finish


class ChatCompletion(BaseModel):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


class Delta(BaseModel):
    role: Literal["assistant"] | None = None
    content: str | None = None


class ChunkChoice(BaseModel):
    index: int
    delta: Delta
    logprobs: ChatLogprobs | None = None
    finish_reason: Finish | None = None


class ChatChunk(BaseModel):
    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None


class TextLogprobs(BaseModel):
    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class TextChoice(BaseModel):
    index: int
    text: str
    logprobs: TextLogprobs | None = None
    finish_reason: Finish | None


class Completion(BaseModel):
    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage | None = None


class Model(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "llavakit"
    max_model_len: int = Field(description="tokens of the context, as vLLM says it")


class Models(BaseModel):
    object: Literal["list"] = "list"
    data: list[Model]


class View(BaseModel):
    """A picture as the model saw it."""

    image: str = Field(description="data:image/png;base64,...")
    rows: int
    columns: int


class Word(BaseModel):
    """A word of the answer, ``text[start:end]`` in code points, and the attention that each patch of each view had."""

    start: int
    end: int
    share: float = Field(description="of its attention, what went to pictures")
    heat: list[str] = Field(description="for each view rows x columns bytes in base64; 255 is the most of all views")


class Look(BaseModel):
    views: list[View]
    text: str = Field(description="the answer as its tokens spell it")
    words: list[Word]


class Health(BaseModel):
    status: Literal["ok"] = "ok"
    model: str


class ErrorBody(BaseModel):
    message: str
    type: str
    param: str | None = None
    code: str | None = None


class Error(BaseModel):
    """OpenAI's shape of every error."""

    error: ErrorBody
