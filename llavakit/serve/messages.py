"""OpenAI's messages -> a Conversation, pictures put where the saved chat template puts them."""

from __future__ import annotations

from collections.abc import Sequence

from llavakit.chat.conversation import IMAGE, Conversation, ImageRef, Turn
from llavakit.serve.pictures import PictureLimits, picture
from llavakit.serve.refuse import Refused
from llavakit.serve.wire import ImagePart, Message, SystemMessage, TextPart


async def conversation(messages: Sequence[Message], limits: PictureLimits) -> Conversation:
    """The conversation that messages amount to; its pictures are bytes. Raises :class:`Refused` for a picture that
    is not taken, a system message that is not the first, and ``<image>`` written as text."""
    urls = [part.image_url.url for m in messages for part in m.content if isinstance(part, ImagePart)]
    if len(urls) > limits.images:
        raise Refused(400, f"{len(urls)} pictures in one request; at most {limits.images} are taken", param="messages")
    system: str | None = None
    turns = []
    for number, message in enumerate(messages):
        text = content(message.content)
        if isinstance(message, SystemMessage):
            if number:
                raise Refused(400, "a system message may only be the first", param=f"messages.{number}.role")
            system = text
        else:
            turns.append(Turn(message.role, text))
    images = tuple([ImageRef(await picture(url, limits)) for url in urls])
    return Conversation(tuple(turns), images, system, source="messages").checked()


def content(parts: str | Sequence[TextPart | ImagePart]) -> str:
    """A message's text, each picture an ``<image>``. Equal to the macro ``content`` of the saved chat template."""
    if isinstance(parts, str):
        return _plain(parts)
    out = []
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        if isinstance(part, TextPart):
            out.append(_plain(part.text))
        else:
            out.append(("\n" if last and number else "") + IMAGE + ("" if last else "\n"))
    return "".join(out)


def _plain(text: str) -> str:
    if IMAGE in text:
        raise Refused(400, f"{IMAGE} stands in a text; send the picture as an image_url part", param="messages")
    return text
