"""One question to a model behind an OpenAI-compatible endpoint, and what can come of it: a reply or a failure."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

IMAGE_TOKENS = 1_100  # what one picture counts for in an estimate; endpoints differ


@dataclass(frozen=True)
class Request:
    """``body``: what is posted to /chat/completions, ``model`` and ``messages`` included. ``trial`` tells apart equal
    questions that are meant to be asked several times (the runs of a judge)."""

    body: Mapping[str, Any]
    trial: int = 0

    @functools.cached_property
    def key(self) -> str:
        """32 hexadecimal digits; equal questions have equal keys, whatever the endpoint's address."""
        text = json.dumps([self.body, self.trial], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    @property
    def prompt_tokens(self) -> int:
        """An estimate: four bytes a token, four tokens a message, :data:`IMAGE_TOKENS` a picture."""
        return sum(4 + _tokens(message.get("content")) for message in self.body["messages"])

    @property
    def most_tokens(self) -> int:
        """The longest answer that is allowed; 0 where the body sets no limit."""
        return int(self.body.get("max_completion_tokens") or self.body.get("max_tokens") or 0)


@dataclass(frozen=True)
class Usage:
    """Tokens of the prompt and of the answer; ``estimated`` where the endpoint did not count."""

    prompt: int
    answer: int
    estimated: bool = False


@dataclass(frozen=True)
class Reply:
    """``model`` and ``fingerprint``: as the endpoint names what has answered. ``finish``: "stop", or "length" when the
    answer was cut."""

    key: str
    text: str
    model: str
    finish: str
    usage: Usage
    fingerprint: str = ""

    def plain(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of_plain(cls, record: Mapping[str, Any]) -> Reply:
        return cls(**{**record, "usage": Usage(**record["usage"])})


@dataclass(frozen=True)
class Failure:
    """No reply. ``refused``: the endpoint will not answer this question (asking again is in vain); else it gave no
    usable reply in all attempts, and another run may have more luck."""

    key: str
    reason: str
    refused: bool = False


class Unusable(Exception):
    """An answer that came and cannot be used; ``usage`` is what it cost all the same."""

    def __init__(self, reason: str, usage: Usage | None = None, refused: bool = False) -> None:
        super().__init__(reason)
        self.usage = usage
        self.refused = refused


def reply_of(data: bytes, request: Request, blank: bool = False) -> Reply:
    """Reads the body of a chat completion. Raises :class:`Unusable` when it is broken, a refusal, or, unless ``blank``
    is a good answer, empty."""
    try:
        body = json.loads(data)
    except ValueError:
        raise Unusable(f"malformed JSON: {data[:60].decode(errors='replace')!r}") from None
    return reply_of_body(body, request.key, request, blank)


def reply_of_body(body: Any, key: str, request: Request | None = None, blank: bool = False) -> Reply:
    """As :func:`reply_of`, from parsed JSON. ``request`` serves to estimate the tokens that were not counted."""
    if not isinstance(body, dict):
        raise Unusable(f"a chat completion must be an object, got {str(body)[:60]!r}")
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise Unusable("no choices in the answer", _counted(body))
    message = choices[0].get("message")
    message = message if isinstance(message, dict) else {}
    text, finish = message.get("content"), str(choices[0].get("finish_reason") or "stop")
    if finish == "content_filter" or message.get("refusal"):
        raise Unusable(f"refused: {message.get('refusal') or 'content filter'}", _counted(body), refused=True)
    if not isinstance(text, str) or not (blank or text.strip()):
        raise Unusable(f"an empty answer (finish reason {finish!r})", _counted(body))
    guess = Usage(request.prompt_tokens if request else 0, _tokens(text), estimated=True)
    model, fingerprint = str(body.get("model") or ""), str(body.get("system_fingerprint") or "")
    return Reply(key, text.strip(), model, finish, _counted(body) or guess, fingerprint)


def _counted(body: Mapping[str, Any]) -> Usage | None:
    usage = body.get("usage")
    if not isinstance(usage, dict):
        return None
    counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
    prompt, answer = (count if isinstance(count, int) and count >= 0 else None for count in counts)
    return None if prompt is None or answer is None else Usage(prompt, answer)


def _tokens(content: Any) -> int:
    return sum(IMAGE_TOKENS if text is None else -(-len(text.encode()) // 4) for text in _parts(content))


def _parts(content: Any) -> Iterator[str | None]:
    """The texts of a message's content, None for a picture."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        yield from (part.get("text") if part.get("type") == "text" else None for part in content)
